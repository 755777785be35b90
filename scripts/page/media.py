"""Media of the demo page: listening copies (FLAC or MP3) and spectrograms of one item on one scale.

A ``Scale`` is made for each item: its pictures show the same seconds, the same frequencies (mel-spaced) and the same
range of levels. They are of the loudness-matched copies, so that a difference in colour is none of volume.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr
from PIL import Image
from transformers.audio_utils import hertz_to_mel, mel_to_hertz

from codec.audio.files import write_audio

WIDTH = 480  # pixels, about twice the usual size on screen
HEIGHT = 144
WINDOW_SECONDS = 0.032
RANGE = 75.0  # dB from black to the brightest colour, which is the loudest point of the item
FORMATS: dict[str, dict[str, Any]] = {
    "flac": {"format": "FLAC", "subtype": "PCM_16"},
    "mp3": {"format": "MP3", "bitrate_mode": "VARIABLE", "compression_level": 0.2},
}
MP3_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)


@dataclass(frozen=True)
class Scale:
    """What the spectrograms of an item share: ``seconds`` wide, ``frequency`` Hz high."""

    seconds: float
    frequency: float

    def time_ticks(self) -> list[tuple[str, float]]:
        """Labels and positions in percent from the left."""
        step = next(s for s in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 60, 120, 600, math.inf) if self.seconds / s <= 5)
        marks = [i * step for i in range(int(self.seconds / step + 1e-9) + 1)] if step < math.inf else [0.0]
        return [(f"{mark:g}", 100 * mark / self.seconds) for mark in marks]

    def frequency_ticks(self) -> list[tuple[str, float]]:
        """Labels in kHz and positions in percent from the bottom."""
        marks = [f for f in (1000, 2000, 4000, 8000, 16000) if f < 0.97 * self.frequency]
        return [(f"{f / 1000:g}", 100 * hertz_to_mel(f) / hertz_to_mel(self.frequency)) for f in marks]


def common_scale(durations: list[float], sample_rates: list[int]) -> Scale:
    """The scale of an item: up to its longest clip, but no further than three times the median (one that ran into the
    length limit must not shrink all others), and up to the highest Nyquist frequency."""
    longest = min(max(durations), 3 * float(np.median(durations)))
    return Scale(seconds=max(0.1, math.ceil(20 * longest - 1e-6) / 20), frequency=max(sample_rates) / 2)


def read_mono(path: Path) -> tuple[np.ndarray, int]:
    """``[samples]`` float32 and the sample rate in Hz; several channels are averaged.

    Raises:
        ValueError: the file cannot be read or holds no sample, in words.
    """
    try:
        wav, rate = soundfile.read(path, dtype="float32", always_2d=True)
    except soundfile.LibsndfileError as error:
        raise ValueError(f"{path.name} cannot be read ({error})") from error
    if not len(wav):
        raise ValueError(f"{path.name} holds no sample")
    return wav.mean(axis=1), int(rate)


def write_copy(stem: Path, wav: np.ndarray, rate: int, form: str) -> Path:
    """Write a listening copy beside ``stem`` as ``flac`` (lossless, 16 bit) or ``mp3``, and return its path."""
    path = stem.with_name(f"{stem.name}.{form}")
    if form == "mp3" and rate not in MP3_RATES:
        wav, rate = soxr.resample(wav, rate, 48000, "HQ"), 48000
    write_audio(path, np.nan_to_num(wav), rate, **FORMATS[form])
    return path


def spectrogram(wav: np.ndarray, rate: int, scale: Scale) -> np.ndarray:
    """Levels ``[HEIGHT, WIDTH]`` in dB (a full-scale sine is 0) on ``scale``, the lowest frequency in row 0; NaN after
    the end of ``wav [samples]``. Rows are mel-spaced, columns of equal duration."""
    level = _levels_db(wav, rate, scale)
    level[:, min(WIDTH, math.ceil(len(wav) / rate / scale.seconds * WIDTH - 1e-6)) :] = np.nan
    return level


def picture(level: np.ndarray, highest: float) -> Image.Image:
    """``level`` in colours from ``highest - RANGE`` to ``highest`` dB, transparent where there is no sound."""
    over = np.isnan(level)
    shade = np.clip((np.nan_to_num(level) - highest) / RANGE + 1, 0, 1) * 255
    pixels = _palette()[np.round(shade).astype(np.uint8)]
    pixels[over] = 0  # transparent
    return Image.fromarray(np.ascontiguousarray(pixels[::-1]))


def save_picture(made: Image.Image, path: Path) -> None:
    """Save as WebP, which is a third of a PNG."""
    made.save(path, format="WEBP", quality=75, method=4)


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
    return np.asarray(mel_to_hertz((np.arange(HEIGHT) + 0.5) / HEIGHT * hertz_to_mel(highest)))


@lru_cache(maxsize=1)
def _palette() -> np.ndarray:
    """``[256, 4]`` bytes, red, green, blue and opacity: the perceptually even 'magma' map."""
    from matplotlib import colormaps  # imported late: `--help` need not wait for it

    return np.round(255 * colormaps["magma"](np.linspace(0.02, 1, 256))).astype(np.uint8)
