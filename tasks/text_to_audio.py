"""A description in, audio out: what text to sound and text to music share."""

from __future__ import annotations

from typing import Any

from tasks.base import Task, changed
from tasks.document import AudioSegment, TextSegment


class TextToAudio(Task):
    """``<|task|> <text> caption </text> <|domain|> <audio> codes </audio>``; the audio is learnt.

    Each caption of a clip is a variant. ``trainer.drop_condition`` hides captions, for guidance in generation.
    """

    metrics = ("classifier", "fad", "clap")

    def accepts(self, row: Any) -> bool:
        return bool(self.captions_of(row))

    def choices(self, row: Any) -> int:
        return len(self.captions_of(row))

    def segments(self, row: Any, with_target: bool, choice: int) -> tuple[Any, ...]:
        codes = row.codes if with_target else None
        return TextSegment(self.captions_of(row)[choice]), AudioSegment(codes, domain=self.domains[0], learn=True)

    def with_condition_of(self, row: Any, other: Any) -> Any:
        """The same audio with another row's captions."""
        return changed(row, captions=other.captions)
