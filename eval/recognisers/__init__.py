"""Recognisers: the judges that turn speech into words.

    with load_recogniser("ctc-mini") as judge:
        judge.transcribe([wav], sample_rate=24_000)   # -> ["the quick brown fox"]
        judge.how()                                   # what a result must say about it

Whisper and HuBERT-CTC from a local path come with the full evaluation; they only have to meet ``Recogniser``.
"""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

NAMES = ("pocketsphinx", "pocketsphinx-grammar", "ctc-mini")


class RecogniserError(RuntimeError):
    """A recogniser that cannot be loaded or run, with the cure."""


class Recogniser(Protocol):
    """What every recogniser offers."""

    name: str

    def transcribe(self, waves: list[NDArray[np.float32]], sample_rate: int) -> list[str]:
        """The words of each clip ``[samples]``, in the recogniser's own spelling; deterministic."""
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


def load_recogniser(name: str, grammar: Path, ctc: Path, processes: int = 2, device: str = "cpu") -> Recogniser:
    """The recogniser called ``name``.

    Args:
        grammar: folder with the corpus' ``grammar.arpa`` and ``words.txt`` (pocketsphinx-grammar).
        ctc: folder of the CTC recogniser (ctc-mini).
        processes: worker processes of pocketsphinx.
        device: of the CTC recogniser.

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
    raise RecogniserError(f"there is no recogniser '{name}'; choose from {', '.join(NAMES)}.")
