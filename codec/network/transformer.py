"""Query tokens between frames (paper section 3, figure 2), and the transformer over both.

A window is ``w`` frames and one query. In the encoder the learnable query follows its frames, in the decoder ``w`` mask
tokens stand beside their quantised query; either order is a choice of the caller::

    query last :  f f f f f f Q | f f f f f f Q | …
    query first:  Q f f f f f f | Q f f f f f f | …

All functions work on whole windows, so no tail is dropped and output length can equal input length.

The transformer is pre-norm, with rotary positions and local attention.

Attention is local because the codec is trained on short crops and used on clips of any length: with full attention,
quality falls when a clip is longer than the crop (rotary phases that were never seen). A token attends to tokens at
most ``span`` positions away, and, when ``block`` is given (block-causal), to no window later than its own.

Attention is computed in blocks of ``span`` tokens, each against itself and its neighbours: memory and time grow
linearly with the clip.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def windows_for(frames: int, window: int) -> int:
    """Windows that cover ``frames`` frames (the last one padded)."""
    return -(-frames // window)


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
        raise ValueError(f"{length} frames are not {queries.shape[1]} windows of {window}: pad them with zeros first.")
    grouped = frames.reshape(batch, -1, window, dim)
    parts = (queries[:, :, None], grouped) if query_first else (grouped, queries[:, :, None])
    return torch.cat(parts, dim=2).reshape(batch, -1, dim)


def retrieve_queries(sequence: Tensor, window: int) -> Tensor:
    """``[batch, windows * (w + 1), dim]`` → the queries ``[batch, windows, dim]``."""
    return _grouped(sequence, window)[:, :, window]


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


class RMSNorm(nn.Module):
    """Root-mean-square normalisation over the last axis (Zhang and Sennrich, 2019)."""

    def __init__(self, dim: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, x.shape[-1:], self.weight, self.eps)


EXACT_FROM = 1 << 20  # tokens, 3 h at 75 Hz and w = 6: from here on float32 angles would be coarse (0.06 rad)


def rotary_table(
    length: int, dim: int, device: torch.device, base: float = 10000.0, start: int = 0
) -> tuple[Tensor, Tensor]:
    """Cosines and sines ``[length, dim / 2]`` of rotary position embedding (Su et al., 2021) from ``start`` on."""
    kind = torch.float64 if start >= EXACT_FROM else torch.float32
    inverse = base ** (-torch.arange(0, dim, 2, device=device, dtype=kind) / dim)
    angles = torch.arange(start, start + length, device=device, dtype=kind)[:, None] * inverse
    return angles.cos().float(), angles.sin().float()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Apply rotary embedding to ``x [..., length, dim]``."""
    a, b = x.chunk(2, dim=-1)
    cos, sin = cos.to(x.dtype), sin.to(x.dtype)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1)


def local_mask(length: int, span: int, valid: Tensor | None, block: int | None, device: torch.device) -> Tensor:
    """Which key each query may see, for attention in blocks of ``span``.

    Args:
        length: tokens, a multiple of ``span``.
        valid: ``[batch, length]`` bool, False for padding; None when every token is valid.
        block: tokens per window for block-causal attention, None for bidirectional.

    Returns:
        ``[batch or 1, blocks, 1, span, 3 * span]`` bool: query i of a block against the previous, own and next block.
    """
    blocks = length // span
    query = torch.arange(length, device=device).view(blocks, span, 1)
    key = (torch.arange(blocks, device=device)[:, None] - 1) * span + torch.arange(3 * span, device=device)
    key = key[:, None, :]  # [blocks, 1, 3 * span]
    allowed = ((query - key).abs() <= span) & (key >= 0) & (key < length)
    if block is not None:
        allowed &= torch.div(key, block, rounding_mode="floor") <= torch.div(query, block, rounding_mode="floor")
    allowed = allowed[None]
    if valid is not None:
        seen = F.pad(valid, (span, span)).unfold(1, 3 * span, span)  # [batch, blocks, 3 * span]
        allowed = allowed & seen[:, :, None, :]
    # A padded query may see nothing: let it see itself, or softmax over an empty set gives NaN.
    allowed = allowed | (query == key)[None]
    return allowed[:, :, None]


Past = tuple[Tensor, Tensor]
"""Keys and values ``[batch, heads, up to span, head_dim]`` of the tokens before, rotated."""


class LocalAttention(nn.Module):
    """Multi-head self-attention within ±``span`` tokens."""

    def __init__(self, dim: int, head_dim: int, span: int) -> None:
        super().__init__()
        if dim % head_dim:
            raise ValueError(f"width {dim} is not a multiple of the head dimension {head_dim}.")
        self.heads, self.span = dim // head_dim, span
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.out = nn.Linear(dim, dim, bias=False)

    def forward(self, x: Tensor, rotary: tuple[Tensor, Tensor], mask: Tensor) -> Tensor:
        """``x [batch, length, dim]`` with ``length`` a multiple of ``span`` → the same shape."""
        batch, length, dim = x.shape
        q, k, v = self.qkv(x).view(batch, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)  # [batch, heads, length, d]
        q, k = rotate(q, *rotary), rotate(k, *rotary)
        blocks = length // self.span
        q = q.unflatten(2, (blocks, self.span)).transpose(1, 2)  # [batch, blocks, heads, span, d]
        k, v = (self._neighbours(t, blocks) for t in (k, v))
        shape = q.shape
        mask = mask.expand(batch, -1, -1, -1, -1).reshape(batch * blocks, 1, self.span, 3 * self.span)
        y = F.scaled_dot_product_attention(q.flatten(0, 1), k.flatten(0, 1), v.flatten(0, 1), attn_mask=mask)
        y = y.view(shape).transpose(2, 3).reshape(batch, length, dim)
        return self.out(y)

    def extend(self, x: Tensor, rotary: tuple[Tensor, Tensor], mask: Tensor, past: Past) -> tuple[Tensor, Past]:
        """``x [batch, new, dim]`` after the tokens of ``past`` → the same shape, and the past of what follows.

        Args:
            mask: ``[new, past + new]`` bool.
        """
        q, k, v = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # [batch, heads, new, d]
        q, k = rotate(q, *rotary), rotate(k, *rotary)
        k, v = torch.cat((past[0], k), dim=2), torch.cat((past[1], v), dim=2)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.out(y.transpose(1, 2).flatten(2)), (k[:, :, -self.span :], v[:, :, -self.span :])

    def _neighbours(self, t: Tensor, blocks: int) -> Tensor:
        """``[batch, heads, length, d]`` → previous, own and next block ``[batch, blocks, heads, 3 * span, d]``."""
        padded = F.pad(t, (0, 0, self.span, self.span)).unflatten(2, (blocks + 2, self.span))
        return torch.cat((padded[:, :, :-2], padded[:, :, 1:-1], padded[:, :, 2:]), dim=3).transpose(1, 2)


