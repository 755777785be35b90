"""Audio in, a description out: what audio captioning and music captioning share."""

from __future__ import annotations

from typing import Any

from tasks.base import Task, changed
from tasks.document import AudioSegment, TextSegment


class Captioning(Task):
    """``<|task|> <|domain|> <audio> codes </audio> <text> caption </text>``; the caption is learnt.

    Each caption of a clip is a variant; scores compare with all of them.
    """

    target = "text"
    needs = takes = ("audio",)
    metrics = ("cider", "bleu")

    def accepts(self, row: Any) -> bool:
        return bool(self.captions_of(row))

    def choices(self, row: Any) -> int:
        return max(1, len(self.captions_of(row)))  # a request has none

    def segments(self, row: Any, with_target: bool, choice: int) -> tuple[Any, ...]:
        caption = self.captions_of(row)[choice] if with_target else None
        return AudioSegment(row.codes, domain=self.domains[0]), TextSegment(caption, learn=True)

    def with_condition_of(self, row: Any, other: Any) -> Any:
        """The same captions with another row's audio."""
        return changed(row, codes=other.codes)
