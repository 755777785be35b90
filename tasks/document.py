"""A document: text and audio segments in any order; what every task makes of its rows and prompts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class TextSegment:
    """Text; ``text=None`` leaves the segment open, for the model to write."""

    text: str | None
    learn: bool = False


@dataclass(frozen=True)
class AudioSegment:
    """Audio as raw codes ``[frames, levels]``; ``codes=None`` leaves the segment open, for the model to
    generate.

    Attributes:
        domain: speech, sound or music.
    """

    codes: np.ndarray | None
    domain: str = "speech"
    learn: bool = False


@dataclass(frozen=True)
class Document:
    """One training example or prompt: a task and its segments. ``id`` names it in messages."""

    task: str
    segments: tuple[TextSegment | AudioSegment, ...]
    id: str = ""
