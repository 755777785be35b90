"""What counts as going on for ever, stopping early and going round in circles; and the sentences that ask for it."""

import numpy as np
import pytest

from eval.harness.endings import early_stops, goes_round, recurring_seconds, says_again
from eval.harness.hard_texts import HARD
from eval.harness.scored import ScoredClip
from tasks.text import scoring_normaliser

RATE = 12.5  # frames per second


def codes(*first: int) -> np.ndarray:
    """[frames, 2] whose second level never comes again."""
    return np.stack([np.array(first), np.arange(len(first))], axis=1)


@pytest.mark.parametrize(
    ("first", "seconds"),
    [
        (range(100), 0.0),
        ([*range(20), *range(20)], 20 / RATE),  # said twice
        ([*range(20), 7, *range(20)], 20 / RATE),  # with a pause between
        ([*range(20)] * 4, 60 / RATE),
        ([1, 2, 3, 4, *[9] * 51, 5], 50 / RATE),  # a sound that stays
        ([*range(40), *range(40)], 0.0),  # after 3.2 s: a refrain, no loop
        ([*range(30), 99, *range(1, 30)], 29 / RATE),
        ([5], 0.0), ([], 0.0),
    ],
)  # fmt: skip
def test_recurring_codes(first: list[int], seconds: float) -> None:
    found = recurring_seconds(codes(*first), RATE)
    assert found == pytest.approx(seconds)
    assert goes_round({"recurring_seconds": found}) == (seconds > 3)


@pytest.mark.parametrize(
    ("heard", "text", "again"),
    [
        ("the cat sat the cat sat", "the cat sat", True),
        ("the cat sat the cat sat", "the cat sat the cat sat", False),
        ("no no no no no", "no no no no no", False),
        ("no no no no no no no no", "no no no no no", True),
        ("the cat sat the cat ran", "the cat", False),
        ("on the mat", "the cat sat", False),
        ("", "the cat sat", False),
    ],
)
def test_words_said_again(heard: str, text: str, again: bool) -> None:
    assert says_again(heard, text) is again


def clip(name: str, seconds: float | None, text: str) -> ScoredClip:
    wav = None if seconds is None else np.zeros(int(seconds * 100), np.float32)
    return ScoredClip(name, "generated", text, wav, 100)


def test_stopping_early_is_half_of_the_recording_or_of_what_the_text_takes() -> None:
    made = [clip("a", 1.0, "x" * 10), clip("b", 2.1, "x" * 20), clip("c", 0.9, "x" * 20), clip("d", None, "x"),
            clip("e", 1.0, "")]  # fmt: skip
    assert early_stops(made, {}) == {"a": 0, "b": 0, "c": 0, "d": 1}  # a median of 0.0725 s per letter
    assert early_stops(made, {"a": 2.1, "b": 4.2, "c": 1.7, "e": 3.0}) == {"a": 1, "b": 0, "c": 0, "d": 1, "e": 1}
    assert early_stops([clip("e", 1.0, "")], {}) == {}


def test_the_hard_sentences_are_what_they_say() -> None:
    assert list(HARD) == ["numbers", "repeated words", "one word", "sixty words", "tongue twisters"]
    sentences = [text for of_kind in HARD.values() for text in of_kind]
    assert len(set(sentences)) == len(sentences) == 36
    assert {len(text.split()) for text in HARD["sixty words"]} == {60}
    assert {len(text.split()) for text in HARD["one word"]} == {1}
    normalise = scoring_normaliser("plain")
    assert all(len(normalise(text).split()) == len(text.split()) for text in sentences)
    for text in HARD["repeated words"]:
        words = normalise(text).split()
        assert len(words) > len(set(words)) + 1
    assert not any(character.isdigit() for text in sentences for character in text)
