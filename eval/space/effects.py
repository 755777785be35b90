"""An additive model of where recordings lie: z ≈ mean + an effect of each label's class, by least squares.

What it explains on recordings that it has not seen says how far "the same note on another instrument" is a straight
line in the space; moving by the effect of one label alone leaves what the other labels explain where it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float64]
RIDGE = 1e-6  # of the number of recordings: unbalanced classes have a solution, balanced ones do not move


@dataclass(frozen=True)
class Additive:
    """``mean [d]`` and, per label and class, an effect ``[d]``; the effects of a label sum to zero over its classes."""

    mean: Vectors
    effects: dict[str, dict[str, Vectors]]

    @classmethod
    def fit(cls, vectors: Vectors, labels: Mapping[str, Sequence[str]]) -> Additive:
        """Of ``vectors [n, d]``; ``labels`` gives each label's class per vector, "" for none."""
        columns, names = [np.ones(len(vectors))], []
        for label, values in labels.items():
            for name in sorted(set(values) - {""}):
                columns.append(np.array([value == name for value in values], dtype=float))
                names.append((label, name))
        design = np.stack(columns, axis=1)
        ridge = RIDGE * len(vectors) * np.eye(design.shape[1])
        ridge[0, 0] = 0.0
        found = np.linalg.solve(design.T @ design + ridge, design.T @ vectors)
        mean = found[0].copy()
        effects: dict[str, dict[str, Vectors]] = {label: {} for label in labels}
        for (label, name), effect in zip(names, found[1:], strict=True):
            effects[label][name] = effect
        for own in effects.values():
            centre = np.mean(list(own.values()), axis=0)
            mean += centre
            for name in own:
                own[name] = own[name] - centre
        return cls(mean, effects)

    def predict(self, labels: Mapping[str, Sequence[str]]) -> Vectors:
        """``[n, d]``; a class that the fit has not seen has no effect."""
        n = len(next(iter(labels.values())))
        out = np.tile(self.mean, (n, 1))
        for label, values in labels.items():
            for row, value in enumerate(values):
                out[row] += self.effects.get(label, {}).get(value, 0.0)
        return out

    def shift(self, label: str, source: str | None, target: str) -> Vectors:
        """``[d]``: from the class ``source`` of a label (None: from the mean of its classes) to ``target``."""
        own = self.effects[label]
        return own[target] - (own[source] if source is not None else 0.0)


def explained(truth: Vectors, predicted: Vectors, mean: Vectors) -> float:
    """R²: the share of the squared distance of ``truth [n, d]`` to ``mean [d]`` that ``predicted`` explains."""
    return float(1 - np.square(truth - predicted).sum() / max(np.square(truth - mean).sum(), 1e-30))


def variance_ratio(vectors: Vectors, labels: Sequence[str]) -> float:
    """Variance of the classes' means over variance within classes, traces, each recording counted once."""
    values, mean = np.array(labels), vectors.mean(0)
    between = within = 0.0
    for name in np.unique(values):
        own = vectors[values == name]
        between += len(own) * float(np.square(own.mean(0) - mean).sum())
        within += float(np.square(own - own.mean(0)).sum())
    return between / max(within, 1e-30)


def effective_dimension(vectors: Vectors) -> float:
    """Participation ratio (Σλ)² / Σλ² of the covariance's eigenvalues: 1 for a line, d for a ball."""
    variance = np.linalg.eigvalsh(np.cov(vectors.T).reshape(vectors.shape[1], -1)).clip(min=0)
    return float(variance.sum() ** 2 / max(np.square(variance).sum(), 1e-30))
