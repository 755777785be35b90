"""Normalisation of text, outside the model: ``text.normalise`` of a training, kept with its checkpoints.

``none`` leaves text as it is; ``basic`` is lower case without punctuation, for any language (letters keep their marks:
vowels of Hindi, accents); ``english`` also writes numbers, spellings and abbreviations one way and leaves out accents
(OpenAI's, in the package whisper-normalizer); ``phonemes`` spells English as it sounds (`tasks.phonemes`), for tasks
that read text and write none.
For other languages that is wrong: „Fünf Äpfel, hat's!" becomes "funf apfel hat is". `note_on_english` notices.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from typing import Any, Literal

from tasks.base import Task, TaskError
from tasks.phonemes import phonemes, pronunciations

NAMES = ("none", "basic", "english", "phonemes")
SCORING = ("plain", "whisper-english", "none")  # what an evaluation may do to texts before errors are counted
Setting = str | Mapping[str, str]  # one name for all tasks, or task → name; tasks that are not named get none


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


# Scripts that set no spaces between words (Unicode names begin so): the word is not a unit there, the character is.
UNSPACED = ("CJK", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR", "TIBETAN")


def headline(texts: Iterable[str]) -> Literal["wer", "cer"]:
    """The rate to look at first: ``cer`` where most letters are of scripts without spaces between words."""
    letters = [letter for text in texts for letter in text if letter.isalpha()]
    unspaced = sum(unicodedata.name(letter, "").startswith(UNSPACED) for letter in letters)
    return "cer" if 2 * unspaced > len(letters) else "wer"


def plain(text: str) -> str:
    """Lower case; everything but letters with their marks, digits and apostrophes inside words becomes a space."""
    text = words_alone(text.replace("’", "'"), keep="'")
    return " ".join(word for word in (part.strip("'") for part in text.split()) if word)


@cache
def _function(name: str) -> Callable[[str], str]:
    """The function of that name. Raises TaskError where the package that it needs is missing."""
    own: dict[str, Callable[[str], str]] = {"none": str, "basic": words_alone, "plain": plain}
    if name in own:
        return own[name]
    try:
        if name == "phonemes":
            pronunciations()
            return phonemes
        from whisper_normalizer.english import EnglishTextNormalizer
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0].replace("_", "-")
        raise TaskError(f"normalising texts as {name} needs `pip install {package}`.") from None
    function = EnglishTextNormalizer()
    return lambda text: function(text).strip()


def normaliser(name: str) -> Callable[[str], str]:
    """The function of that name.

    Raises:
        TaskError: another name, or whisper-normalizer or pocketsphinx is missing.
    """
    if name not in NAMES:
        raise TaskError(f"text.normalise={name} is unknown; choose one of {', '.join(NAMES)}, or task: name pairs.")
    return _function(name)


def scoring_normaliser(name: str) -> Callable[[str], str]:
    """What an evaluation does to texts before errors are counted: ``plain``, ``whisper-english`` or ``none``, all of
    them on composed letters.

    Raises:
        TaskError: another name, or whisper-normalizer is missing.
    """
    if name not in SCORING:
        raise TaskError(f"normaliser={name}: choose {', '.join(SCORING)}.")
    function = _function(name)
    return lambda text: function(unicodedata.normalize("NFC", text.strip()))


def normalisers(setting: Setting) -> Callable[[str], Callable[[str], str]]:
    """Task name → function, for `Task.use_normaliser`.

    Raises:
        TaskError: a name that does not exist.
    """
    if isinstance(setting, str):
        return lambda task: normaliser(setting)
    for name in setting.values():
        normaliser(name)
    return lambda task: normaliser(setting.get(task, "none"))


def note_on_english(setting: Setting, task: Task, rows: Sequence[Any], share: float = 0.05) -> str | None:
    """A sentence where ``english`` normalises texts of which more than ``share`` have letters that English lacks.

    Args:
        rows: as ``task.select`` gives them; counted are their texts and captions.
    """
    read = foreign = 0
    for example in rows:
        name = task.task_of(example).name
        if (setting if isinstance(setting, str) else setting.get(name, "none")) != "english":
            continue
        for row in getattr(example, "rows", [example]):  # a passage has several
            text = " ".join([getattr(row, "text", None) or "", *(getattr(row, "captions", None) or [])])
            read += 1
            foreign += any(letter.isalpha() and not letter.isascii() for letter in text)
    if foreign <= share * read:
        return None
    return (
        f"text.normalise=english: {foreign} of {read} texts have letters that English lacks, and it writes them "
        "without accents and with English words; text.normalise=basic is for other languages."
    )
