"""95 % intervals over clips: bootstrap (percentile method, 2000 resamples, fixed seed), Wilson's for shares of clips.

A score is a ratio of sums over clips, errors / words for a corpus rate and value / 1 for a mean, so one
function serves both. Resampling draws clips, not words: words of one clip are not independent.

Clips that are each right or wrong make a share, and so do counted rates that are 0 or 1 throughout: no resample of
them shows another value, so that a bootstrap would be sure of 0 or 100 % after ten clips. Wilson's interval (1927) is
not, nor is Newcombe's for the paired difference of two shares (1998, method 10), which is made of Wilson's. What is
measured, not counted, is no share, whatever values it has. Below ten clips there is no interval: what they say of
others is too little for either method.
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
HOW = (
    f"percentile bootstrap over clips, {RESAMPLES} resamples, seed {SEED}; shares: Wilson, their paired differences: "
    f"Newcombe; none below {LEAST} clips"
)


@dataclass(frozen=True)
class Estimate:
    """A score with its interval; ``low`` and ``high`` are None when fewer than ten clips were scored."""

    value: float
    low: float | None
    high: float | None
    n: int


@lru_cache(maxsize=4)
def counts(n: int) -> NDArray[np.float64]:
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


def paired_shares(first: NDArray[np.float64], second: NDArray[np.float64]) -> tuple[float, float]:
    """95 % interval of the difference of two shares of the same clips, ``[clips]`` of 0 and 1 each (Newcombe's)."""
    n = len(first)
    both, one, other = (float(part.sum()) for part in (first * second, first * (1 - second), (1 - first) * second))
    neither = n - both - one - other
    spread = (both + one) * (other + neither) * (both + other) * (one + neither)
    product = both * neither - one * other
    if product > 0:  # continuity
        product = max(product - n / 2, 0.0)
    alike = product / np.sqrt(spread) if spread else 0.0
    (p, (p_low, p_high)), (q, (q_low, q_high)) = ((part.mean(), wilson(part.sum(), n)) for part in (first, second))

    def reach(a: float, b: float) -> float:
        return float(np.sqrt(max(a * a - 2 * alike * a * b + b * b, 0.0)))

    difference = float(p - q)
    return difference - reach(p - p_low, q_high - q), difference + reach(q - q_low, p_high - p)


def _shares(top: NDArray[np.float64], bottom: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """The counted rate of each clip where these are 0 and 1 and make a share, else None."""
    rates = top / bottom
    alike = (bottom == 1).all() or float(top.sum() / bottom.sum()) in (0, 1)
    return rates if alike and np.isin(rates, (0, 1)).all() else None


def ratio(numerators: ArrayLike, denominators: ArrayLike | None = None, counted: bool = False) -> Estimate | None:
    """Sum of ``numerators [clips]`` over sum of ``denominators [clips]`` (default: ones, which gives the
    mean).

    Args:
        counted: whether numerators count some of what the denominators count.

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
    shares = _shares(top, bottom) if counted else None
    if shares is not None:
        low, high = wilson(shares.sum(), n)
        return Estimate(value, low, high, n)
    sums = counts(n) @ np.stack([top, bottom], 1)
    low, high = np.percentile(sums[:, 0] / sums[:, 1], [2.5, 97.5])
    return Estimate(value, float(low), float(high), n)


def paired_difference(
    first: tuple[ArrayLike, ArrayLike], second: tuple[ArrayLike, ArrayLike], counted: bool = False
) -> Estimate | None:
    """Difference of two ratios over the same clips in the same order, first minus second.

    Args:
        first: numerators and denominators ``[clips]`` of the first system.
        second: those of the second.
        counted: as in `ratio`.
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
    shares, others = (_shares(a, b), _shares(c, d)) if counted else (None, None)
    if shares is not None and others is not None:
        return Estimate(value, *paired_shares(shares, others), n)
    sums = counts(n) @ np.stack([a, b, c, d], 1)
    low, high = np.percentile(sums[:, 0] / sums[:, 1] - sums[:, 2] / sums[:, 3], [2.5, 97.5])
    return Estimate(value, float(low), float(high), n)
