"""Loudness of the demo page's listening copies: every clip of an item is brought to one loudness.

Loudness is ITU-R BS.1770-4 (K-weighted, gated), measured by pyloudnorm. Clips shorter than its 0.4 s block are one
block as long as the clip, K-weighted and ungated; a clip without any block above -70 LUFS is silent and stays as it is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from training.config import ConfigError

BLOCK = 0.4  # s, the standard's
SHORTEST = 0.01  # s: below this a loudness means nothing
GATE = -70.0  # LUFS
PEAK = -1.0  # dB below full scale that a copy may reach
ROOM = 12.0  # dB that an item may be quieter than the target so that no clip of it is clipped
MOST = 40.0  # dB that a clip is raised at most: beyond that it is noise


@dataclass(frozen=True)
class Level:
    """Loudness in LUFS (None: silent) and sample peak in dB of full scale."""

    loudness: float | None
    peak: float


@dataclass(frozen=True)
class Copy:
    """``wav [samples]`` at ``rate`` Hz, after a ``gain`` in dB; ``loudness`` is that before it, None: silent."""

    wav: np.ndarray
    rate: int
    gain: float
    loudness: float | None


def measure(wav: np.ndarray, rate: int) -> Level:
    """The level of ``wav [samples]``."""
    try:
        import pyloudnorm
    except ModuleNotFoundError:
        raise ConfigError("pyloudnorm is missing: pip install -e '.[eval]' installs it.") from None
    clean = np.nan_to_num(wav.astype(np.float64), posinf=0.0, neginf=0.0)
    peak = 20 * math.log10(max(float(np.abs(clean).max(initial=0.0)), 1e-9))
    seconds = len(clean) / rate
    if seconds < SHORTEST or peak < -120:
        return Level(None, peak)
    loudness = float(pyloudnorm.Meter(rate, block_size=min(BLOCK, seconds)).integrated_loudness(clean))
    return Level(loudness if math.isfinite(loudness) and loudness > GATE else None, peak)


def equally_loud(sounds: Mapping[str, tuple[np.ndarray, int]], target: float) -> dict[str, Copy]:
    """Sounds that are compared, ``[samples]`` and rate, at one loudness, as `matching_gains` says."""
    levels = {name: measure(wav, rate) for name, (wav, rate) in sounds.items()}
    gains = matching_gains(levels, target)
    return {
        name: Copy(wav * np.float32(10 ** (gains[name] / 20)), rate, gains[name], levels[name].loudness)
        for name, (wav, rate) in sounds.items()
    }


def matching_gains(levels: Mapping[str, Level], target: float) -> dict[str, float]:
    """The gain in dB of each clip of one item, which brings all that sound to one loudness without clipping any.

    That loudness is ``target`` (LUFS), or as much lower (at most 12 dB) as the clip with the sharpest peaks needs. A
    clip that would be clipped even there stays quieter than the others; silence is not raised.
    """
    sounding = {key: level for key, level in levels.items() if level.loudness is not None}
    reach = {key: level.loudness + PEAK - level.peak for key, level in sounding.items() if level.loudness is not None}
    common = max(min([target, *reach.values()]), target - ROOM)
    gains = dict.fromkeys(levels, 0.0)
    for key, level in sounding.items():
        assert level.loudness is not None
        gains[key] = min(common - level.loudness, PEAK - level.peak, MOST)
    return gains
