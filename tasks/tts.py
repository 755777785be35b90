"""Text to speech: speaker and transcript in, speech out."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from lm.documents import AudioSegment, Document, TextSegment
from tasks.base import Task


class TTS(Task):
    """``<|tts|> <text> speaker: text </text> <|speech|> <audio> codes </audio>``; the audio is learnt.

    Args:
        prompt: template of the text with ``{speaker}`` and ``{text}``.
        anonymous_prompt: template for rows without a speaker.
    """

    name = "tts"
    domains = ("speech",)

    def __init__(self, prompt: str = "{speaker}: {text}", anonymous_prompt: str = "{text}") -> None:
        self.prompt = prompt
        self.anonymous_prompt = anonymous_prompt

    def accepts(self, row: Any) -> bool:
        return bool(row.text)

    def prompt_text(self, row: Any) -> str:
        """The text the model reads. Templates are filled by replacement, so that braces in a text stay text."""
        template = self.prompt if row.speaker else self.anonymous_prompt
        before, _, after = template.partition("{text}")
        speaker = row.speaker or ""
        return before.replace("{speaker}", speaker) + row.text + after.replace("{speaker}", speaker)

    def document(self, row: Any, with_target: bool = True) -> Document:
        codes = row.codes if with_target else None
        segments = (TextSegment(self.prompt_text(row)), AudioSegment(codes, domain="speech", learn=True))
        return Document(self.name, segments, row.id)

    def with_condition_of(self, row: Any, other: Any) -> Any:
        """The same speech and speaker with another row's text."""
        return SimpleNamespace(id=row.id, text=other.text, speaker=row.speaker, codes=row.codes, domain=row.domain)
