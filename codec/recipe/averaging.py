"""Moving average of the weights (EMA), for validation and export.

Codebooks are buffers that average already; they and frozen parameters are left alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class WeightAverage:
    """Float32 shadow of the trainable parameters of ``model``: ``shadow ← decay · shadow + (1 − decay) · weights``."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model, self.decay = model, decay
        self.shadow = {n: p.detach().float().clone() for n, p in model.named_parameters() if p.requires_grad}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """After optimiser step ``step`` (from 1); early averages are shorter, so that the start is forgotten."""
        decay = min(self.decay, (1 + step) / (10 + step))
        parameters = dict(self.model.named_parameters())
        for name, value in self.shadow.items():
            value.lerp_(parameters[name].float(), 1 - decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The model holds the averaged weights inside the ``with`` block."""
        parameters = dict(self.model.named_parameters())
        kept = {name: parameters[name].detach().clone() for name in self.shadow}
        self._write(self.shadow)
        try:
            yield
        finally:
            self._write(kept)

    def adopt(self) -> None:
        """The model goes on from the averaged weights."""
        self._write(self.shadow)

    @torch.no_grad()
    def _write(self, values: dict[str, Tensor]) -> None:
        parameters = dict(self.model.named_parameters())
        for name, value in values.items():
            parameters[name].copy_(value)

    def load(self, shadow: dict[str, Tensor]) -> None:
        """Continue from a saved ``shadow``."""
        for name, value in self.shadow.items():
            value.copy_(shadow[name])
