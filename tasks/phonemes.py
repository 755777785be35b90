"""English spelling as sounds, for a voice that reads what it has not seen: ``text.normalise=phonemes``.

Words are looked up in CMUdict as pocketsphinx brings it (134,000 words; of several pronunciations the first, so
``read`` and ``lead`` are said in one way) and written in IPA, without stress, which the dictionary leaves out. A word
that it lacks is tried without its accents and without its ending ``'s``; else it stays as it is, in capitals: letters
no phoneme is written with (`unknown` finds these). Numbers are said (spoken_numbers.py), and the signs & and %; other
signs are not. Marks that a reader hears (, . ? ! ; :) stay, but for the stop of a title (``Dr.``); of a text of marks
alone nothing is left.
"""

from __future__ import annotations

import re
import unicodedata
from functools import cache, lru_cache

from tasks.letters import words_alone
from tasks.spoken_numbers import in_words

# CMUdict's 39 phonemes (ARPAbet) in IPA.
IPA = {
    **{"AA": "ɑ", "AE": "æ", "AH": "ʌ", "AO": "ɔ", "AW": "aʊ", "AY": "aɪ", "EH": "ɛ", "ER": "ɝ", "EY": "eɪ"},
    **{"IH": "ɪ", "IY": "i", "OW": "oʊ", "OY": "ɔɪ", "UH": "ʊ", "UW": "u"},
    **{"B": "b", "CH": "ʧ", "D": "d", "DH": "ð", "F": "f", "G": "ɡ", "HH": "h", "JH": "ʤ", "K": "k", "L": "l"},
    **{"M": "m", "N": "n", "NG": "ŋ", "P": "p", "R": "ɹ", "S": "s", "SH": "ʃ", "T": "t", "TH": "θ", "V": "v"},
    **{"W": "w", "Y": "j", "Z": "z", "ZH": "ʒ"},
}
SIBILANTS = ("s", "z", "ʃ", "ʒ", "ʧ", "ʤ")
VOICELESS = ("p", "t", "k", "f", "θ")
MARKS = ",.?!;:"
SAID = {"dr": "doctor", "prof": "professor"}  # the dictionary's first dr is a drive
SIGNS = {"&": " and ", "%": " percent ", "°": " degrees "}
SCALES = {"C": "Celsius", "F": "Fahrenheit"}  # of degrees
DEGREES = re.compile(r"°\s?([CF])\b")
APOSTROPHES = re.compile(r"(?<=\w)[’‘ʼ`´′](?=\w)|’")
TITLES = re.compile(r"\b(mr|mrs|ms|dr|prof)\.", re.IGNORECASE)
SAINTS = re.compile(r"\b[Ss][Tt]\.(?=\s+[A-Z])")
STARTS = "He|She|It|They|We|You|The|A|An|And|But|In|On|At|There|This|That|His|Her|Its|Their|Then|When|No|Not|Yes"
STREETS = re.compile(rf"(\b[A-Z]\w+ )[Ss][Tt]\.(?=\s+(?:{STARTS})\b)")  # on Main St. He lives
LETTER_A = re.compile(r"\b[Aa]\.")  # and not the article
PARTS = re.compile(rf"\d+(?:[.,:]\d+)+|[^\s'{MARKS}]+(?:'[^\s'{MARKS}]+)*'?|[{MARKS}]")


@cache
def pronunciations() -> dict[str, str]:
    """Word in lower case → its first pronunciation in IPA. Raises ModuleNotFoundError without pocketsphinx."""
    from pocketsphinx import get_model_path

    found: dict[str, str] = {}
    with open(get_model_path("en-us/cmudict-en-us.dict"), encoding="utf-8") as lines:
        for line in lines:
            word, *phones = line.split()
            found.setdefault(word, "".join(IPA[phone] for phone in phones))
    return found


def parts_of(text: str) -> list[str]:
    """The words in lower case, and the marks that are heard, of ``text`` in their order."""
    text = in_words(APOSTROPHES.sub("'", text))
    text = LETTER_A.sub("ay.", SAINTS.sub("saint", STREETS.sub(r"\1street", TITLES.sub(r"\1", text))))
    text = DEGREES.sub(lambda found: f"° {SCALES[found[1]]}", text)
    for sign, word in SIGNS.items():
        text = text.replace(sign, word)
    return PARTS.findall(words_alone(text, keep=MARKS + "'"))


@lru_cache(1 << 16)  # a server is asked for words without end
def say(word: str) -> str:
    """``word``, in lower case, in IPA, the ending of a possessive by rule; nothing where the dictionary lacks it."""
    known, bare = pronunciations(), word.rstrip("'")
    plain = "".join(letter for letter in unicodedata.normalize("NFD", bare) if not unicodedata.combining(letter))
    for form in (SAID.get(bare, word), bare, f"{bare}'", plain):
        if form in known:
            return known[form]
    stem = known.get(plain.removesuffix("'s"), "") if plain.endswith("'s") else ""
    return stem and stem + ("ʌz" if stem.endswith(SIBILANTS) else "s" if stem.endswith(VOICELESS) else "z")


def spelled(word: str) -> str:
    """A word that the dictionary lacks, as it stands in what is read."""
    return word.rstrip("'").upper()


def unknown(text: str) -> list[str]:
    """The words of ``text`` that are not said but spelled, as they are written in what is read."""
    return [spelled(part) for part in parts_of(text) if part not in MARKS and not say(part)]


def phonemes(text: str) -> str:
    """English ``text`` in IPA, a space between words; marks that are heard follow their word."""
    parts = parts_of(text)
    if all(part in MARKS for part in parts):
        return ""
    return "".join(part if part in MARKS else f" {say(part) or spelled(part)}" for part in parts).strip()
