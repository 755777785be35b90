"""Waveforms as the judges get them: one resampler, and a door where unusable clips are turned away."""

from __future__ import annotations

import hashlib
import math

import numpy as np
import soxr
from numpy.typing import NDArray

RESAMPLER = f"soxr {soxr.__version__} HQ"
Wave = NDArray[np.float32]


class CannotScore(Exception):
    """One clip has no score, which is counted as a failure and never a default score.

    ``args[0]`` is the reason in a few words, so that equal reasons can be counted.
    """

    @property
    def reason(self) -> str:
        return str(self.args[0])


def resample(wav: Wave, rate: int, wanted: int) -> Wave:
    """``wav [samples]`` at ``wanted`` Hz; the length is ``round(samples * wanted / rate)``."""
    if rate == wanted:
        return np.asarray(wav, dtype=np.float32)
    return soxr.resample(np.asarray(wav, dtype=np.float32), rate, wanted, quality="HQ").astype(np.float32)


def check_wave(wav: Wave, rate: int, shortest: float = 0.0) -> None:
    """Refuse what no metric can score.

    Raises:
        CannotScore: "no audio", "NaN or infinite samples" or "shorter than ... s".
    """
    if wav.ndim != 1 or wav.size == 0:
        raise CannotScore("no audio")
    if not np.isfinite(wav).all():
        raise CannotScore("NaN or infinite samples")
    if wav.size < shortest * rate:
        raise CannotScore(f"shorter than {shortest:g} s")


def pieces(wav: Wave, rate: int, longest: float) -> list[Wave]:
    """``wav`` in equal pieces of at most ``longest`` seconds: attention over minutes costs memory without end."""
    return np.array_split(wav, max(1, math.ceil(len(wav) / (longest * rate))))


def audio_hash(wav: Wave, rate: int) -> str:
    """SHA-256 (hex) of samples and rate: equal audio has equal scores, whatever its file is called."""
    digest = hashlib.sha256(f"{rate} {wav.size}\n".encode())
    digest.update(np.ascontiguousarray(wav, dtype="<f4").tobytes())
    return digest.hexdigest()
