"""Tasks choose their clips and build documents without knowing ids."""

from __future__ import annotations

import numpy as np

from codec.shards import Row
from tasks.base import Request
from tasks.document import AudioSegment, TextSegment
from tasks.tts import TTS


def row(**changes):
    fields = {
        "id": "a",
        "codes": np.ones((4, 3), dtype=np.uint16),
        "duration": 0.3,
        "text": "hello",
        "domain": "speech",
    }
    return Row(**{**fields, **changes})


def test_only_speech_with_a_transcript_is_used():
    rows = [row(id="yes"), row(id="no text", text=None), row(id="sound", domain="sound"), row(id="empty", text="")]
    assert [r.id for r in TTS().select(rows)] == ["yes"]


def test_the_document_reads_the_text_and_learns_the_audio():
    document = TTS().document(row(speaker="slt"))
    text, audio = document.segments
    assert text == TextSegment("slt: hello", learn=False)
    assert isinstance(audio, AudioSegment) and audio.learn and audio.codes.shape == (4, 3)
    prompt = TTS().document(Request(id="a", text="hello", speaker="slt"), with_target=False)
    assert prompt.segments == (text, AudioSegment(None, "speech", learn=True))


def test_another_condition_keeps_the_target_and_the_speaker():
    mixed = TTS().with_condition_of(row(speaker="slt"), row(id="b", text="goodbye", speaker="rms"))
    text, audio = TTS().document(mixed).segments
    assert text.text == "slt: goodbye" and audio.codes.shape == (4, 3)


def test_the_template_is_a_choice():
    task = TTS(prompt="Say as {speaker}: {text}!")
    assert task.prompt_text(row(speaker="rms")) == "Say as rms: hello!"
