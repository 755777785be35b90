"""Which texts a corpus of speech says, in which split, and how loud its clips are."""

from __future__ import annotations

from collections import Counter
from itertools import islice

import numpy as np
import pytest
from spoken_texts import sentence_of

from mini_corpus import speech
from mini_corpus.layout import CorpusError


def test_small_plan_is_a_part_of_the_big_plan() -> None:
    small = list(islice(speech.plan_grammar(7, ["slt", "rms"], 80, 60), 400))
    big = {clip.id: clip for clip in islice(speech.plan_grammar(7, ["slt", "rms"]), 1400)}
    assert all(big[clip.id] == clip for clip in small)
    assert Counter(clip.split for clip in small) == {"test": 80, "valid": 60, "train": 260}


def test_no_sentence_is_in_two_splits_and_speakers_share_the_work() -> None:
    clips = list(islice(speech.plan_grammar(7, ["slt", "rms"]), 5000))
    assert len({clip.text for clip in clips}) == len(clips) == len({clip.id for clip in clips})
    for split in ("train", "valid", "test"):
        speakers = Counter(clip.speaker for clip in clips if clip.split == split)
        assert speakers["slt"] == speakers["rms"]


def test_more_test_sentences_than_are_set_aside_are_refused() -> None:
    with pytest.raises(CorpusError, match="set aside"):
        next(speech.plan_grammar(7, ["slt"], test=401))


def test_silence_depends_on_the_id_only_and_covers_its_range() -> None:
    clips = list(islice(speech.plan_grammar(7, ["slt"]), 500))
    leads = np.array([clip.silence(16_000)[0] for clip in clips]) / 16_000
    assert clips[0].silence(16_000) == speech.Utterance(clips[0].id, "other", "rms", "train").silence(16_000)
    assert leads.min() < 0.01 and 0.11 < leads.max() <= 0.12
    assert 0.05 < leads.mean() < 0.07


def test_split_of_a_sentence_does_not_depend_on_its_neighbours() -> None:
    texts = [f"Sentence {n} says nothing." for n in range(300)]
    plan = speech.plan_sentences({text: speech.split_of(text) for text in texts}, ["slt"])
    whole = {clip.text: clip.split for clip in plan}
    part = speech.plan_sentences({text: speech.split_of(text) for text in texts[::-3]}, ["slt"])
    assert all(whole[clip.text] == clip.split for clip in part)
    assert [clip.text for clip in plan if clip.split == "train"] == [t for t in texts if speech.split_of(t) == "train"]
    assert sorted({clip.split for clip in plan}) == ["test", "train", "valid"]
    assert 230 < Counter(whole.values())["train"] < 290
    assert all(speech.split_of(f"“{text.upper()[:-1]}!”") == split for text, split in whole.items())


def test_clauses_lie_in_the_split_of_their_sentence_and_no_held_out_text_was_heard() -> None:
    train = sentence_of("train", "He came in, and saw the old grey house; “Oh no!” he said to all of us")
    same = sentence_of("test", "She said that, “Oh no!” and saw the OLD grey barn, but and saw the old grey cat")
    new = sentence_of("valid", "Nobody knew, in those days - or later - what it was that they wanted")
    texts, left_out = speech.cut([same, train, new], 2, 6)
    assert {text: split for text, split in texts.items() if split == "train"} == dict.fromkeys(
        ["He came in", "and saw the old grey house", "Oh no"], "train"
    )
    assert {text for text, split in texts.items() if split == "valid"} == {"Nobody knew", "in those days", "or later"}
    assert {text for text, split in texts.items() if split == "test"} == {"She said that"}
    assert left_out == ["Oh no", "and saw the OLD grey barn"], "all of one was heard, five words in a row of the other"
    whole, _ = speech.cut([train], 1, 99)
    assert whole[train] == "train"


@pytest.mark.parametrize(
    ("text", "clauses"),
    [
        ("He paid 3,500 dollars, at 12:30 or so.", ["He paid 3,500 dollars", "at 12:30 or so"]),
        ("Dr. Smith saw J. R. Brown. Then Mrs. Hall left.", ["Dr. Smith saw J. R. Brown", "Then Mrs. Hall left"]),
        ("« Oh » he said… and went -- at once.", ["Oh", "he said", "and went", "at once"]),
        ("– Well - known – * – ...", ["Well", "known"]),
    ],
)
def test_clauses_are_cut_where_one_pauses(text: str, clauses: list[str]) -> None:
    found, _ = speech.cut([text], 1, 99)
    assert [part for part in found if part != text] == clauses
    assert text in found


def test_a_text_is_there_once_however_it_is_written_and_of_words_only() -> None:
    texts, _ = speech.cut(["Come here!", "come here", "— * —"], 1, 9)
    assert list(texts) == ["Come here!"]
    assert list(speech.cut(["* Come - here *"], 2, 2)[0]) == ["* Come - here *"], "two words, and marks"


def test_clip_level_is_the_same_for_loud_and_soft_voices() -> None:
    soft = speech.level(0.001 * np.sin(np.arange(16_000)))
    loud = speech.level(0.9 * np.sin(np.arange(16_000)))
    assert np.sqrt(np.mean(soft**2)) == pytest.approx(speech.LEVEL, rel=1e-3)
    assert np.allclose(soft, loud)
    click = np.zeros(16_000)
    click[100] = 0.5
    assert np.abs(speech.level(click)).max() <= speech.PEAK
