"""Mel filters as librosa makes them (its first call would compile for half a minute), and as HTK and Kaldi do."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray
from transformers.audio_utils import hertz_to_mel, mel_to_hertz


@cache
def mel_filters(
    sample_rate: int,
    fft_size: int,
    bands: int,
    scale: str = "slaney",
    *,
    area: bool = True,
    low: float = 0.0,
    high: float | None = None,
) -> NDArray[np.float32]:
    """``[bands, fft_size // 2 + 1]`` triangular filters from ``low`` to ``high`` Hz (None: half the rate).

    Args:
        scale: ``slaney`` (librosa's), ``htk``, or ``kaldi``, whose triangles are straight in mel and not in Hz.
        area: filters of area 1, instead of peaks of 1.
    """
    bins = np.fft.rfftfreq(fft_size, 1.0 / sample_rate)
    edges = np.linspace(hertz_to_mel(low, scale), hertz_to_mel(high or sample_rate / 2, scale), bands + 2)
    if scale == "kaldi":
        bins = np.asarray(hertz_to_mel(bins, scale))
    else:
        edges = np.asarray(mel_to_hertz(edges, scale))
    widths = np.diff(edges)[:, None]
    rising, falling = (bins - edges[:-2, None]) / widths[:-1], (edges[2:, None] - bins) / widths[1:]
    filters = np.maximum(0.0, np.minimum(rising, falling))
    if area:
        filters *= 2.0 / (widths[:-1] + widths[1:])
    return filters.astype(np.float32)
