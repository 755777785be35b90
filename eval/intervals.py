"""95 % intervals over clips: bootstrap (percentile method, 2000 resamples, fixed seed), Wilson's for shares of clips.

A score is a ratio of sums over clips, errors / words for a corpus rate and value / 1 for a mean, so one
function serves both. Resampling draws clips, not words: words of one clip are not independent.

Clips that are each right or wrong make a share, and so do rates that are 0 or 1 throughout: no resample of them shows
another value, so that a bootstrap would be sure of 0 or 100 % after ten clips. Wilson's interval (1927) is not. Below
ten clips there is none: what they say of others is too little for either method.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import binomtest

RESAMPLES = 2000
SEED = 20_240_229
LEAST = 10  # clips
HOW = f"percentile bootstrap over clips, {RESAMPLES} resamples, seed {SEED}; shares: Wilson; none below {LEAST} clips"


@dataclass(frozen=True)
class Estimate:
    """A score with its interval; ``low`` and ``high`` are None when fewer than ten clips were scored."""

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


def wilson(successes: float, n: int) -> tuple[float, float]:
    """95 % interval of a share, ``successes`` of ``n`` (Wilson's score interval)."""
    found = binomtest(round(successes), n).proportion_ci(0.95, method="wilson")
    return float(found.low), float(found.high)


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
    if n < LEAST:
        return Estimate(value, None, None, n)
    shares = top / bottom
    if np.isin(shares, (0, 1)).all() and ((bottom == 1).all() or value in (0, 1)):
        low, high = wilson(shares.sum(), n)
        return Estimate(value, low, high, n)
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
    if n < LEAST:
        return Estimate(value, None, None, n)
    sums = _counts(n) @ np.stack([a, b, c, d], 1)
    low, high = np.percentile(sums[:, 0] / sums[:, 1] - sums[:, 2] / sums[:, 3], [2.5, 97.5])
    return Estimate(value, float(low), float(high), n)
