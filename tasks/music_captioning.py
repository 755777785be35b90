"""Music captioning: music in, a caption out."""

from __future__ import annotations

from tasks.captioning import Captioning


class MusicCaptioning(Captioning):
    """`tasks.captioning.Captioning` of the domain music."""

    name = "music_captioning"
    domains = ("music",)
    evaluations = ("python eval/captioning.py task=music_captioning",)
