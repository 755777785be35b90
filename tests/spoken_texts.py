"""Texts of which a corpus of speech is made."""

from __future__ import annotations

from mini_corpus import speech


def sentence_of(split: str, start: str) -> str:
    """A sentence that begins with ``start`` and lies in ``split``."""
    return next(text for n in range(1000) if speech.split_of(text := f"{start} of number {n}.") == split)
