"""The space that is quantised: how much of it is in use, and what keeps it open.

Trained with the straight-through estimator and a commitment loss, a code space of many dimensions shrinks to the few
axes that stand out of the quantiser's error; the others carry nothing and never come back. Perplexity does not show it,
:func:`axes_in_use` does. :class:`Whitening` and :func:`coding_rate_loss` work against it. None of this is in the paper,
which does not state the space's dimension either.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Whitening(nn.Module):
    """Latents ``[n, dim]`` → zero mean, unit variance on every axis, none correlated with another.

    A pass uses the statistics of the steps before it (the first one's is the identity); `ResidualQuantizer.finish_step`
    takes in its own. They are moving averages (buffers) and constants to the gradient. The map is the symmetric
    inverse root of the covariance (ZCA): it moves continuously with it, so that codebooks can follow.

    Args:
        decay: of the moving averages, per optimiser step.
        floor: least variance of an axis that is brought to 1, as a share of the mean variance.
    """

    mean: Tensor
    covariance: Tensor
    map: Tensor
    steps: Tensor

    def __init__(self, dim: int, decay: float, floor: float = 1e-3) -> None:
        super().__init__()
        self.decay, self.floor = decay, floor
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("covariance", torch.eye(dim))
        self.register_buffer("map", torch.eye(dim))
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) @ self.map

    @torch.no_grad()
    def observe(self, x: Tensor) -> None:
        """Take in the latents ``x [n, dim]`` of a step, of all processes."""
        x = x.float()
        weight = max(1 - self.decay, 1 / (int(self.steps) + 1))  # the first step replaces what the buffers began with
        self.mean.lerp_(x.mean(0), weight)
        centred = x - self.mean
        self.covariance.lerp_(centred.T @ centred / len(x), weight)
        self.steps += 1
        variance, axes = torch.linalg.eigh(self.covariance)
        scale = variance.clamp(min=self.floor * float(variance.mean().clamp(min=1e-12))).rsqrt()
        self.map.copy_((axes * scale) @ axes.T)


def coding_rate_loss(latents: Tensor, gain: float = 20.0) -> Tensor:
    """−½ log det(I + ``gain`` C) / dim of ``latents [batch, windows, dim]``, C their covariance scaled to trace dim.

    The coding rate of Yu et al. (2020), least when all axes have the same variance.
    """
    x = latents.float().flatten(0, 1)
    with torch.autocast(x.device.type, enabled=False):  # a covariance in bf16 has negative variances on unused axes
        x = x - x.mean(0)
        covariance = x.T @ x / len(x)
        dim = len(covariance)
        covariance = covariance * (dim / covariance.diagonal().sum().clamp(min=1e-8))
        return -0.5 * torch.logdet(torch.eye(dim, device=x.device) + gain * covariance) / dim


def axes_in_use(latents: Tensor, quantized: Tensor, decibels: float = 3.0) -> int:
    """How many principal axes of ``latents [n, dim]`` stand more than ``decibels`` above the quantiser's error.

    Args:
        quantized: ``[n, dim]`` the code vectors of the same windows.
    """
    x, error = latents.double(), (quantized - latents).double()
    covariance = (x - x.mean(0)).T @ (x - x.mean(0)) / len(x)
    variance, axes = torch.linalg.eigh(covariance)
    noise = (error @ axes).square().mean(0)
    return int((variance > noise * 10 ** (decibels / 10)).sum())
