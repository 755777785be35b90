"""Text to sound: a caption in, a sound out."""

from __future__ import annotations

from tasks.text_to_audio import TextToAudio


class TextToSound(TextToAudio):
    """`tasks.text_to_audio.TextToAudio` of the domain sound."""

    name = "text_to_sound"
    domains = ("sound",)
    evaluations = ("python eval/text_to_audio.py",)
