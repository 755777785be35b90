"""Clusters of recordings: found on train, scored on test against each label by itself, adjusted for chance.

AMI and ARI are 0 for clusters that have nothing to do with the label and 1 for the label itself, however many clusters
there are; NMI and homogeneity grow with their number, and say of enough of them that anything is clustered by anything.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_mutual_info_score, adjusted_rand_score, silhouette_score
from sklearn.mixture import GaussianMixture

from training.config import ConfigError

SEEDS = 5
MOST = 24  # clusters that BIC chooses among, in steps of 2
Vectors = NDArray[np.float64]


def scaled(train: Vectors, *others: Vectors) -> list[Vectors]:
    """All by the mean and the standard deviation of train's axes.

    Raises:
        ConfigError: no axis varies.
    """
    mean, deviation = train.mean(0), train.std(0)
    if not (deviation > 1e-9 * max(1.0, float(np.abs(mean).max()))).any():
        raise ConfigError("the latents of all recordings are the same vector: there is no space to look into.")
    return [(part - mean) / np.where(deviation > 1e-12, deviation, 1.0) for part in (train, *others)]


def check_count(clusters: int, notes: int) -> None:
    """Refuse more clusters than recordings. Raises ConfigError."""
    if not 2 <= clusters < notes:
        raise ConfigError(f"clusters={clusters}: there are {notes} recordings to train on; give 2 to {notes - 1}.")


def mixture(train: Vectors, clusters: int, seed: int) -> GaussianMixture:
    """A Gaussian mixture with axis-parallel components."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=UserWarning)  # not converged in 100 steps: BIC says what it is worth
        return GaussianMixture(clusters, covariance_type="diag", random_state=seed, reg_covar=1e-3).fit(train)


def choose_count(train: Vectors, seed: int) -> int:
    """The number of components with the lowest BIC."""
    counts = [k for k in range(2, MOST + 1, 2) if k < len(train) // 4] or [2]
    return min(counts, key=lambda k: float(mixture(train, k, seed).bic(train)))


def assignments(train: Vectors, test: Vectors, clusters: int, seed: int) -> dict[str, NDArray[np.int64]]:
    """Clusters ``[n]`` of the test recordings by k-means and by a mixture, fitted on train."""
    check_count(clusters, len(train))
    means = KMeans(clusters, n_init=4, random_state=seed).fit(train)
    return {"k-means": means.predict(test), "mixture": mixture(train, clusters, seed).predict(test)}


def stability(train: Vectors, test: Vectors, clusters: int) -> float:
    """Mean pairwise ARI of k-means from five seeds, one start each."""
    found = [KMeans(clusters, n_init=1, random_state=seed).fit(train).predict(test) for seed in range(SEEDS)]
    return float(np.mean([adjusted_rand_score(a, b) for a, b in combinations(found, 2)]))


def agreement(values: Sequence[str], clusters: NDArray[np.int64]) -> dict[str, float]:
    """``{ami: …, ari: …}`` of one label's ``values``."""
    return {
        "ami": float(adjusted_mutual_info_score(values, clusters)),
        "ari": float(adjusted_rand_score(values, clusters)),
    }


def silhouette(test: Vectors, labels: Sequence[str]) -> float | None:
    """Mean silhouette of the recordings by their label; None where each has its own."""
    return float(silhouette_score(test, labels)) if 2 <= len(set(labels)) < len(labels) else None
