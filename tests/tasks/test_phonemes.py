"""``text.normalise=phonemes``: English as it sounds, what the dictionary lacks as letters, only where text is read."""

from __future__ import annotations

import sys

import pytest

from tasks.base import TaskError, make_task
from tasks.phonemes import IPA, phonemes, pronunciations, unknown
from tasks.spoken_numbers import _engine
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
        ("at 21", "æt twɛnti wʌn"),
        ("— “!” …", ""),  # nothing to say
        ("", ""),
        ("don‘t donʼt don´t don`t don＇t", "doʊnt doʊnt doʊnt doʊnt doʊnt"),
        ("‘The dogs,’ he said", "ðʌ dɑɡz, hi sɛd"),
        ("runnin’ and goin'", "ɹʌnɪn ʌnd ɡoʊʌn"),
        ("naïve cafe\u0301’s", "naɪiv kʌfeɪz"),
        ("ﬁ\u00adsh ＦＵＬＬ…", "fɪʃ fʊl..."),
        ("Dr. Jones and Mr. Fox", "dɑktɝ ʤoʊnz ʌnd mɪstɝ fɑks"),
        ("plan A. R&D, ５ %", "plæn eɪ. ɑɹ ʌnd di, faɪv pɝsɛnt"),
        ("½ at 12/25/2020, 1.2.3", "wʌn hæf æt 12 25 2020, 1.2.3"),
        ("हिन्दी 你好。😀", "हिन्दी 你好"),
        ("a\r\n\tline", "ʌ laɪn"),
    ],
)
def test_sounds(text, sounds):
    assert phonemes(text) == sounds
    assert phonemes(text.upper()) == sounds


def test_a_saint_is_no_street():
    assert phonemes("St. Paul on Main St. or so") == "seɪnt pɔl ɑn meɪn stɹit. ɔɹ soʊ"


def test_what_is_spelled_is_known():
    assert unknown("At 3.30pm Nabopolassar's men, 5th of runnin' R&D.") == ["3.30", "NABOPOLASSAR'S"]
    assert unknown("The cat — isn’t naïve!") == []


def test_every_word_of_the_dictionary_has_a_pronunciation_that_no_letters_can_be_taken_for():
    assert len(IPA) == 39 and len(set(IPA.values())) == 39
    said = pronunciations()
    assert len(said) > 120_000 and all(said.values())
    assert not any(letter.isupper() for letter in set("".join(said.values())))


def test_a_task_that_writes_text_refuses_them():
    reading = make_task(compose("lm_train", ["task=tts"]).task)
    reading.use_normaliser(normalisers("phonemes"))
    with pytest.raises(TaskError, match="leaves nothing: write words"):
        reading.words("?!")
    assert reading.words("The cat.") == "ðʌ kæt."
    both = make_task(compose("lm_train", ["task=[tts,asr]"]).task)
    both.use_normaliser(normalisers({"tts": "phonemes"}))
    with pytest.raises(TaskError, match="asr writes text.*tts: phonemes"):
        both.use_normaliser(normalisers("phonemes"))


@pytest.mark.parametrize("package", ["pocketsphinx", "inflect"])
def test_without_a_package_the_cure_is_named(monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    for loaded in (pronunciations, _engine, _function):
        loaded.cache_clear()
    with pytest.raises(TaskError, match=f"pip install {package}"):
        normaliser("phonemes")
