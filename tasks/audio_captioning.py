"""Audio captioning: a sound in, a caption out."""

from __future__ import annotations

from tasks.captioning import Captioning


class AudioCaptioning(Captioning):
    """`tasks.captioning.Captioning` of the domain sound."""

    name = "audio_captioning"
    domains = ("sound",)
    evaluations = ("python eval/captioning.py",)
