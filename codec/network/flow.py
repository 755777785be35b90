"""Flow matching: from noise to a sample in a few evaluations of a learnt velocity (Lipman et al., 2023).

::

    x_t = (1 − t) z + t x₁         z ~ N(0, 1), t from 0 to 1: a straight path from noise to data
    u   = x₁ − z                   its velocity, which a network v(x_t, t) learns by least squares
    x₁  ≈ z + ∫ v(x_t, t) dt       sampling: Euler or the midpoint rule

The conditional path of ALMTokenizer2 with its σ of 1e-4 left out, which changes nothing. Here is what needs no network:
path, loss, noise, solvers, guidance. The decoder that uses them is codec/network/flow_decoder.py.

The noise is a fixed table read at a frame's number (:func:`noise`), so decoding draws nothing: a clip sounds the same
alone, in any batch and in any piece, and neighbouring pieces agree where they meet.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated

import torch
from torch import Tensor

from training.schema import first_fault_in

TAPE_FRAMES = 8192  # the noise repeats after 109 s at 75 Hz
SEED_STRIDE = 2741  # odd: each of the 8192 seeds begins elsewhere

Velocity = Callable[[Tensor, float], Tensor]
"""``x [batch, frames, dim]`` and t → velocity of the same shape."""


@dataclass(frozen=True)
class Sampling:
    """How a flow decoder samples: options of the tokenizer (configs/tokenizer/almtokenizer.yaml), not of its weights.

    Raises:
        ValueError: in one sentence, with the key.
    """

    steps: Annotated[int, "int, from 1 to 1000"] = 8
    solver: Annotated[str, "euler | midpoint | regression"] = "midpoint"
    guidance: Annotated[float, "float, from 0 to 10"] = 1.0
    temperature: Annotated[float, "float, from 0 to 10"] = 1.0
    seed: Annotated[int, "int, from 0 to 8191"] = 0

    def __post_init__(self) -> None:
        if fault := first_fault_in(self, "tokenizer.flow."):
            raise ValueError(fault)
        if self.solver == "midpoint" and self.steps % 2:
            raise ValueError(f"tokenizer.flow.steps={self.steps} must be even: the midpoint rule evaluates in pairs.")


@lru_cache(maxsize=4)
def noise_tape(dim: int, device: torch.device) -> Tensor:
    """The fixed noise ``[TAPE_FRAMES, dim]``, the same on every machine and device."""
    with torch.inference_mode(False):
        return torch.randn(TAPE_FRAMES, dim, generator=torch.Generator().manual_seed(2504)).to(device)


def noise(start: int, frames: int, dim: int, seed: int, device: torch.device) -> Tensor:
    """Noise ``[frames, dim]`` of the frames from number ``start`` of a clip on; another ``seed`` shifts the tape."""
    places = torch.arange(start, start + frames, device=device) + seed * SEED_STRIDE
    return noise_tape(dim, device)[places % TAPE_FRAMES]


def interpolate(target: Tensor, noise: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """Point ``x_t`` on the path and its velocity, both as ``target [batch, frames, dim]``; ``t [batch]`` in 0…1."""
    t = t[:, None, None]
    return (1 - t) * noise + t * target, target - noise


def stratified_times(count: int, generator: torch.Generator) -> Tensor:
    """``[count]`` times, each uniform in its own part of 0…1: together they vary less than independent ones."""
    drawn = torch.rand(count, generator=generator, device=generator.device)
    return (torch.arange(count, device=generator.device) + drawn) / count


def masked_mean_square(a: Tensor, b: Tensor, weight: Tensor, valid: Tensor | None = None) -> Tensor:
    """Weighted mean square of ``a − b`` over valid frames and all dimensions; padding may hold anything, NaN too.

    Args:
        a, b: ``[batch, frames, dim]``.
        weight: of the same shape, or one that broadcasts to it.
        valid: ``[batch, frames]`` bool.
    """
    a, b, weight = torch.broadcast_tensors(a.float(), b.float(), weight.float())
    if valid is not None:  # each apart: the gradient of a masked NaN would be NaN
        a, b, weight = (torch.where(valid[..., None], x, 0.0) for x in (a, b, weight))
    return ((a - b).square() * weight).sum() / weight.sum().clamp(min=1e-6)


def guided(conditional: Velocity, unconditional: Velocity, guidance: float) -> Velocity:
    """Classifier-free guidance, ``v₀ + guidance · (v − v₀)``; at 1 and at 0 one of the two is enough."""
    if guidance == 1:
        return conditional
    if guidance == 0:
        return unconditional

    def both(x: Tensor, t: float) -> Tensor:
        free = unconditional(x, t)
        return free + guidance * (conditional(x, t) - free)

    return both


def solve(velocity: Velocity, x: Tensor, steps: int, solver: str) -> Tensor:
    """Follow ``velocity`` from ``x`` at t = 0 to t = 1 in ``steps`` evaluations on a uniform grid.

    Of Gaussians 8 steps of Euler make samples of 0.76 to 0.85 of the deviation, 4 pairs of the midpoint rule 0.99 to 1
    (tests/codec/network/test_flow.py): too little deviation is heard as too smooth.

    Args:
        x: in the precision to compute in, whatever the network's.
        solver: ``euler`` (order 1), or ``midpoint`` (order 2, two evaluations per interval).
    """
    if solver == "euler":
        for i in range(steps):
            x = x + velocity(x, i / steps).to(x.dtype) / steps
        return x
    intervals = steps // 2
    for i in range(intervals):
        half = x + velocity(x, i / intervals).to(x.dtype) / (2 * intervals)
        x = x + velocity(half, (i + 0.5) / intervals).to(x.dtype) / intervals
    return x
