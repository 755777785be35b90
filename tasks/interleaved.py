"""Interleaved documents: sentence by sentence, the text and then the audio of a longer recording."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tasks.base import Request, Task, TaskError, changed
from tasks.document import AudioSegment, TextSegment


@dataclass(frozen=True)
class Passage:
    """Neighbouring sentences of one recording, in order; ``id`` is that of the first."""

    rows: tuple[Any, ...]

    @property
    def id(self) -> str:
        """Name of the document."""
        return self.rows[0].id

    @property
    def speaker(self) -> Any:
        """Of all sentences."""
        return self.rows[0].speaker

    @property
    def codes(self) -> Any:
        """Codes of the last sentence: what a prompt asks for."""
        return self.rows[-1].codes


class Interleaved(Task):
    """``<|interleaved|> <text> t1 </text> <|speech|> <audio> a1 </audio> <text> t2 </text> <|speech|> <audio> a2 …``

    The audio is learnt, and with ``learn_text`` the texts after the first as well.

    Args:
        recording: regular expression; its first group in a clip's id names the recording. The default leaves out
            the last number, as in LibriSpeech's ``speaker-chapter-utterance``. Speakers are never mixed.
        sentences: in a document; the last of a recording may have fewer, at least two.
        learn_text: whether the model shall write the texts as well.
        options: as of every task (`tasks.base.Task`).
    """

    name = "interleaved"
    domains = ("speech",)
    takes = ("text", "audio", "audio_text")
    metrics = ("wer", "dnsmos", "speaker")
    evaluations = ("python eval/prompted.py task=interleaved", "python eval/likelihood.py task=interleaved")

    def __init__(
        self, recording: str = r"^(.+)[-_]\d+$", sentences: int = 4, learn_text: bool = False, **options: Any
    ) -> None:
        super().__init__(**options)
        if sentences < 2:
            raise TaskError(f"task {self.name}: sentences={sentences} must be at least 2.")
        try:
            self.recording = re.compile(recording)
        except re.error as error:
            raise TaskError(f"task {self.name}: recording='{recording}' is no regular expression ({error}).") from None
        if self.recording.groups < 1:
            raise TaskError(f"task {self.name}: recording='{recording}' needs a group (…) that names the recording.")
        self.sentences = sentences
        self.learn_text = learn_text

    def accepts(self, row: Any) -> bool:
        return super().accepts(row) and self.recording.search(row.id) is not None

    def select(self, rows: list[Any]) -> list[Passage]:
        """Passages of at least two sentences, each clip in one of them at most."""
        recordings: dict[tuple[str, str], list[Any]] = {}
        for row in super().select(rows):
            match = self.recording.search(row.id)
            assert match is not None  # `accepts`
            recordings.setdefault((match.group(1), row.speaker or ""), []).append(row)
        passages = []
        for _, members in sorted(recordings.items()):
            members.sort(key=lambda row: _by_numbers(row.id))
            parts = [members[i : i + self.sentences] for i in range(0, len(members), self.sentences)]
            passages += [Passage(tuple(part)) for part in parts if len(part) > 1]
        return passages

    def asked(self, id: str, text: str, heard: Sequence[Request], speaker: str = "", domain: str = "") -> Passage:
        """The next sentence after those that have their audio: as many as a document can hold before it."""
        return Passage((*heard[1 - self.sentences :], Request(id, text)))

    def said(self, row: Any) -> str | None:
        return row.rows[-1].text

    def segments(self, row: Any, with_target: bool, choice: int) -> tuple[Any, ...]:
        segments: list[Any] = []
        for number, sentence in enumerate(row.rows):
            is_last = number == len(row.rows) - 1
            codes = sentence.codes if with_target or not is_last else None
            text = TextSegment(self.words(sentence.text), learn=self.learn_text and number > 0)
            segments += [text, AudioSegment(codes, domain="speech", learn=True)]
        return tuple(segments)

    def with_condition_of(self, row: Any, other: Any) -> Any:
        """The same audio with the texts of another passage."""
        texts = [sentence.text for sentence in other.rows]
        return Passage(tuple(changed(s, text=texts[i % len(texts)]) for i, s in enumerate(row.rows)))


def _by_numbers(name: str) -> list[tuple[int, int, str]]:
    """Sorts ``a-10`` after ``a-9``."""
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.split(r"(\d+)", name)]
