"""``text.normalise=phonemes``: English as it sounds, what the dictionary lacks as letters, only where text is read."""

from __future__ import annotations

import sys

import pytest

from tasks.base import TaskError, make_task
from tasks.phonemes import IPA, phonemes, pronunciations
from tasks.text import _function, normaliser, normalisers
from training.config import compose


@pytest.mark.parametrize(
    ("text", "sounds"),
    [
        ("the pigeon", "ðʌ pɪʤʌn"),
        ("Isn't it?", "ɪzʌnt ɪt?"),
        ("Mister Twenty-One.", "mɪstɝ twɛnti wʌn."),
        ("pugilist’s, horse's fox's", "pjuʤʌlɪsts, hɔɹsʌz fɑksʌz"),  # by rule where the dictionary lacks them
        ("Nabopolassar sang", "NABOPOLASSAR sæŋ"),
        ("at 21", "æt 21"),
        ("— “!”", "!"),
        ("", ""),
    ],
)
def test_sounds(text, sounds):
    assert phonemes(text) == sounds
    assert phonemes(text.upper()) == sounds


def test_every_word_of_the_dictionary_has_a_pronunciation_that_no_letters_can_be_taken_for():
    assert len(IPA) == 39 and len(set(IPA.values())) == 39
    said = pronunciations()
    assert len(said) > 120_000 and all(said.values())
    assert not any(letter.isupper() for letter in set("".join(said.values())))


def test_a_task_that_writes_text_refuses_them():
    reading = make_task(compose("lm_train", ["task=tts"]).task)
    reading.use_normaliser(normalisers("phonemes"))
    assert reading.words("The cat.") == "ðʌ kæt."
    both = make_task(compose("lm_train", ["task=[tts,asr]"]).task)
    both.use_normaliser(normalisers({"tts": "phonemes"}))
    with pytest.raises(TaskError, match="asr writes text.*tts: phonemes"):
        both.use_normaliser(normalisers("phonemes"))


def test_without_pocketsphinx_the_cure_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "pocketsphinx", None)
    pronunciations.cache_clear()
    _function.cache_clear()
    with pytest.raises(TaskError, match="pip install pocketsphinx"):
        normaliser("phonemes")
