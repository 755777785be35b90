"""Kullback-Leibler divergence of class posteriors: does generated audio hold the same sounds as its reference?

Per pair ``KL(reference ‖ generated) = Σ p (log p − log(q + 10⁻⁶))`` in nats over the classes of an audio classifier,
mean over pairs. The classifier is part of the metric's name: values from different classifiers are not comparable.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from eval.harness.audio import CannotScore
from eval.metrics.clip_metric import ClipMetric

EPSILON = 1e-6


def kl_divergence(reference: ArrayLike, generated: ArrayLike, epsilon: float = EPSILON) -> float:
    """KL(reference ‖ generated) of two posteriors ``[classes]`` in nats; classes without reference mass add nothing.

    Raises:
        CannotScore: "posteriors differ in length", or one that does not sum to 1.
    """
    p, q = np.asarray(reference, dtype=np.float64), np.asarray(generated, dtype=np.float64)
    if p.shape != q.shape or p.ndim != 1:
        raise CannotScore("posteriors differ in length")
    for part in (p, q):
        if not np.isfinite(part).all() or (part < 0).any() or abs(part.sum() - 1) > 1e-3:
            raise CannotScore("no probability distribution")
    held = p > 0
    return float(np.sum(p[held] * (np.log(p[held]) - np.log(q[held] + epsilon))))


class PosteriorDivergence(ClipMetric):
    """Mean KL over pairs; ``update(references, generated)``, each a sequence of posteriors ``[classes]``."""

    higher_is_better = False

    def __init__(self) -> None:
        super().__init__(kl_divergence)
