"""Text to music: a caption in, music out."""

from __future__ import annotations

from tasks.text_to_audio import TextToAudio


class TextToMusic(TextToAudio):
    """`tasks.text_to_audio.TextToAudio` of the domain music."""

    name = "text_to_music"
    domains = ("music",)
    evaluations = ("python eval/text_to_audio.py task=text_to_music",)
