"""English spelling as sounds, for a voice that reads what it has not seen: ``text.normalise=phonemes``.

Words are looked up in CMUdict as pocketsphinx brings it (134,000 words; of several pronunciations the first, so
``read`` and ``lead`` are said in one way) and written in IPA, without stress, which the dictionary leaves out. A word
that it lacks is tried without its ending ``'s``; else it stays as it is, in capitals: letters no phoneme is written
with. Numbers stay digits, so write them out where they shall be said. Marks that a reader hears (, . ? ! ; :) stay.
"""

from __future__ import annotations

import re
from functools import cache

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
PARTS = re.compile(r"[^\W_]+(?:'[^\W_]+)*|[,.?!;:]")


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


def say(word: str) -> str:
    """``word`` in IPA, with the ending of a possessive by rule, or in capitals where the dictionary lacks it."""
    known = pronunciations()
    low = word.lower()
    if low in known:
        return known[low]
    stem = known.get(low.removesuffix("'s"), "") if low.endswith("'s") else ""
    if not stem:
        return word.upper()
    return stem + ("ʌz" if stem.endswith(SIBILANTS) else "s" if stem.endswith(VOICELESS) else "z")


def phonemes(text: str) -> str:
    """English ``text`` in IPA, a space between words; marks that are heard follow their word."""
    said = ""
    for part in PARTS.findall(text.replace("’", "'")):
        said += part if part in ",.?!;:" else f" {say(part)}"
    return said.strip()
