"""Does a caption name what is to be heard? The classes of a clip are looked for among the caption's words.

    names_class("A dog barks while waves break on a beach", "dog")       # True
    named("Somebody types on a keyboard", ["dog", "typing"])             # {"typing"}

A class is named when its words stand in the caption one after another, each up to its inflection ("waves" and "wave",
"typing" and "types"), or when one of its synonyms does. It needs no network, and says nothing about the rest of the
caption: read it beside CIDEr-D.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from eval.metrics.caption_words import words

Synonyms = Mapping[str, Sequence[str]]


def stem(word: str) -> str:
    """The word without -s, -es, -ing, -ed and a silent e; enough to make inflections of one word equal."""
    for ending in ("ings", "ing", "ied", "ies", "ed", "es", "s"):
        if word.endswith(ending) and len(word) - len(ending) >= 3 and not (ending == "s" and word.endswith("ss")):
            word = word[: -len(ending)] + ("y" if ending in ("ied", "ies") else "")
            break
    if len(word) > 3 and word[-1] == word[-2] and word[-1] not in "aeiouls":  # dripped, drips
        word = word[:-1]
    return word[:-1] if len(word) > 3 and word.endswith("e") else word


def names_class(caption: str, name: str, synonyms: Synonyms | None = None) -> bool:
    """Whether the caption names the class, by its own words or by a synonym.

    Args:
        synonyms: ``{class: other names}``.
    """
    said = [stem(word) for word in words(caption)]
    for phrase in (name, *(synonyms or {}).get(name, ())):
        wanted = [stem(word) for word in words(phrase.replace("_", " "))]
        size = len(wanted)
        if size and any(said[start : start + size] == wanted for start in range(len(said) - size + 1)):
            return True
    return False


def named(caption: str, classes: Iterable[str], synonyms: Synonyms | None = None) -> set[str]:
    """Those of ``classes`` that the caption names."""
    return {name for name in classes if names_class(caption, name, synonyms)}
