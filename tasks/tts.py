"""Text to speech: speaker and transcript in, speech out."""

from __future__ import annotations

from typing import Any

from tasks.base import Task, changed
from tasks.document import AudioSegment, TextSegment


class TTS(Task):
    """``<|tts|> <text> speaker: text </text> <|speech|> <audio> codes </audio>``; the audio is learnt.

    Args:
        prompt: template of the text with ``{speaker}`` and ``{text}``.
        anonymous_prompt: template for rows without a speaker.
        options: as of every task (`tasks.base.Task`).
    """

    name = "tts"
    domains = ("speech",)
    metrics = ("wer", "dnsmos")
    evaluations = ("python eval/tts.py",)

    def __init__(self, prompt: str = "{speaker}: {text}", anonymous_prompt: str = "{text}", **options: Any) -> None:
        super().__init__(**options)
        self.prompt = prompt
        self.anonymous_prompt = anonymous_prompt

    def wording(self) -> dict[str, Any]:
        return {**super().wording(), "prompt": self.prompt, "anonymous_prompt": self.anonymous_prompt}

    def prompt_text(self, row: Any) -> str:
        """The text the model reads. Templates are filled by replacement, so that braces in a text stay text."""
        template = self.prompt if row.speaker else self.anonymous_prompt
        before, _, after = template.partition("{text}")
        speaker = row.speaker or ""
        return before.replace("{speaker}", speaker) + self.words(row.text) + after.replace("{speaker}", speaker)

    def said(self, row: Any) -> str | None:
        return row.text

    def segments(self, row: Any, with_target: bool, choice: int) -> tuple[Any, ...]:
        codes = row.codes if with_target else None
        return TextSegment(self.prompt_text(row)), AudioSegment(codes, domain="speech", learn=True)

    def with_condition_of(self, row: Any, other: Any) -> Any:
        """The same speech and speaker with another row's text."""
        return changed(row, text=other.text)
