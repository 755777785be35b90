"""Query tokens between frames, and back (paper section 3, figure 2).

A window is ``w`` frames and one query. In the encoder the learnable query follows its frames, in the decoder ``w``
mask tokens stand beside their quantized query; either order is a choice of the caller::

    query last :  f f f f f f Q | f f f f f f Q | …
    query first:  Q f f f f f f | Q f f f f f f | …

All functions work on whole windows: the frame count is a multiple of ``w`` (callers pad with zeros, see
:func:`pad_to_windows`), so no tail is dropped and output length can equal input length.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def windows_for(frames: int, window: int) -> int:
    """Windows that cover ``frames`` frames (the last one padded)."""
    return -(-frames // window)


def pad_to_windows(frames: Tensor, window: int) -> Tensor:
    """Pad ``[batch, frames, dim]`` with zeros to whole windows."""
    missing = -frames.shape[1] % window
    return F.pad(frames, (0, 0, 0, missing)) if missing else frames


def interleave(frames: Tensor, queries: Tensor, window: int, query_first: bool = False) -> Tensor:
    """Join frames and queries into one sequence.

    Args:
        frames: ``[batch, windows * w, dim]``.
        queries: ``[batch, windows, dim]``.
        query_first: put the query before its window instead of after it.

    Returns:
        ``[batch, windows * (w + 1), dim]``.
    """
    batch, length, dim = frames.shape
    if length != queries.shape[1] * window:
        raise ValueError(
            f"{length} frames are not {queries.shape[1]} windows of {window}; pad with pad_to_windows first."
        )
    grouped = frames.reshape(batch, -1, window, dim)
    parts = (queries[:, :, None], grouped) if query_first else (grouped, queries[:, :, None])
    return torch.cat(parts, dim=2).reshape(batch, -1, dim)


def retrieve_queries(sequence: Tensor, window: int, query_first: bool = False) -> Tensor:
    """``[batch, windows * (w + 1), dim]`` → the queries ``[batch, windows, dim]``."""
    return _grouped(sequence, window)[:, :, 0 if query_first else window]


def retrieve_frames(sequence: Tensor, window: int, query_first: bool = False) -> Tensor:
    """``[batch, windows * (w + 1), dim]`` → the frames ``[batch, windows * w, dim]``."""
    grouped = _grouped(sequence, window)
    grouped = grouped[:, :, 1:] if query_first else grouped[:, :, :window]
    return grouped.flatten(1, 2)


def _grouped(sequence: Tensor, window: int) -> Tensor:
    if sequence.shape[1] % (window + 1):
        raise ValueError(f"a sequence of {sequence.shape[1]} tokens does not consist of windows of {window} + 1.")
    return sequence.unflatten(1, (-1, window + 1))


def window_cosines(window: int, count: int, device: torch.device) -> Tensor:
    """Cosine basis over the frames of a window, ``[w, count]``: the same shapes whatever w is (DCT-II)."""
    place = (torch.arange(window, device=device) + 0.5) / window
    return torch.cos(math.pi * place[:, None] * torch.arange(count, device=device))


class WindowPool(nn.Module):
    """What a query starts from: a linear map of its window's frames, described by ``count`` cosines over the window.

    The paper's query is a bare learnt vector that must gather everything by attention. With a few thousand CPU steps
    that is slow to learn: the spectrum stayed constant within each window (measured; see docs/experiments.md).
    """

    def __init__(self, dim: int, count: int) -> None:
        super().__init__()
        self.count = count
        self.linear = nn.Linear(count * dim, dim)

    def forward(self, frames: Tensor, window: int) -> Tensor:
        """``[batch, windows * w, dim]`` → ``[batch, windows, dim]``."""
        basis = window_cosines(window, self.count, frames.device) / window
        grouped = frames.unflatten(1, (-1, window))
        return self.linear(torch.einsum("bnwd,wk->bnkd", grouped, basis).flatten(2))


class WindowSpread(nn.Module):
    """What mask tokens start from: ``count`` linear maps of their quantised query, weighted by cosines."""

    def __init__(self, dim: int, count: int) -> None:
        super().__init__()
        self.count = count
        self.linear = nn.Linear(dim, count * dim)

    def forward(self, queries: Tensor, window: int) -> Tensor:
        """``[batch, windows, dim]`` → ``[batch, windows * w, dim]``."""
        basis = window_cosines(window, self.count, queries.device)
        parts = self.linear(queries).unflatten(2, (self.count, -1))
        return torch.einsum("bnkd,wk->bnwd", parts, basis).flatten(1, 2)
