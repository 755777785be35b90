"""What a recogniser is: a judge that turns speech into words."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from eval.harness.failures import CannotScore

NAMES = ("pocketsphinx", "pocketsphinx-grammar", "ctc-mini", "whisper", "hubert-ctc")


class RecogniserError(RuntimeError):
    """A recogniser that cannot be loaded or run, with the cure."""


class Recogniser(Protocol):
    """What every recogniser offers."""

    name: str

    def transcribe(self, waves: list[NDArray[np.float32]], sample_rate: int) -> Sequence[str | CannotScore]:
        """The words of each clip ``[samples]``, in the recogniser's own spelling, or why it failed on that clip."""
        ...

    def how(self) -> dict[str, object]:
        """Model, file hashes, versions and settings; equal records mean equal transcripts."""
        ...

    def close(self) -> None:
        """Free processes and memory."""
        ...

    def __enter__(self) -> Recogniser: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