class Block(nn.Module):
    """Pre-norm attention and a feed-forward of ``ffn`` times the width with squared ReLU (So et al., 2021).

    Squared ReLU because GELU costs as much time as the matrix products around it on a CPU (measured: 12 ms of 30).
    """

    def __init__(self, dim: int, head_dim: int, span: int, ffn: int) -> None:
        super().__init__()
        self.attention_norm, self.ffn_norm = RMSNorm(dim), RMSNorm(dim)
        self.attention = LocalAttention(dim, head_dim, span)
        self.up, self.down = nn.Linear(dim, ffn * dim), nn.Linear(ffn * dim, dim)

    def forward(self, x: Tensor, rotary: tuple[Tensor, Tensor], mask: Tensor) -> Tensor:
        x = x + self.attention(self.attention_norm(x), rotary, mask)
        return x + self.down(F.relu(self.up(self.ffn_norm(x))).square())

    def extend(self, x: Tensor, rotary: tuple[Tensor, Tensor], mask: Tensor, past: Past) -> tuple[Tensor, Past]:
        """As :meth:`LocalAttention.extend`."""
        y, past = self.attention.extend(self.attention_norm(x), rotary, mask, past)
        x = x + y
        return x + self.down(F.relu(self.up(self.ffn_norm(x))).square()), past


class LocalTransformer(nn.Module):
    """A stack of blocks over a sequence of any length.

    Args:
        span: attention reaches ``span`` tokens to either side.
        block_causal: a token sees no window later than its own (look-ahead of at most one window).
        block: what the stack is made of.
    """

    def __init__(
        self,
        dim: int,
        layers: int,
        head_dim: int,
        span: int,
        ffn: int = 4,
        block_causal: bool = False,
        block: Callable[[int, int, int, int], nn.Module] = Block,
    ) -> None:
        super().__init__()
        self.span, self.head_dim, self.block_causal = span, head_dim, block_causal
        self.blocks = nn.ModuleList(block(dim, head_dim, span, ffn) for _ in range(layers))
        self.norm = RMSNorm(dim)
        for made in self.blocks:  # residual branches start small, so that depth does not inflate the stream
            for linear in (made.attention.out, made.down):
                nn.init.normal_(linear.weight, std=0.02 / (2 * layers) ** 0.5)

    def forward(
        self, x: Tensor, valid: Tensor | None, window: int, start: int = 0, modulation: Tensor | None = None
    ) -> Tensor:
        """``x [batch, length, dim]``, ``valid [batch, length]`` bool or None → the same shape.

        Args:
            start: position of the first token; a multiple of ``span`` and of the window's tokens, so that pieces of a
                long sequence are computed as the whole is.
            modulation: what blocks of another kind take beside the tokens.
        """
        length = x.shape[1]
        missing = -length % self.span
        if missing:
            x = F.pad(x, (0, 0, 0, missing))
            if valid is None:
                valid = torch.ones(1, length, dtype=torch.bool, device=x.device)
            valid = F.pad(valid, (0, missing))
        rotary = rotary_table(x.shape[1], self.head_dim, x.device, start=start)
        block = window + 1 if self.block_causal else None
        mask = local_mask(x.shape[1], self.span, valid, block, x.device)
        for layer in self.blocks:
            x = layer(x, rotary, mask) if modulation is None else layer(x, rotary, mask, modulation)
        return self.norm(x)[:, :length]

    def extend(self, x: Tensor, pasts: list[Past] | None, window: int, start: int) -> tuple[Tensor, list[Past]]:
        """The next windows of a block-causal sequence, with the keys and values of the tokens before.

        Args:
            x: ``[batch, new, dim]``, whole windows.
            pasts: per block, as the call before returned them; None at the start of the sequence.
            start: position of the first new token.
        """
        if not self.block_causal:
            raise ValueError("only a block-causal transformer can be extended: others see later windows.")
        if pasts is None:
            nothing = x.new_zeros(len(x), x.shape[2] // self.head_dim, 0, self.head_dim)
            pasts = [(nothing, nothing)] * len(self.blocks)
        query = torch.arange(start, start + x.shape[1], device=x.device)[:, None]
        key = torch.arange(start - pasts[0][0].shape[2], start + x.shape[1], device=x.device)
        block = window + 1
        mask = ((query - key).abs() <= self.span) & (key // block <= query // block)
        rotary = rotary_table(x.shape[1], self.head_dim, x.device, start=start)
        following = []
        for layer, past in zip(self.blocks, pasts, strict=True):
            x, past = layer.extend(x, rotary, mask, past)
            following.append(past)
        return self.norm(x), following
