"""One clip of one row of an evaluation: what is judged, as it is stored."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from codec.audio.files import write_audio
from eval.harness.audio import CannotScore, Wave, audio_hash, check_wave
from eval.harness.processes import is_main
from training.identity import path_inside


@dataclass
class ScoredClip:
    """One clip of one row: what is judged, and everything that became known about it.

    Attributes:
        wav: ``[samples]`` float32, as in the file; None where there is no audio.
        text: what the clip should say.
        item: the clip's line of ``items.jsonl``.
        source: whether there was anything to make it from. Without audio a clip of a system is a failure to deliver,
            unless there was no source: then nothing can be said of the system.
    """

    id: str
    row: str
    text: str
    wav: Wave | None
    rate: int
    item: dict[str, Any] = field(default_factory=dict)
    source: bool = True

    @cached_property
    def hash(self) -> str:
        assert self.wav is not None
        return audio_hash(self.wav, self.rate)

    @property
    def seconds(self) -> float:
        """How long it is; 0 where there is no audio."""
        return len(self.wav) / self.rate if self.wav is not None else 0.0

    def usable(self) -> Wave:
        """The samples.

        Raises:
            CannotScore: there is no audio, with the reason where one is known, or it holds NaN.
        """
        if self.wav is None:
            raise CannotScore(self.item.get("error", "no audio"))
        check_wave(self.wav, self.rate)
        return self.wav

    def undelivered(self) -> bool:
        """Whether its system had something to make it from, and made nothing that can be judged."""
        return self.row != "reference" and self.source and bool(split_usable([self])[1])


def as_stored(wav: Wave) -> Wave:
    """``wav`` clipped and rounded to 16 bit, so that what is scored is exactly what is in the file."""
    return (np.round(wav.clip(-1.0, 32767 / 32768) * 32768.0) / 32768.0).astype(np.float32)


def write_clip(folder: Path, name: str, wav: Wave, rate: int) -> str:
    """Write ``folder/name`` as 16-bit PCM (the first process does) and return ``name`` (of `file_names`, for ids)."""
    path = path_inside(folder, name)
    if is_main():
        write_audio(path, np.round(wav * 32768.0).clip(-32768, 32767).astype(np.int16), rate)
    return name


def split_usable(clips: Iterable[ScoredClip]) -> tuple[list[ScoredClip], dict[str, str]]:
    """The clips that can be judged, and ``{id: reason}`` of the others."""
    usable, failures = [], {}
    for clip in clips:
        try:
            clip.usable()
            usable.append(clip)
        except CannotScore as error:
            failures[clip.id] = error.reason
    return usable, failures
