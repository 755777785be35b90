"""Continuation: the beginning of a clip in, the rest of it out. No text is needed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tasks.base import Request, Task, TaskError, changed
from tasks.document import AudioSegment


class Continuation(Task):
    """``<|audio_only|> <|d|> <audio> beginning </audio> <|d|> <audio> rest </audio>``; the rest is learnt.

    Beginning and rest are segments of their own, so that a prompt ends in ``<audio>`` like every prompt for audio.

    Args:
        shares: how much of a clip is its beginning; each is a variant, the first one is that of validation.
        domains: of the clips.
        options: as of every task (`tasks.base.Task`).
    """

    name = "continuation"
    token = "audio_only"
    needs = takes = ("audio",)
    metrics = ("dnsmos", "fad", "speaker")
    evaluations = ("python eval/prompted.py task=continuation", "python eval/likelihood.py task=continuation")

    def __init__(
        self,
        shares: Sequence[float] = (0.5, 0.25, 0.75),
        domains: Sequence[str] = ("speech", "sound", "music"),
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.domains = tuple(domains)
        self.shares = tuple(shares)
        if not self.shares or not all(0 < share < 1 for share in self.shares):
            raise TaskError(f"task {self.name}: shares={list(shares)} must be numbers between 0 and 1, at least one.")

    def accepts(self, row: Any) -> bool:
        return len(row.codes) >= 2

    def choices(self, row: Any) -> int:
        return 1 if isinstance(row, Request) else len(self.shares)

    def segments(self, row: Any, with_target: bool, choice: int) -> tuple[Any, ...]:
        frames = len(row.codes)
        # All audio of a request is given; of a clip that is there, its own rest is the target.
        cut = frames if isinstance(row, Request) else min(max(1, round(self.shares[choice] * frames)), frames - 1)
        beginning = getattr(row, "reference", None)  # another clip's, in validation
        beginning = row.codes[:cut] if beginning is None else beginning
        rest = row.codes[cut:] if with_target else None
        return AudioSegment(beginning, row.domain), AudioSegment(rest, row.domain, learn=True)

    def with_condition_of(self, row: Any, other: Any) -> Any:
        """The same rest after another row's beginning, which is as long."""
        cut = min(max(1, round(self.shares[0] * len(row.codes))), len(row.codes) - 1)
        return changed(row, reference=other.codes[: min(cut, len(other.codes))])
