"""The common shape of metrics that score one clip at a time."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from eval.harness.audio import CannotScore


class ClipMetric(Metric):
    """Mean of a per-clip score; clips without a score are counted by reason and never given one.

    Args:
        score: called with the arguments that ``update`` gets for one clip; returns a number or raises
            CannotScore.
    """

    full_state_update = False
    scores: list[Tensor]
    failed: Tensor

    def __init__(self, score: Callable[..., float]) -> None:
        super().__init__()
        self.score = score
        self.reasons: Counter[str] = Counter()  # of this process; their number is reduced over processes
        self.add_state("scores", default=[], dist_reduce_fx="cat")
        self.add_state("failed", default=torch.tensor(0), dist_reduce_fx="sum")

    def update(self, *clips: Sequence[Any], **options: Any) -> None:
        """Score clips; each positional argument is a sequence with one entry per clip."""
        for arguments in zip(*clips, strict=True):
            try:
                value = float(self.score(*arguments, **options))
                if not math.isfinite(value):
                    raise CannotScore("the score is not finite")
                self.scores.append(torch.tensor([value], dtype=torch.float64))
            except CannotScore as error:
                self.failed += 1
                self.reasons[error.reason] += 1

    def reset(self) -> None:
        """Forget all clips."""
        super().reset()
        self.reasons.clear()

    def values(self) -> Tensor:
        """``[clips]`` scores, float64."""
        if isinstance(self.scores, Tensor):
            return self.scores
        return torch.cat(self.scores) if self.scores else torch.zeros(0, dtype=torch.float64)

    def compute(self) -> Tensor:
        """The mean, NaN when no clip has a score."""
        return self.values().mean()
