"""A long text in parts that a reader could say one after the other."""

from __future__ import annotations

import re
from itertools import pairwise

PER_DIGIT = 8  # characters more of what is said than of what is written: 777 is seven hundred seventy-seven
NO_TITLE = r"(?<!\b(?:Mr|Ms|Dr|St))(?<!\bMrs)(?<!\b[A-Z])"  # what a full stop must not stand behind to end a sentence
ABBREVIATED = r"(?<!\b(?:Mt|Ft|Lt|No|Jr|Sr|vs))(?<!\b(?:Gen|Col|Rev|Sgt|Hon|[aipAIP]\.[emEM]|e\.g))(?<!\b(?:Prof|Capt))"
SCALES = "hundred|thousand|million|billion|trillion"  # that a number is not cut from, nor 12 from the 000 behind it
ENDS = tuple(  # of sentences, of clauses, of words; what stands before them belongs to the part that ends there
    map(
        re.compile,
        (
            NO_TITLE + ABBREVIATED + r"[.!?…]+[\"'”’»)\]]*\s+|[。！？]+[」』]?\s*|\n+",
            r"[;,:…][\"'”’»)\]]*\s+|\s[-–—]+\s+|—+|\s(?=[(\[“«])|[、；，：]",
            rf"\s+(?!(?<=[0-9]\s)(?:0[0-9]{{2}}|(?:{SCALES}))\b)",
        ),
    )
)


def length(text: str) -> int:
    """Characters of about what is said: those of ``text``, and more for its digits."""
    return len(text) + PER_DIGIT * sum(map(str.isdigit, text))


def in_parts(text: str, most: int) -> list[str]:
    """``text`` in parts of at most the `length` ``most``, cut behind sentences; where those are longer, behind clauses,
    and at last between words. As few parts as that allows, and of about one length; a longer word stays whole.
    """
    units = _units(text, most, ENDS) or [text]
    fewest = _merged(units, most)
    longest = max(map(length, units))
    evener = (_merged(units, limit) for limit in range(max(longest, length(text) // len(fewest)), most))
    return next((parts for parts in evener if len(parts) == len(fewest)), fewest)


def _units(text: str, most: int, ends: tuple[re.Pattern[str], ...]) -> list[str]:
    """What no part is cut within, in order."""
    if length(text) <= most or not ends:
        return [text]
    places = [0, *(found.end() for found in ends[0].finditer(text)), len(text)]
    pieces = [text[start:end] for start, end in pairwise(places)]
    return [unit for piece in pieces if piece.strip() for unit in _units(piece, most, ends[1:])]


def _merged(units: list[str], most: int) -> list[str]:
    """Units that follow each other, together as long as they fit; one that says nothing belongs to its neighbour."""
    parts = [units[0]]
    for unit in units[1:]:
        silent = not any(map(str.isalnum, unit)) or not any(map(str.isalnum, parts[-1]))
        if silent or length((parts[-1] + unit).strip()) <= most:
            parts[-1] += unit
        else:
            parts.append(unit)
    return [part.strip() for part in parts]
