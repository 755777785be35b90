"""Recognisers: the judges that turn speech into words.

    with load_recogniser("ctc-mini") as judge:
        judge.transcribe([wav], sample_rate=24_000)   # -> ["the quick brown fox"]
        judge.how()                                   # what a result must say about it

Two need weights from a folder or a hub: ``whisper`` and ``hubert-ctc`` (eval/recognisers/networks.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from eval.metrics import CannotScore

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


def load_recogniser(
    name: str,
    grammar: Path,
    ctc: Path,
    processes: int = 2,
    device: str = "cpu",
    weights: Mapping[str, str | None] | None = None,
    language: str | None = "en",
) -> Recogniser:
    """The recogniser called ``name``.

    Args:
        grammar: folder with the corpus' ``grammar.arpa`` and ``words.txt`` (pocketsphinx-grammar).
        ctc: folder of the CTC recogniser (ctc-mini).
        processes: worker processes of pocketsphinx.
        device: of the networks.
        weights: folders or hub ids of the recognisers ``whisper`` and ``hubert-ctc``.
        language: that is spoken, for recognisers that know several; None: they find out.

    Raises:
        RecogniserError: an unknown name, or a package or file that is missing.
    """
    if name == "pocketsphinx":
        from eval.recognisers.sphinx import Sphinx

        return Sphinx(None, processes)
    if name == "pocketsphinx-grammar":
        from eval.recognisers.sphinx import Sphinx

        return Sphinx(grammar, processes)
    if name == "ctc-mini":
        from eval.recognisers.ctc_greedy import GreedyCTC

        return GreedyCTC(ctc, device)
    if name in ("whisper", "hubert-ctc"):
        path = (weights or {}).get(name)
        if not path:
            raise RecogniserError(f"{name} needs its weights: give weights.{name}=FOLDER or a hub id.")
        from eval.recognisers.networks import HubertCTC, Whisper

        return Whisper(path, device, language) if name == "whisper" else HubertCTC(path, device)
    raise RecogniserError(f"there is no recogniser '{name}'; choose from {', '.join(NAMES)}.")
