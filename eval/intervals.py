"""95 % bootstrap intervals over clips: percentile method, 2000 resamples, fixed seed.

A score is a ratio of sums over clips, errors / words for a corpus rate and value / 1 for a mean, so one
function serves both. Resampling draws clips, not words: words of one clip are not independent.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

RESAMPLES = 2000
SEED = 20_240_229
HOW = f"percentile bootstrap over clips, {RESAMPLES} resamples, seed {SEED}"


@dataclass(frozen=True)
class Estimate:
    """A score with its interval; ``low`` and ``high`` are None when fewer than two clips were scored."""

    value: float
    low: float | None
    high: float | None
    n: int


@lru_cache(maxsize=4)
def _counts(n: int) -> NDArray[np.float64]:
    """``[resamples, n]``: how often each clip is drawn. The same for equal n, so that systems on the same items are
    resampled together; and a resampled sum is a matrix product.
    """
    draws = np.random.default_rng(SEED).integers(0, n, (RESAMPLES, n))
    places = (draws + n * np.arange(RESAMPLES)[:, None]).ravel()
    return np.bincount(places, minlength=RESAMPLES * n).reshape(RESAMPLES, n).astype(np.float64)


def ratio(numerators: ArrayLike, denominators: ArrayLike | None = None) -> Estimate | None:
    """Sum of ``numerators [clips]`` over sum of ``denominators [clips]`` (default: ones, which gives the
    mean).

    Returns:
        None without clips.
    """
    top = np.asarray(numerators, dtype=np.float64)
    bottom = np.ones_like(top) if denominators is None else np.asarray(denominators, dtype=np.float64)
    n = len(top)
    if n == 0:
        return None
    value = float(top.sum() / bottom.sum())
    if n == 1:
        return Estimate(value, None, None, 1)
    sums = _counts(n) @ np.stack([top, bottom], 1)
    low, high = np.percentile(sums[:, 0] / sums[:, 1], [2.5, 97.5])
    return Estimate(value, float(low), float(high), n)


def paired_difference(first: tuple[ArrayLike, ArrayLike], second: tuple[ArrayLike, ArrayLike]) -> Estimate | None:
    """Difference of two ratios over the same clips in the same order, first minus second.

    Args:
        first: numerators and denominators ``[clips]`` of the first system.
        second: those of the second.
    """
    a, b, c, d = (np.asarray(part, dtype=np.float64) for part in (*first, *second))
    if not len(a) == len(b) == len(c) == len(d):
        raise ValueError("a paired difference needs the same clips on both sides.")
    n = len(a)
    if n == 0:
        return None
    value = float(a.sum() / b.sum() - c.sum() / d.sum())
    if n == 1:
        return Estimate(value, None, None, 1)
    sums = _counts(n) @ np.stack([a, b, c, d], 1)
    low, high = np.percentile(sums[:, 0] / sums[:, 1] - sums[:, 2] / sums[:, 3], [2.5, 97.5])
    return Estimate(value, float(low), float(high), n)
