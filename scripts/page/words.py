"""What was heard, word by word, beside what a text says."""

from __future__ import annotations

from difflib import SequenceMatcher

from tasks.letters import words_alone
from tasks.text import headline

COMPARED = 400  # words that are compared one by one


def word_changes(text: str, heard: str) -> list[tuple[str, str]]:
    """What was heard, beside what the text says: (kind, words) with kind same, extra (heard, not in the
    text) or missing (in the text, not heard). Case and punctuation do not count; of scripts without spaces
    characters are compared. Texts of more than 400 words are not: the time for it grows with the product of
    their lengths."""
    space = "" if headline([text]) == "cer" else " "
    want, got = (
        [word for part in side.split() if (word := part.strip("'"))] if space else list(side.replace(" ", ""))
        for side in (words_alone(side.replace("’", "'"), "'") for side in (text, heard))
    )
    if max(len(want), len(got)) > COMPARED:
        return [("same", heard)]
    changes: list[tuple[str, str]] = []
    for kind, i, j, k, m in SequenceMatcher(a=want, b=got, autojunk=False).get_opcodes():
        if kind == "equal":
            changes.append(("same", space.join(got[k:m])))
            continue
        if j > i:
            changes.append(("missing", space.join(want[i:j])))
        if m > k:
            changes.append(("extra", space.join(got[k:m])))
    return changes
