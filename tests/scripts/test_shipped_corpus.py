"""The corpus that ships: its metadata, its speech and its tokens are those that scripts/make_corpus.py plans."""

from collections import Counter

import numpy as np
import pytest
import soundfile
from json_files import read_lines

import make_corpus
from codec.load import load
from codec.shards import read_index, read_shards
from mini_corpus import layout, rendering, speech, voices
from mini_corpus.grammar import vocabulary
from training.config import REPOSITORY


@pytest.fixture(scope="module")
def shipped() -> list[dict]:
    return read_lines(make_corpus.MINI / layout.METADATA)


def test_shipped_metadata_lists_all_three_domains(shipped: list[dict]) -> None:
    assert {row["domain"] for row in shipped} == {"speech", "sound", "music"}
    assert len({row["id"] for row in shipped}) == len({row["file_name"] for row in shipped}) == len(shipped)
    assert all(row["licence"] and row["split"] in layout.SPLITS for row in shipped)
    for domain in ("sound", "music"):
        planned = list(rendering.RECIPES[domain].plan(make_corpus.SEED))
        assert [row for row in shipped if row["domain"] == domain] == planned


def test_shipped_speech_is_the_grammars(shipped: list[dict]) -> None:
    rows = [row for row in shipped if row["domain"] == "speech"]
    plan = speech.plan_grammar(make_corpus.SEED, make_corpus.VOICES, make_corpus.MINI_TEST, make_corpus.MINI_VALID)
    for row, clip in zip(rows, plan, strict=False):
        expected = speech.row_of(clip, row["seconds"], voices.FLITE_LICENCE)
        assert row == expected
    assert sum(row["seconds"] for row in rows) >= 12 * 60
    assert Counter(row["split"] for row in rows)["test"] >= 50
    words = {word for row in rows for word in row["text"].split()}
    assert words <= set((make_corpus.MINI / "words.txt").read_text().split()) == set(vocabulary())


def test_shipped_speech_is_there_and_small(shipped: list[dict]) -> None:
    paths = [make_corpus.MINI / row["file_name"] for row in shipped if row["domain"] == "speech"]
    for path in paths[::20]:
        samples, rate = soundfile.read(path)
        assert rate == 16_000 and np.isfinite(samples).all() and 0.05 < np.abs(samples).max() < 1
    extra = [make_corpus.MINI / name for name in ("metadata.jsonl", "words.txt", "grammar.arpa")]
    assert sum(path.stat().st_size for path in [*paths, *extra]) <= 12_200_000


@pytest.mark.slow
def test_shipped_tokens_are_of_the_corpus_and_of_more_of_its_kind(shipped: list[dict]) -> None:
    folder = make_corpus.MINI / "tokens"
    rows = {row.id: row for row in read_shards(folder)}
    for clip in shipped:
        row = rows[clip["id"]]
        assert (row.split, row.domain, row.text) == (clip["split"], clip["domain"], clip.get("text"))
        assert row.captions == clip.get("caption", [])
        assert abs(len(row.codes) / 12.5 - clip["seconds"]) < 0.1
    for domain in ("sound", "music"):
        planned = {row["id"]: row for row in rendering.RECIPES[domain].plan(make_corpus.SEED, 8)}
        found = {row.id: row for row in rows.values() if row.domain == domain}
        assert found.keys() == planned.keys()
        assert all(row.captions == planned[name]["caption"] for name, row in found.items())
    codec = load(str(REPOSITORY / "checkpoints/codec-mini"))
    assert read_index(folder).fingerprint == codec.fingerprint
