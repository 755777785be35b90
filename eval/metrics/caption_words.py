"""Words of captions as the COCO caption evaluation counts them: Penn Treebank tokens, lower case, no punctuation.

    words("A man's dog doesn't bark.")   # -> ["a", "man", "'s", "dog", "does", "n't", "bark"]

The reference is Stanford's PTBTokenizer (Java). These rules cover what captions contain; the test compares them with
the Java program where that is installed.
"""

from __future__ import annotations

import re
import unicodedata

# What the COCO scripts drop after tokenising. They mean to drop brackets too, but look for "-LRB-" in lower-cased text,
# so brackets stay words.
DROPPED = frozenset(["''", "'", "``", "`", '"', ".", "?", "!", ",", ":", "-", "--", "...", ";"])
BRACKETS = {"(": "-lrb-", ")": "-rrb-", "{": "-lcb-", "}": "-rcb-", "[": "-lsb-", "]": "-rsb-"}
ENDINGS = ("n't", "'ll", "'re", "'ve", "'s", "'m", "'d")
SPLIT_WORDS = {"cannot": ["can", "not"], "gonna": ["gon", "na"], "gotta": ["got", "ta"], "wanna": ["wan", "na"]}
SPLIT_WORDS["rock'n'roll"] = ["rock", "'n'", "roll"]
ABBREVIATIONS = frozenset("mr. mrs. ms. dr. st. jr. sr. vs. etc. e.g. i.e. a.m. p.m. u.s. no. prof.".split())
# A letter of a word or its marks, which Python's \w leaves out: vowels of Hindi, accents without a letter of their own.
MARKS = "".join(c for c in map(chr, range(0x20000)) if unicodedata.category(c)[0] == "M")
LETTER = rf"[\w{MARKS}]"
TOKEN = re.compile(
    rf"""
    \d+(?:[.,:/]\d+)*(?:st|nd|rd|th)?(?!{LETTER})   # numbers, times and fractions stay whole
    | (?:{LETTER}\.){{2,}}                               # u.s., d.j.
    | [acf]\#(?!{LETTER})                              # the note, the language
    | {LETTER}+(?:[-'&./]{LETTER}+)*'?           # words, also with inner hyphens, apostrophes and slashes
    | \.\.\. | -- | [^\w\s{MARKS}]                       # every other mark alone
    """,
    re.VERBOSE,
)


def words(caption: str) -> list[str]:
    """The words of one caption."""
    text = unicodedata.normalize("NFC", caption.lower())
    text = text.replace("’", "'").replace("‘", "'").replace("“", '"').replace("”", '"').replace("…", "...")
    found: list[str] = []
    for chunk in text.split():
        # the full stop of an abbreviation belongs to it
        stem = chunk.strip("\"'(,;:!?)")
        if stem in ABBREVIATIONS:
            found.append(stem)
            continue
        for token in TOKEN.findall(chunk):
            found += _pieces(token)
    return [token for token in found if token not in DROPPED]


def _pieces(token: str) -> list[str]:
    """A raw token as Treebank tokens: contractions and possessives split, brackets named."""
    if token in BRACKETS:
        return [BRACKETS[token]]
    if token in SPLIT_WORDS:
        return SPLIT_WORDS[token]
    for ending in ENDINGS:
        if token.endswith(ending) and len(token) > len(ending):
            return [token[: -len(ending)], ending]
    if len(token) > 1 and token.endswith("'"):
        return [token[:-1], "'"]
    return [token]
