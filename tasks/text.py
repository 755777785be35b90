"""Normalisation of text, outside the model: ``text.normalise`` of a training, kept with its checkpoints.

``none`` leaves text as it is; ``basic`` is lower case without punctuation, for any language (letters keep their marks:
vowels of Hindi, accents); ``english`` also writes numbers, spellings and abbreviations one way and leaves out accents
(OpenAI's, in the package whisper-normalizer); ``phonemes`` spells English as it sounds (`tasks.phonemes`), for tasks
that read text and write none.
For other languages english is wrong: „Fünf Äpfel, hat's!" becomes "funf apfel hat is". `note_on_texts` notices, and
what phonemes cannot say.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from typing import Any, Literal

from tasks.base import Task, TaskError
from tasks.letters import words_alone
from tasks.pauses import in_parts, length
from tasks.phonemes import MARKS, parts_of, phonemes, pronunciations, unknown
from tasks.spoken_numbers import in_words

NAMES = ("none", "basic", "english", "phonemes")
LONGER = 1.5  # times as long as the longest text that a model has learnt: from there it is said in parts
SCORING = ("plain", "whisper-english", "none")  # what an evaluation may do to texts before errors are counted
Setting = str | Mapping[str, str]  # one name for all tasks, or task → name; tasks that are not named get none


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
            in_words("1")
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
        TaskError: another name, or whisper-normalizer, pocketsphinx or inflect is missing.
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
        TaskError: a name that does not exist, or one whose package is missing.
    """
    for name in [setting] if isinstance(setting, str) else setting.values():
        normaliser(name)
    return lambda task: normaliser(name_for(setting, task))


def name_for(setting: Setting, task: str) -> str:
    """The name of the normaliser that ``setting`` has for a task."""
    return setting if isinstance(setting, str) else setting.get(task, "none")


def check_names(setting: Setting, task: Task) -> None:
    """Refuse a setting for tasks that are not trained: a name that is mistyped would leave its texts as they are.

    Raises:
        TaskError: naming it.
    """
    known = [part.name for part in task.parts]
    if not isinstance(setting, str | Mapping):
        raise TaskError(f"text.normalise={setting} is neither one of {', '.join(NAMES)} nor {{task: one of them}}.")
    if not isinstance(setting, str) and (others := set(map(str, setting)) - set(known)):
        raise TaskError(f"text.normalise names {min(others)}, and this training has the tasks {', '.join(known)}.")


def note_on_texts(setting: Setting, task: Task, rows: Sequence[Any], share: float = 0.05) -> str | None:
    """A sentence where more than ``share`` of the texts that ``english`` normalises have letters that English lacks, or
    of the words that ``phonemes`` spells as they sound are none that its dictionary has.

    Args:
        rows: as ``task.select`` gives them; counted are their texts and captions.
    """
    texts: dict[str, list[str]] = {name: [] for name in NAMES}
    for example in rows:
        for row in getattr(example, "rows", [example]):  # a passage has several
            said = dict.fromkeys([getattr(row, "text", None) or "", *(getattr(row, "captions", None) or [])])
            texts[name_for(setting, task.task_of(example).name)].append(" ".join(said))
    foreign = sum(any(letter.isalpha() and not letter.isascii() for letter in text) for text in texts["english"])
    if foreign > share * len(texts["english"]):
        return (
            f"text.normalise=english: {foreign} of {len(texts['english'])} texts have letters that English lacks, and "
            "it writes them without accents and with English words; text.normalise=basic is for other languages."
        )
    spelled = Counter(word for text in texts["phonemes"] for word in unknown(text))
    words = sum(part not in MARKS for text in texts["phonemes"] for part in parts_of(text))
    if spelled.total() <= share * words:
        return None
    first = ", ".join(word if len(word) <= 24 else f"{word[:24]}…" for word, _ in spelled.most_common(5))
    return (
        f"text.normalise=phonemes: {spelled.total()} of {words} words are not in its dictionary, as {first}: they are "
        "read by their letters. It is for English."
    )


def parts_to_say(longest: Mapping[str, int], task: Task, row: Any) -> list[str]:
    """The text that ``row`` asks for, in parts no longer than any that a model has learnt to say, where it is more
    than `LONGER` times as long as those; else, and of tasks whose text is not the row's own, as it is.

    Args:
        longest: task → characters, of the model's training.
    """
    text, most = task.said(row), longest.get(task.name)
    if not text or most is None or text != getattr(row, "text", None) or length(text) <= LONGER * most:
        return [text or ""]
    return in_parts(text, most)


def note_on_lengths(longest: Mapping[str, int], task: Task, rows: Sequence[Any]) -> str | None:
    """A sentence where texts are longer than what a model has learnt to say, and so said in parts (`parts_to_say`), if
    their task can that.
    """
    most = longest.get(task.name)
    over = [row for row in rows if most is not None and length(task.said(row) or "") > LONGER * most]
    if not over:
        return None
    texts = f"{len(over)} of {len(rows)} texts are" if len(rows) > 1 else "the text is"
    learnt = f"{texts} longer than what the model has learnt to say (at most {most} characters)"
    parts = [len(parts_to_say(longest, task, row)) for row in over]
    if max(parts) == 1:
        return f"{learnt}: say them in parts, cut where a reader pauses."
    return f"{learnt}, and said in {sum(parts)} parts, cut where a reader pauses."
