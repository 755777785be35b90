"""Fréchet distance between two sets of embeddings (FAD, FD), and its extrapolation to infinitely many samples.

``d² = |μ₁ − μ₂|² + tr(Σ₁ + Σ₂ − 2 (Σ₁Σ₂)^½)``, covariances with N − 1, everything in float64. The trace of the root
is the nuclear norm of ``Σ₁^½ Σ₂^½`` with roots by ``eigh``: never complex, never negative beyond rounding, and zero
for a set with itself also when there are fewer samples than dimensions.

The distance of two samples of the same distribution is not zero. With an exact reference
``E ≈ (d/N) (1 + (d+1)/4)``: 4.3 for d = 128 and N = 1000. So a score means nothing without N, and sets of different
size are not comparable. ``infinity`` removes the bias of the evaluated set: the intercept of the distance over 1/n for
25 sizes n, each a draw *without* replacement (Chong & Forsyth 2020). Draws with replacement, as some toolkits make
them, only lead back to the biased value.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from torchmetrics import Metric

from eval.harness.audio import CannotScore

SIZES = 25  # of the regression
SMALLEST = 500  # frames of the smallest draw


@dataclass(frozen=True)
class Gaussian:
    """Mean ``[d]`` and covariance ``[d, d]`` of a set of ``n`` embeddings."""

    mean: NDArray[np.float64]
    covariance: NDArray[np.float64]
    n: int

    @classmethod
    def of(cls, embeddings: ArrayLike) -> Gaussian:
        """The statistics of ``embeddings [n, d]``.

        Raises:
            CannotScore: fewer than two rows, or values that are not finite.
        """
        rows = np.asarray(embeddings, dtype=np.float64)
        if rows.ndim != 2 or len(rows) < 2:
            raise CannotScore("fewer than 2 embeddings")
        if not np.isfinite(rows).all():
            raise CannotScore("NaN or infinite embeddings")
        mean = rows.mean(0)
        centred = rows - mean
        return cls(mean, centred.T @ centred / (len(rows) - 1), len(rows))


def root(covariance: NDArray[np.float64]) -> NDArray[np.float64]:
    """The symmetric square root of a positive semi-definite matrix ``[d, d]``."""
    values, vectors = np.linalg.eigh((covariance + covariance.T) / 2)
    return (vectors * np.sqrt(values.clip(min=0.0))) @ vectors.T


def frechet_distance(first: Gaussian, second: Gaussian) -> float:
    """The squared Fréchet distance of two Gaussians (what papers call FAD or FD).

    Raises:
        ValueError: their dimensions differ.
    """
    if first.mean.shape != second.mean.shape:
        raise ValueError(f"embeddings of {len(first.mean)} and {len(second.mean)} dimensions cannot be compared.")
    difference = first.mean - second.mean
    overlap = np.linalg.svd(root(first.covariance) @ root(second.covariance), compute_uv=False).sum()
    return float(difference @ difference + np.trace(first.covariance) + np.trace(second.covariance) - 2 * overlap)


def expected_bias(dimensions: int, n: int) -> float:
    """The distance that ``n`` samples of a standard Gaussian have from it: (d/N)(1 + (d+1)/4)."""
    return dimensions / n * (1 + (dimensions + 1) / 4)


def extrapolate(reference: NDArray[np.float64], evaluated: NDArray[np.float64], seed: int = 0) -> float:
    """The distance for infinitely many evaluated samples: the intercept of distance over 1/n.

    Args:
        reference: ``[n, d]``.
        evaluated: ``[m, d]``, m at least 1000.

    Raises:
        CannotScore: fewer than 1000 evaluated samples: the smallest draws would say nothing.
    """
    if len(evaluated) < 2 * SMALLEST:
        raise CannotScore(f"fewer than {2 * SMALLEST} embeddings")
    generator, against = np.random.default_rng(seed), Gaussian.of(reference)
    sizes = np.linspace(SMALLEST, len(evaluated), SIZES).astype(int)
    draws = (evaluated[generator.choice(len(evaluated), size, replace=False)] for size in sizes)
    distances = [frechet_distance(against, Gaussian.of(drawn)) for drawn in draws]
    _, intercept = np.polyfit(1.0 / sizes, distances, 1)
    return float(intercept)


class FrechetDistance(Metric):
    """The Fréchet distance of the embeddings of two sets of clips.

    ``update(embeddings, reference=True)`` adds ``[frames, d]`` of one clip of the reference set, ``reference=False``
    one of the evaluated set. Embeddings are kept as they come and joined over processes; ``counts()`` tells how many
    clips and frames stand behind the number, which must be printed with it.
    """

    full_state_update = False
    higher_is_better = False
    reference: list[Tensor]
    evaluated: list[Tensor]
    clips: Tensor

    def __init__(self, sync_on_compute: bool = True) -> None:
        super().__init__(sync_on_compute=sync_on_compute)
        self.add_state("reference", default=[], dist_reduce_fx="cat")
        self.add_state("evaluated", default=[], dist_reduce_fx="cat")
        self.add_state("clips", default=torch.zeros(2, dtype=torch.long), dist_reduce_fx="sum")

    def update(self, embeddings: Tensor | NDArray[np.float32], reference: bool) -> None:
        """Add the embeddings ``[frames, d]`` of one clip."""
        rows = torch.as_tensor(embeddings)
        (self.reference if reference else self.evaluated).append(rows)
        self.clips[0 if reference else 1] += 1

    def sides(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """``[frames, d]`` of the reference and of the evaluated set."""
        found = []
        for rows in (self.reference, self.evaluated):
            joined = rows if isinstance(rows, Tensor) else torch.cat(rows) if rows else torch.zeros(0, 1)
            found.append(joined.double().cpu().numpy())
        return found[0], found[1]

    def counts(self) -> dict[str, int]:
        """Clips and frames of both sets."""
        reference, evaluated = self.sides()
        files = self.clips.tolist()
        return {
            "reference_clips": files[0],
            "reference_frames": len(reference),
            "evaluated_clips": files[1],
            "evaluated_frames": len(evaluated),
        }

    def compute(self) -> Tensor:
        """The distance; NaN when a side has fewer than two embeddings."""
        try:
            first, second = map(Gaussian.of, self.sides())
        except CannotScore:
            return torch.tensor(float("nan"), dtype=torch.float64)
        return torch.tensor(frechet_distance(first, second), dtype=torch.float64)

    def infinity(self, seed: int = 0) -> float:
        """FAD∞ (see ``extrapolate``).

        Raises:
            CannotScore: too few embeddings.
        """
        return extrapolate(*self.sides(), seed=seed)
