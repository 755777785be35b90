"""The letters of a text, in whatever form they come: what normalisation (text.py, phonemes.py) begins with."""

from __future__ import annotations

import unicodedata


def words_alone(text: str, keep: str = "") -> str:
    """Composed, full-width letters, ligatures and other forms as the letters they stand for (NFKC), lower case;
    everything but letters, their marks, numbers and ``keep`` becomes a space, the apostrophe too: what Whisper's
    BasicTextNormalizer does with ``preserve_marks``, except that brackets keep their words.

    Characters that only format (soft hyphens, joiners inside words of Hindi and Persian) are left out.
    """
    found = [" "]
    for c in unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).lower()):
        kind = unicodedata.category(c)
        if kind != "Cf":  # the form of an accent that stands alone is a space and a mark, which is of no letter
            found.append(c if kind[0] in "LN" or c in keep or (kind[0] == "M" and found[-1] != " ") else " ")
    return " ".join("".join(found).split())
