"""What a person gives to the generation command: texts, recordings, what is said in them, and how tokens are drawn."""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig

from lm.generation.sampling import Sampling
from tasks.base import INPUTS, Task, TaskError, make_task
from tasks.interleaved import Interleaved
from training.config import ConfigError, compose, group_options, refusing

INVISIBLE = ("Cc", "Cf", "Zs", "Zl", "Zp")  # categories of Unicode: controls, formats, spaces


@dataclass(frozen=True)
class Prompt:
    """What is asked of a model.

    Attributes:
        ids: that end in ``<audio>`` or ``<text>``.
        least: frames before which the audio cannot end.
        most: frames of audio, or tokens of text, at which the answer is cut off.
        whole: frames at which the audio of all parts is cut off; None: nowhere.
        then: what is asked next, whose audio follows; None: nothing. A long text is said in parts.
    """

    ids: np.ndarray
    least: int
    most: int
    whole: int | None = None
    then: Prompt | None = None

    @property
    def parts(self) -> list[Prompt]:
        """This one and those that follow it."""
        found = [self]
        while found[-1].then:
            found.append(found[-1].then)
        return found

    @property
    def read(self) -> int:
        """Ids of all parts."""
        return sum(len(part.ids) for part in self.parts)


def texts_of(cfg: DictConfig) -> list[str]:
    """The texts of ``text`` or ``file``; none where neither is given.

    Raises:
        ConfigError: both, nothing in them, or what is no Unicode text.
    """
    if cfg.text is not None and cfg.file is not None:
        raise ConfigError("give text=... or file=FILE, not both.")
    if cfg.file is not None:
        texts = told("file", lines_of(Path(cfg.file)))
    else:
        texts = told("text", cfg.text)
    if not texts and (cfg.text is not None or cfg.file is not None):
        raise ConfigError("there is no text to generate from.")
    return texts


def listed(value: Any) -> list[str]:
    """The strings of a key that holds one, several or null."""
    return [] if value is None else [value] if isinstance(value, str) else [item for item in value if item]


def told(key: str, value: Any) -> list[str]:
    """The texts of a key, without those of which nothing is seen; byte-order marks, which files that were joined have
    within, are no part of a text.

    Raises:
        ConfigError: what is no Unicode text.
    """
    lines = (line.replace("\ufeff", "").strip() for line in listed(value))
    texts = [line for line in lines if any(unicodedata.category(c) not in INVISIBLE for c in line)]
    for text in texts:
        if any(0xD800 <= ord(letter) <= 0xDFFF for letter in text):  # bytes of a command line that are not UTF-8
            raise ConfigError(f"{key}={ascii(text)} is not UTF-8: write it in UTF-8, or give file=FILE that is.")
    return texts


def lines_of(path: Path) -> list[str]:
    """The lines of a text file (``-``: of standard input) in UTF-8; a byte-order mark is no part of the first.

    Raises:
        ConfigError: there is no such file, or it is in another encoding.
    """
    if path != Path("-") and not path.is_file():
        raise ConfigError(f"file={path} does not exist.")
    data = sys.stdin.buffer.read() if path == Path("-") else path.read_bytes()
    try:
        return data.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n").split("\n")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise ConfigError(f"file={path}: line {line} is not UTF-8: save the file as UTF-8.") from None


def check_inputs(task: Task, given: Mapping[str, Sequence[str]]) -> None:
    """Refuse inputs (of `tasks.base.INPUTS`) that the task does not read, name those that are missing, compare numbers.

    Raises:
        ConfigError: saying which.
    """
    for key in INPUTS:
        if given[key] and key not in task.takes:
            raise ConfigError(f"task={task.name} reads no {key}: leave it out; it takes {' and '.join(task.takes)}.")
        if key in task.needs and not given[key]:
            what = {"text": 'text="..." or file=FILE', "audio": "audio=FILE", "audio_text": 'audio_text="..."'}[key]
            raise ConfigError(f"task={task.name} needs {what}: it takes {' and '.join(task.takes)}.")
    texts, files, words = (given[key] for key in INPUTS)
    if files and "audio_text" in task.takes and not words:
        raise ConfigError(f'task={task.name} needs audio_text="...", what is said in the audio.')
    if words and not files:
        raise ConfigError("audio_text=... is what is said in audio=FILE, which is missing.")
    if words and len(words) != len(files):
        raise ConfigError(f"audio_text has {len(words)} texts for {len(files)} recordings: give one each.")
    if texts and not isinstance(task, Interleaved) and len(files) not in (0, 1, len(texts)):
        raise ConfigError(f"audio has {len(files)} recordings for {len(texts)} texts: give one, or one each.")
    for file in files:
        if not Path(file).is_file():
            raise ConfigError(f"audio={file} does not exist.")


