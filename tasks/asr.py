"""Speech recognition: speech in, transcript out."""

from __future__ import annotations

from typing import Any

from tasks.base import Task, changed
from tasks.document import AudioSegment, TextSegment


class ASR(Task):
    """``<|asr|> <|speech|> <audio> codes </audio> <text> text </text>``; the text is learnt."""

    name = "asr"
    domains = ("speech",)
    target = "text"
    needs = takes = ("audio",)
    metrics = ("wer", "cer")
    evaluations = ("python eval/asr.py",)

    def segments(self, row: Any, with_target: bool, choice: int) -> tuple[Any, ...]:
        text = self.normalise(row.text) if with_target else None
        return AudioSegment(row.codes, domain="speech"), TextSegment(text, learn=True)

    def with_condition_of(self, row: Any, other: Any) -> Any:
        """The same transcript with another row's speech."""
        return changed(row, codes=other.codes)
