"""Text to speech in the voice of a recording: reference text and audio, then new text, in; speech out."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from tasks.base import Request, Task, TaskError, changed
from tasks.document import AudioSegment, TextSegment


@dataclass(frozen=True)
class Prompted:
    """A clip and recordings of the same speaker, each of which can be its reference."""

    row: Any
    references: tuple[Any, ...]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.row, name)


class VoicePromptedTTS(Task):
    """``<|tts|> <text> r </text> <|speech|> <audio> R </audio> <text> text </text> <|speech|> <audio> codes </audio>``

    Learnt is the last audio only. The document is one of text to speech with an example before it, so it shares the
    token of `tasks.tts`; the voice comes from the audio R and no name of a speaker is given.

    Args:
        references: recordings per clip, drawn from its speaker's others by the clip's id; each is a variant.
        options: as of every task (`tasks.base.Task`).
    """

    name = "voice_prompted_tts"
    token = "tts"
    domains = ("speech",)
    needs = takes = ("text", "audio", "audio_text")
    metrics = ("wer", "dnsmos", "speaker")
    evaluations = (
        "python eval/prompted.py task=voice_prompted_tts",
        "python eval/likelihood.py task=voice_prompted_tts",
    )

    def __init__(self, references: int = 4, **options: Any) -> None:
        super().__init__(**options)
        if references < 1:
            raise TaskError(f"task {self.name}: references={references} must be at least 1.")
        self.references = references

    def accepts(self, row: Any) -> bool:
        return super().accepts(row) and bool(row.speaker)

    def select(self, rows: list[Any]) -> list[Prompted]:
        """Clips whose speaker has others, with references."""
        usable = super().select(rows)
        of_speaker: dict[str, list[Any]] = {}
        for row in usable:
            of_speaker.setdefault(row.speaker, []).append(row)
        found = []
        for row in usable:
            others = of_speaker[row.speaker]
            count = min(self.references, len(others) - 1)
            if count < 1:
                continue
            # Neighbours on the ring of the speaker's clips, from a place that depends on the id alone; never itself.
            start = int.from_bytes(hashlib.blake2b(row.id.encode(), digest_size=8).digest(), "big")
            ring = (others[(start + step) % len(others)] for step in range(len(others)))
            found.append(Prompted(row, tuple(islice((other for other in ring if other is not row), count))))
        return found

    def asked(self, id: str, text: str, heard: Sequence[Request], speaker: str = "", domain: str = "") -> Request:
        """In the voice of the last recording."""
        return Request(id, text, reference=heard[-1])

    def said(self, row: Any) -> str | None:
        return row.text

    def choices(self, row: Any) -> int:
        return len(row.references) if isinstance(row, Prompted) else 1

    def segments(self, row: Any, with_target: bool, choice: int) -> tuple[Any, ...]:
        reference = row.references[choice] if isinstance(row, Prompted) else row.reference
        return (
            TextSegment(self.words(reference.text)),
            AudioSegment(reference.codes, domain="speech"),
            TextSegment(self.words(row.text)),
            AudioSegment(row.codes if with_target else None, domain="speech", learn=True),
        )

    def with_condition_of(self, row: Any, other: Any) -> Any:
        """The same speech and reference with another row's text."""
        return changed(row, text=other.text, reference=row.references[0])