def new_task(name: str) -> Task:
    """The task ``name`` of configs/task/, of which nothing was set."""
    return make_task(compose("lm_generate", [f"task={name}"]).task)


as_it_comes = cache(new_task)  # to compare with


def manner(task: Task, before: Mapping[str, Any]) -> dict[str, Any]:
    """How a training asks, for its model's folder: by task its wording, and what was set of sampling; of what was not,
    what the model that it goes on from is asked with.

    Args:
        before: the manner of that model.
    """
    found = {}
    for part in task.parts:
        if part.name not in group_options("task"):
            continue
        plain = as_it_comes(part.name).decoding
        drawn = {f.name: part.decoding[f.name] for f in fields(Sampling) if f.name in part.decoding}
        chosen = {key: value for key, value in drawn.items() if value != plain.get(key)}
        known = before.get(part.name, {}).get("sampling", {})
        found[part.name] = {"wording": part.wording(), "sampling": {**known, **chosen}}
    return found


def other_words(task: Task, before: Mapping[str, Any]) -> list[str]:
    """A sentence per wording of ``task`` that differs from what the manner ``before`` says a model has learnt."""
    return [
        f"task {part.name}: {key} is {own!r}, and the model has learnt {learnt[key]!r}"
        for part in task.parts
        if (learnt := before.get(part.name, {}).get("wording"))
        for key, own in part.wording().items()
        if learnt.get(key, own) != own
    ]


def use_manner(task: Task, learnt: Mapping[str, Any]) -> None:
    """Have ``task`` ask as `manner` says that the model was asked. Sampling that was set otherwise stays.

    Raises:
        TaskError: other words were set than those that the model has learnt.
        TypeError, AttributeError, KeyError: ``learnt`` is not of this form.
    """
    for part in task.parts:
        if part.name not in learnt:
            continue
        told, own, plain = learnt[part.name], part.wording(), as_it_comes(part.name)
        wording = told.get("wording", {})
        for key, value in wording.items():
            if type(value) is not type(own[key]) or not all(isinstance(word, str) for word in value):
                raise TypeError(f"{key} is {value!r}")
            if own[key] not in (value, plain.wording()[key]):
                raise TaskError(
                    f"task {part.name}: {key} is set to {own[key]!r}, and the model has learnt {value!r}: leave it out."
                )
        part.use_wording(wording)
        for key, value in told.get("sampling", {}).items():
            if part.decoding.get(key) == plain.decoding.get(key):
                part.decoding[key] = value


def sampling_of(cfg: DictConfig, task: Task) -> Sampling:
    """``sampling``, with the task's own values where it says null."""
    chosen = {str(key): value for key, value in cfg.sampling.items() if value is not None}
    with refusing(ValueError):
        return Sampling.of({**task.decoding, **chosen})


def use_lengths(length: DictConfig, task: Task) -> None:
    """Put ``length`` over the task's own limits; null leaves them.

    Raises:
        ConfigError: a limit that does not apply to the task, or a least above the most.
    """
    for key, value in ((str(key), value) for key, value in length.items()):
        if value is None:
            continue
        if key not in task.decoding:
            raise ConfigError(f"length.{key}: the length of task={task.name} does not follow from that; leave it out.")
        task.decoding[key] = value
    least, most = (task.decoding.get(f"{end}_per_character") for end in ("least", "most"))
    if least is not None and most is not None and least > most:
        raise ConfigError(f"length.least_per_character={least} is above most_per_character={most}: lower it.")
