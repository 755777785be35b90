"""Rows of all training processes, so that many learn what one would from the same global batch."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor


def several() -> bool:
    """Whether more than one process trains."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def place() -> tuple[int, int]:
    """Rank of this process, and how many there are."""
    return (dist.get_rank(), dist.get_world_size()) if several() else (0, 1)


def rows(x: Tensor) -> Tensor:
    """All processes' ``x [n, ...]`` one after another, in the order of their ranks; ``n`` may differ."""
    if not several():
        return x
    sizes = [torch.zeros(1, dtype=torch.long, device=x.device) for _ in range(dist.get_world_size())]
    dist.all_gather(sizes, torch.tensor([len(x)], device=x.device))
    longest = int(torch.stack(sizes).max())
    padded = torch.cat((x, x.new_zeros(longest - len(x), *x.shape[1:])))
    parts = [torch.empty_like(padded) for _ in sizes]
    dist.all_gather(parts, padded.contiguous())
    return torch.cat([part[: int(size)] for part, size in zip(parts, sizes, strict=True)])
