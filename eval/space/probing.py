"""Probes of labels with their controls: trained on recordings, scored on recordings of other groups.

The control trains on labels that were dealt out anew between groups, never within one, twenty times: what it scores
is chance for these recordings and this probe, and a probe that the control equals has found nothing. A control above
chance is a leak.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eval.harness.intervals import RESAMPLES, SEED
from eval.probes.linear import LinearProbe, choose_decay, macro_f1

SHUFFLES = 20
Labels = NDArray[np.int64]


@dataclass(frozen=True)
class Side:
    """Recordings of one split: ``x [n, d]``, classes ``y [n]``, ``groups [n]``."""

    x: NDArray[np.float32]
    y: Labels
    groups: NDArray[np.str_]

    def __post_init__(self) -> None:
        if self.x.ndim != 2 or not len(self.x) == len(self.y) == len(self.groups):
            raise ValueError(
                "a probe takes one vector per recording, [n, d]: a recording's frames are no sample of it."
            )


@dataclass(frozen=True)
class Found:
    """What a probe scored.

    Attributes:
        right, guesses: per test recording.
        f1: macro-F1, ``f1_interval`` over groups; None below ten.
        most_frequent: what naming the most frequent class would score.
        shuffled: the control's accuracies; ``p`` of the probe's among them.
    """

    right: NDArray[np.float64]
    guesses: Labels
    f1: float
    f1_interval: tuple[float, float] | None
    most_frequent: float
    decay: float
    shuffled: NDArray[np.float64]
    p: float | None

    @property
    def leaks(self) -> bool:
        """Whether the control's whole range lies above what the most frequent class would score."""
        return bool(len(self.shuffled)) and float(np.percentile(self.shuffled, 2.5)) > self.most_frequent


def deal_between_groups(y: Labels, groups: NDArray[np.str_], generator: np.random.Generator) -> Labels:
    """``y`` with the groups' labels permuted; recordings of a group that share a label go on sharing one."""
    names, first, inverse = np.unique(groups, return_index=True, return_inverse=True)
    if all(len(set(y[inverse == k])) == 1 for k in range(len(names))):
        return generator.permutation(y[first])[inverse]
    sizes = np.bincount(inverse)
    out = y.copy()
    for size in np.unique(sizes):  # whole groups change places with groups of as many recordings
        chosen = np.nonzero(sizes == size)[0]
        for target, source in zip(chosen, generator.permutation(chosen), strict=True):
            out[inverse == target] = y[inverse == source]
    return out


def resampled(
    values: Sequence[NDArray[Any]], groups: NDArray[np.str_], statistic: Callable[..., float]
) -> tuple[float, float] | None:
    """95 % interval of ``statistic(*values)`` over draws of whole groups; None below ten groups."""
    names, inverse = np.unique(groups, return_inverse=True)
    if len(names) < 10:
        return None
    members = [np.nonzero(inverse == k)[0] for k in range(len(names))]
    generator = np.random.default_rng(SEED)
    found = []
    for _ in range(RESAMPLES // 4):
        draw = np.concatenate([members[k] for k in generator.integers(0, len(names), len(names))])
        found.append(statistic(*(value[draw] for value in values)))
    low, high = np.percentile(found, [2.5, 97.5])
    return float(low), float(high)


def probe(
    train: Side, valid: Side, test: Side, classes: int, seed: int, shuffles: int = SHUFFLES, decay: float | None = None
) -> Found:
    """Train, choose the decay on ``valid``, score on ``test``, and the same with dealt-out labels.

    Raises:
        ValueError: a group in two of the three.
    """
    sets = [set(side.groups.tolist()) for side in (train, valid, test)]
    if shared := (sets[0] & sets[2]) | (sets[1] & sets[2]) | (sets[0] & sets[1]):
        raise ValueError(f"group {min(shared)} is on two sides: a probe would be asked for what it was told.")
    if decay is None:
        decay = choose_decay((train.x, train.y), (valid.x, valid.y), classes)
    guesses = LinearProbe(decay).fit(train.x, train.y, classes).predict(test.x)
    right = (guesses == test.y).astype(np.float64)
    generator, shuffled = np.random.default_rng(seed), []
    for _ in range(shuffles):
        dealt = deal_between_groups(train.y, train.groups, generator)
        shuffled.append(float((LinearProbe(decay, 30).fit(train.x, dealt, classes).predict(test.x) == test.y).mean()))
    control = np.array(shuffled)
    p = (1 + int((control >= right.mean()).sum())) / (1 + shuffles) if shuffles else None
    majority = float(np.bincount(test.y, minlength=classes).max() / max(len(test.y), 1))
    interval = resampled([guesses, test.y], test.groups, macro_f1)
    return Found(right, guesses, macro_f1(guesses, test.y), interval, majority, decay, control, p)
