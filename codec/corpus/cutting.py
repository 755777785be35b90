"""Cuts a recording of any length at its pauses into clips that a model can learn from.

    for piece in cut_at_pauses(Path("talk.mp3"), longest=12.0):
        piece.start, piece.wave, piece.whole     # seconds, float32 [samples] at the file's own rate

A piece ends where the recording is quietest between half of ``longest`` and all of it. Where that is no pause, the
piece and the next one are not ``whole``: they end and begin in the middle of a word.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from codec.audio.files import audio_info, read_pieces

MOMENT = 0.2  # s: what a pause lasts at least
PAUSE = 15.0  # dB below the level of the piece: our choice


@dataclass(frozen=True)
class Piece:
    """A part of a recording.

    Attributes:
        start: seconds from the beginning of the recording.
        wave: float32 ``[samples]``, mono, at the file's own rate.
        whole: whether it begins and ends at a pause, or where the recording does.
    """

    start: float
    wave: np.ndarray
    whole: bool


def level(wave: np.ndarray) -> float:
    """Mean level of ``wave [samples]`` in dB of full scale; −200 for digital silence."""
    return float(10 * np.log10(max(float(np.square(wave, dtype=np.float64).mean()), 1e-20)))


def quietest(wave: np.ndarray, rate: int) -> tuple[int, float]:
    """The middle, in samples, of the quietest `MOMENT` of ``wave [samples]``, and its level in dB."""
    width = round(MOMENT * rate)
    energy = np.cumsum(np.concatenate([[0.0], np.square(wave, dtype=np.float64)]))
    power = (energy[width:] - energy[:-width]) / width
    first = int(power.argmin())
    return first + width // 2, float(10 * np.log10(max(float(power[first]), 1e-20)))


def cut_at_pauses(path: Path, longest: float) -> Iterator[Piece]:
    """The pieces of a recording, none longer than ``longest`` seconds; a file of hours never stands in memory.

    Raises:
        AudioError: the file cannot be read.
    """
    rate = audio_info(path).sample_rate
    most, start, begins = round(longest * rate), 0, True
    rest = np.zeros(0, np.float32)
    for block in read_pieces(path, rate):
        rest = np.concatenate([rest, block])
        while len(rest) > most:
            place, quiet = quietest(rest[most // 2 : most], rate)
            wave, rest = np.split(rest, [most // 2 + place])
            ends = quiet <= level(wave) - PAUSE
            yield Piece(start / rate, wave, begins and ends)
            start, begins = start + len(wave), ends
    yield Piece(start / rate, rest, begins)
