"""Ids ⇄ codes, the layout's identity, and what is refused."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from json_files import read_json

from codec.load import shipped_codec
from lm.sequences.vocabulary import FILE_NAME, AudioVocabulary, VocabularyError

INFO = {"name": "codec", "fingerprint": "f" * 64}


@pytest.mark.parametrize("sizes", [(2048, 2048, 2048), (5,), (7, 3, 11, 2), (1024,) * 16])
def test_codes_survive_the_round_trip(sizes):
    vocabulary = AudioVocabulary(777, sizes, INFO)
    codes = np.random.default_rng(0).integers(0, sizes, (50, len(sizes)))
    ids = vocabulary.codes_to_ids(codes.astype(np.uint16))
    assert (vocabulary.ids_to_codes(ids) == codes).all()
    assert (vocabulary.levels_of(ids) == np.arange(len(sizes))).all()


def test_every_id_belongs_to_exactly_one_part():
    vocabulary = AudioVocabulary(300, (20, 30, 40), INFO)
    parts = [range(300), range(300, 300 + len(vocabulary.control))]
    parts += [vocabulary.block(level) for level in range(3)] + [range(vocabulary.used, vocabulary.size)]
    assert [i for part in parts for i in part] == list(range(vocabulary.size))
    assert vocabulary.size % 64 == 0
    levels = vocabulary.levels_of(np.arange(vocabulary.size))
    assert [int((levels == level).sum()) for level in (0, 1, 2)] == [20, 30, 40]
    assert len(set(vocabulary.control)) == len(vocabulary.control) == 64


def test_the_largest_code_of_uint16_does_not_wrap_around():
    vocabulary = AudioVocabulary(40_000, (65_536, 65_536), INFO)
    codes = np.array([[65_535, 65_535]], dtype=np.uint16)
    assert vocabulary.codes_to_ids(codes).max() == vocabulary.used - 1


def test_codes_outside_their_codebook_are_refused():
    vocabulary = AudioVocabulary(300, (20, 30), INFO)
    with pytest.raises(VocabularyError, match="outside its codebook"):
        vocabulary.codes_to_ids(np.array([[20, 0]]))
    with pytest.raises(VocabularyError, match=r"\[frames, 2\]"):
        vocabulary.codes_to_ids(np.zeros((4, 3), dtype=int))
    swapped = vocabulary.codes_to_ids(np.array([[3, 4]]))[:, ::-1]
    with pytest.raises(VocabularyError, match="level order"):
        vocabulary.ids_to_codes(swapped)


def test_the_hash_changes_with_every_field():
    base = AudioVocabulary(300, (20, 30), INFO)
    others = [
        dataclasses.replace(base, text_size=301),
        dataclasses.replace(base, codebook_sizes=(30, 20)),
        dataclasses.replace(base, tokenizer={**INFO, "fingerprint": "0" * 64}),
        dataclasses.replace(base, control=base.control[::-1]),
    ]
    assert len({base.hash, *(other.hash for other in others)}) == 5


def test_saved_and_loaded_it_is_the_same_and_an_edit_is_refused(tmp_path):
    vocabulary = AudioVocabulary(300, (20, 30), INFO)
    vocabulary.save(tmp_path)
    assert AudioVocabulary.load(tmp_path) == vocabulary
    data = read_json(tmp_path / FILE_NAME)
    data["codebook_sizes"] = [30, 20]
    (tmp_path / FILE_NAME).write_text(json.dumps(data))
    with pytest.raises(VocabularyError, match="does not fit its own hash"):
        AudioVocabulary.load(tmp_path)
    (tmp_path / FILE_NAME).write_text(json.dumps(data)[:40])
    with pytest.raises(VocabularyError, match="damaged"):
        AudioVocabulary.load(tmp_path)


def test_another_tokenizer_is_refused_and_both_are_named():
    vocabulary = AudioVocabulary(300, (20, 30), INFO)
    vocabulary.check_tokenizer({"name": "renamed", "fingerprint": "f" * 64})
    with pytest.raises(VocabularyError) as error:
        vocabulary.check_tokenizer({"name": "other", "fingerprint": "0" * 64})
    for part in ("'codec'", "f" * 12, "'other'", "0" * 12):
        assert part in str(error.value)
    assert "tokenizer.path" not in str(error.value)


def test_the_codec_that_a_model_of_this_repository_speaks_is_named():
    vocabulary = AudioVocabulary.load(Path("checkpoints/lm-tts-voice"))
    with pytest.raises(VocabularyError, match="trained with, tokenizer.path=checkpoints/codec-real, or train"):
        vocabulary.check_tokenizer({"name": "other", "fingerprint": "0" * 64}, named=shipped_codec)
