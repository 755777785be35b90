"""Normalisation of text, outside the model: ``text.normalise`` of a training, kept with its checkpoints.

``none`` leaves text as it is; ``basic`` is lower case without punctuation, for any language; ``english`` also writes
numbers, spellings and abbreviations one way (both: OpenAI's, in the package whisper-normalizer).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache

from tasks.base import TaskError

NAMES = ("none", "basic", "english")
Setting = str | Mapping[str, str]  # one name for all tasks, or task → name; tasks that are not named get none


@cache
def normaliser(name: str) -> Callable[[str], str]:
    """The function of that name.

    Raises:
        TaskError: another name, or whisper-normalizer is missing.
    """
    if name == "none":
        return str
    if name not in NAMES:
        raise TaskError(f"text.normalise={name} is unknown; choose one of {', '.join(NAMES)}, or task: name pairs.")
    try:
        from whisper_normalizer.basic import BasicTextNormalizer
        from whisper_normalizer.english import EnglishTextNormalizer
    except ModuleNotFoundError:
        raise TaskError(f"text.normalise={name} needs `pip install whisper-normalizer`.") from None
    function = EnglishTextNormalizer() if name == "english" else BasicTextNormalizer()
    return lambda text: function(text).strip()


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
