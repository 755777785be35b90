"""Media of the demo page: audio copies (FLAC) and spectrogram pictures, all on one scale.

One ``Scale`` is made for a whole page, so that a picture's width is always the same number of seconds, its
height the same frequencies (mel-spaced), and a colour the same level in dB below full scale. Nothing is
normalised per clip: a quiet clip looks quiet.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import soundfile
from PIL import Image

WIDTH = 640  # pixels, twice the usual size on screen
HEIGHT = 192
WINDOW_SECONDS = 0.032
DB_LOW, DB_HIGH = -100.0, -25.0  # dB; a full-scale sine is 0 dB
COLOURS = 255  # the 256th palette entry is transparent: time after the end of a clip


@dataclass(frozen=True)
class Scale:
    """What every spectrogram of a page shares: ``seconds`` wide, ``frequency`` Hz high."""

    seconds: float
    frequency: float

    def time_ticks(self) -> list[tuple[str, float]]:
        """Labels and positions in percent from the left."""
        step = next(s for s in (0.5, 1, 2, 5, 10, 20, 60, 120, 600, math.inf) if self.seconds / s <= 5)
        marks = [i * step for i in range(int(self.seconds / step + 1e-9) + 1)] if step < math.inf else [0.0]
        return [(f"{mark:g}", 100 * mark / self.seconds) for mark in marks]

    def frequency_ticks(self) -> list[tuple[str, float]]:
        """Labels in kHz and positions in percent from the bottom."""
        marks = [f for f in (1000, 2000, 4000, 8000, 16000) if f < 0.97 * self.frequency]
        return [(f"{f / 1000:g}", 100 * _mel(f) / _mel(self.frequency)) for f in marks]


def common_scale(durations: list[float], sample_rates: list[int]) -> Scale:
    """The scale for a page: up to the longest clip, but no further than three times the median clip (one that
    ran into the length limit must not shrink all others), and up to the highest Nyquist frequency."""
    if not durations:
        return Scale(seconds=1.0, frequency=8000.0)
    longest = min(max(durations), 3 * float(np.median(durations)))
    return Scale(seconds=max(0.5, math.ceil(2 * longest) / 2), frequency=max(sample_rates) / 2)


def read_mono(path: Path) -> tuple[np.ndarray, int]:
    """``[samples]`` float32 and the sample rate in Hz; several channels are averaged."""
    wav, rate = soundfile.read(path, dtype="float32", always_2d=True)
    return wav.mean(axis=1), int(rate)


def write_flac(path: Path, wav: np.ndarray, rate: int) -> None:
    """Write a lossless copy (16 bit) for the page."""
    soundfile.write(path, np.clip(wav, -1.0, 1.0), rate, format="FLAC", subtype="PCM_16")


def active_level(wav: np.ndarray, rate: int) -> float | None:
    """Level in dB of what sounds: RMS of the 50 ms blocks within 30 dB of the loudest; None for silence."""
    block = max(1, round(0.05 * rate))
    if len(wav) < block:
        return None
    power = np.square(wav[: len(wav) // block * block].astype(np.float64)).reshape(-1, block).mean(axis=1)
    if power.max() < 1e-9:
        return None
    return float(10 * np.log10(power[power > power.max() * 1e-3].mean()))


def spectrogram_picture(wav: np.ndarray, rate: int, scale: Scale) -> Image.Image:
    """Palette picture ``HEIGHT × WIDTH`` of ``wav [samples]``: mel-spaced rows, columns of equal duration."""
    level = _levels_db(wav, rate, scale)  # [HEIGHT, WIDTH]
    shade = np.clip((level - DB_LOW) / (DB_HIGH - DB_LOW), 0, 1) * (COLOURS - 1)
    shade = np.round(shade).astype(np.uint8)
    shown = min(WIDTH, math.ceil(len(wav) / rate / scale.seconds * WIDTH))
    shade[:, shown:] = COLOURS
    picture = Image.fromarray(shade[::-1].copy()).convert("P")
    picture.putpalette(_palette())
    return picture


def save_picture(picture: Image.Image, path: Path) -> None:
    """Save with the last palette entry transparent."""
    picture.save(path, format="PNG", transparency=COLOURS, optimize=True)


def _levels_db(wav: np.ndarray, rate: int, scale: Scale) -> np.ndarray:
    """Power in dB ``[HEIGHT, WIDTH]`` of the first ``scale.seconds``; row 0 is the lowest frequency."""
    window = np.hanning(round(WINDOW_SECONDS * rate))
    n_fft = 2 ** math.ceil(math.log2(4 * len(window)))  # padded, so that rows at low frequencies do not repeat a bin
    column = scale.seconds / WIDTH
    per_column = math.ceil(column / (WINDOW_SECONDS / 2))  # long pages average several frames into a column
    centres = (np.arange(WIDTH * per_column) + 0.5) * column / per_column * rate
    padded = np.concatenate([np.zeros(len(window)), np.nan_to_num(wav), np.zeros(len(window))])
    starts = np.minimum(centres.astype(int) + len(window) - len(window) // 2, len(padded) - len(window))
    power = np.empty((len(starts), n_fft // 2 + 1))
    for first in range(0, len(starts), 256):  # in pieces: an hour of audio needs no more memory than a sentence
        rows = starts[first : first + 256, None] + np.arange(len(window))
        power[first : first + 256] = np.abs(np.fft.rfft(padded[rows] * window, n_fft)) ** 2
    power /= (window.sum() / 2) ** 2
    power = power.reshape(WIDTH, per_column, -1).mean(axis=1)
    bins = _row_frequencies(scale.frequency) / rate * n_fft
    low = np.clip(bins.astype(int), 0, power.shape[1] - 2)
    part = np.clip(bins - low, 0, 1)
    rows = power[:, low] * (1 - part) + power[:, low + 1] * part
    rows[:, bins > power.shape[1] - 1] = 0  # above this clip's Nyquist frequency there is nothing
    return 10 * np.log10(rows.T + 1e-12)


def _row_frequencies(highest: float) -> np.ndarray:
    """The centre frequency (Hz) of each picture row, lowest first."""
    mels = (np.arange(HEIGHT) + 0.5) / HEIGHT * _mel(highest)
    return 700 * (np.power(10, mels / 2595) - 1)


def _mel(frequency: float) -> float:
    return 2595 * math.log10(1 + frequency / 700)


@lru_cache(maxsize=1)
def _palette() -> list[int]:
    """256 RGB triples: the perceptually even 'magma' map, then the transparent entry."""
    from matplotlib import colormaps  # imported late: `--help` need not wait for it

    colours = colormaps["magma"](np.linspace(0.02, 1, COLOURS))[:, :3]
    return [*np.round(255 * colours).astype(int).ravel().tolist(), 0, 0, 0]
