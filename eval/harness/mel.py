"""Mel filters in librosa's default form, without librosa (whose first call compiles for half a minute)."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
from numpy.typing import NDArray


@cache
def slaney_filters(sample_rate: int, window: int, bands: int) -> NDArray[np.float32]:
    """``[bands, window // 2 + 1]`` triangular filters on the Slaney mel scale from 0 Hz to half the rate,
    area 1.
    """
    step = math.log(6.4) / 27.0  # linear below 1 kHz (15 mels), logarithmic above

    def to_mel(hertz: float) -> float:
        return hertz / (200.0 / 3) if hertz < 1000 else 15.0 + math.log(hertz / 1000.0) / step

    mels = np.linspace(to_mel(0.0), to_mel(sample_rate / 2), bands + 2)
    edges = np.where(mels < 15.0, mels * (200.0 / 3), 1000.0 * np.exp(step * (mels - 15.0)))
    bins = np.fft.rfftfreq(window, 1.0 / sample_rate)
    rising = (bins[None] - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    falling = (edges[2:, None] - bins[None]) / (edges[2:] - edges[1:-1])[:, None]
    filters = np.maximum(0.0, np.minimum(rising, falling)) * (2.0 / (edges[2:] - edges[:-2]))[:, None]
    return filters.astype(np.float32)
