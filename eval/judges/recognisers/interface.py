"""What a recogniser is: a judge that turns speech into words."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import ExitStack

import numpy as np
from numpy.typing import NDArray

from eval.harness.audio import CannotScore

RATE = 16_000  # Hz: what networks that know words listen to
NAMES = ("pocketsphinx", "pocketsphinx-grammar", "ctc-mini", "whisper", "hubert-ctc")
OPEN = ("pocketsphinx", "whisper", "hubert-ctc")  # who know the words that people use, not only the embedded corpus'


class RecogniserError(RuntimeError):
    """A recogniser that cannot be loaded or run, with the cure."""


class Recogniser(ExitStack, ABC):
    """What every recogniser offers; a ``with`` block ends its processes."""

    name: str

    @abstractmethod
    def transcribe(self, waves: list[NDArray[np.float32]], sample_rate: int) -> Sequence[str | CannotScore]:
        """The words of each clip ``[samples]``, in the recogniser's own spelling, or why it failed on that clip."""

    @abstractmethod
    def how(self) -> dict[str, object]:
        """Model, file hashes, versions and settings; equal records mean equal transcripts."""
