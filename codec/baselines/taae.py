"""The transformer autoencoder (TAAE) of StableCodec (Parker et al., 2024, arXiv 2411.19842, section 2.1).

Blocks of a strided convolution and pre-norm transformer layers. Attention is local: a position sees ``window[0]``
positions before and ``window[1]`` after itself. The published implementation leaves that to FlashAttention and, without
it, silently attends to everything; here it is computed in blocks with a band mask, on any device.

Module numbers inside ``layers`` are those of the public checkpoints; weight normalisation is folded into the weights
when they are loaded (weights.py).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

HEAD_DIM = 128
NORM_EPS = 1e-2  # of the norms before attention and feed-forward
CONFORMER_KERNEL = 17


@dataclass(frozen=True)
class TAAEConfig:
    """One of the two halves; keys and defaults of the public configurations.

    Attributes:
        channels: width unit; level i is ``c_mults[i] * channels`` wide.
        strides, transformer_depths: per level, from the waveform's side.
        sliding_window: positions before and after its own that a position attends to; −1 for all.
    """

    channels: int = 128
    latent_dim: int = 32
    c_mults: tuple[int, ...] = (1, 2, 4, 8)
    strides: tuple[int, ...] = (2, 4, 8, 8)
    transformer_depths: tuple[int, ...] = (3, 3, 3, 3)
    use_snake: bool = False
    sliding_window: tuple[int, int] = (63, 64)
    conformer: bool = False
    layer_scale: bool = True
    use_dilated_conv: bool = False

    def __post_init__(self) -> None:
        if not len(self.c_mults) == len(self.strides) == len(self.transformer_depths):
            raise ValueError("c_mults, strides and transformer_depths must name the same number of levels.")
        widths = self.widths
        for i, stride in enumerate(self.strides):
            if stride == 1 and widths[i] != widths[i + 1]:
                raise ValueError(
                    f"level {i} with stride 1 cannot change its width from {widths[i]} to {widths[i + 1]}."
                )

    @property
    def widths(self) -> list[int]:
        """Channels before the first level and after each."""
        return [self.c_mults[0] * self.channels, *(multiple * self.channels for multiple in self.c_mults)]


class SnakeBeta(nn.Module):
    """x + sin²(αx) / β per channel, both stored as logarithms (Lee et al., 2023)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.alpha, self.beta = nn.Parameter(torch.zeros(channels)), nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        alpha, beta = self.alpha.exp()[:, None], self.beta.exp()[:, None]
        return x + torch.sin(alpha * x).square() / (beta + 1e-9)


class DilatedUnit(nn.Module):
    """Two convolutions beside the identity."""

    def __init__(self, channels: int, dilation: int, snake: bool) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            SnakeBeta(channels) if snake else nn.ELU(),
            nn.Conv1d(channels, channels, 7, dilation=dilation, padding=3 * dilation),
            SnakeBeta(channels) if snake else nn.ELU(),
            nn.Conv1d(channels, channels, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


class Norm(nn.Module):
    """Layer norm with the checkpoints' names."""

    beta: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(dim))
        self.register_buffer("beta", torch.zeros(dim))

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], self.gamma, self.beta, NORM_EPS)


class LayerScale(nn.Module):
    """A learnt factor per channel."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale


class GLU(nn.Module):
    """A linear map gated by the SiLU of another."""

    def __init__(self, dim: int, inner: int) -> None:
        super().__init__()
        self.proj = nn.Linear(dim, 2 * inner)

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.proj(x).chunk(2, dim=-1)
        return value * F.silu(gate)


class FeedForward(nn.Module):
    """Gated, four times the width."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.ff = nn.Sequential(GLU(dim, 4 * dim), nn.Identity(), nn.Linear(4 * dim, dim))

    def forward(self, x: Tensor) -> Tensor:
        return self.ff(x)


class Conformer(nn.Module):
    """Convolution over time between two pointwise maps."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.in_norm, self.mid_norm = Norm(dim), Norm(dim)
        self.pointwise_conv = nn.Conv1d(dim, dim, 1, bias=False)
        self.glu = GLU(dim, dim)
        self.depthwise_conv = nn.Conv1d(
            dim, dim, CONFORMER_KERNEL, groups=dim, padding=CONFORMER_KERNEL // 2, bias=False
        )
        self.pointwise_conv_2 = nn.Conv1d(dim, dim, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pointwise_conv(self.in_norm(x).transpose(1, 2)).transpose(1, 2)
        x = self.depthwise_conv(self.glu(x).transpose(1, 2)).transpose(1, 2)
        return self.pointwise_conv_2(F.silu(self.mid_norm(x)).transpose(1, 2)).transpose(1, 2)


class RotaryHalf(nn.Module):
    """Rotary positions on the first half of each head's dimensions; the checkpoints store the frequencies."""

    inv_freq: Tensor

    def __init__(self, head_dim: int) -> None:
        super().__init__()
        dim = head_dim // 2
        self.register_buffer("inv_freq", 1.0 / 10000 ** (torch.arange(0, dim, 2).float() / dim))

    def forward(self, x: Tensor) -> Tensor:
        """Turn ``x [batch, heads, length, head_dim]``."""
        angles = torch.arange(x.shape[-2], device=x.device).float()[:, None] * self.inv_freq
        a, b, rest = x.tensor_split((len(self.inv_freq), 2 * len(self.inv_freq)), dim=-1)
        cos, sin = angles.cos(), angles.sin()
        return torch.cat((a * cos - b * sin, b * cos + a * sin, rest), dim=-1)


def banded_attention(q: Tensor, k: Tensor, v: Tensor, window: tuple[int, int]) -> Tensor:
    """Position i attends to i − window[0] … i + window[1] (−1: to the end); tensors ``[batch, heads, length, dim]``.

    Queries go in blocks as long as the band, each with the keys that it can reach: memory grows with the length and
    not with its square.
    """
    length = q.shape[2]
    before, after = (length if side < 0 else side for side in window)
    block = max(1, before + after)
    outputs = []
    for start in range(0, length, block):
        end = min(length, start + block)
        low, high = max(0, start - before), min(length, end + after)
        offset = torch.arange(low, high, device=q.device) - torch.arange(start, end, device=q.device)[:, None]
        mask = (offset >= -before) & (offset <= after)
        outputs.append(
            F.scaled_dot_product_attention(q[:, :, start:end], k[:, :, low:high], v[:, :, low:high], attn_mask=mask)
        )
    return torch.cat(outputs, dim=2)


class Attention(nn.Module):
    """Local self-attention with normalised queries and keys."""

    def __init__(self, dim: int, window: tuple[int, int]) -> None:
        super().__init__()
        self.head_dim = min(HEAD_DIM, dim)
        self.window = window
        self.to_qkv, self.to_out = nn.Linear(dim, 3 * dim, bias=False), nn.Linear(dim, dim, bias=False)
        self.q_norm, self.k_norm = nn.LayerNorm(self.head_dim, eps=1e-6), nn.LayerNorm(self.head_dim, eps=1e-6)

    def forward(self, x: Tensor, rope: RotaryHalf) -> Tensor:
        q, k, v = (t.unflatten(2, (-1, self.head_dim)).transpose(1, 2) for t in self.to_qkv(x).chunk(3, dim=-1))
        q, k = rope(self.q_norm(q)), rope(self.k_norm(k))
        return self.to_out(banded_attention(q, k, v, self.window).transpose(1, 2).flatten(2))


class TransformerLayer(nn.Module):
    """Attention, perhaps a conformer's convolution, feed-forward; ``[batch, length, dim]``."""

    def __init__(self, dim: int, config: TAAEConfig) -> None:
        super().__init__()

        def scale() -> nn.Module:
            return LayerScale(dim) if config.layer_scale else nn.Identity()

        self.pre_norm, self.ff_norm = Norm(dim), Norm(dim)
        self.rope = RotaryHalf(min(HEAD_DIM, dim))
        self.self_attn, self.self_attn_scale = Attention(dim, config.sliding_window), scale()
        self.ff, self.ff_scale = FeedForward(dim), scale()
        self.conformer = Conformer(dim) if config.conformer else None
        self.conformer_scale = scale() if config.conformer else None

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.self_attn_scale(self.self_attn(self.pre_norm(x), self.rope))
        if self.conformer is not None and self.conformer_scale is not None:
            x = x + self.conformer_scale(self.conformer(x))
        return x + self.ff_scale(self.ff(self.ff_norm(x)))


class Transpose(nn.Module):
    """``[batch, a, b]`` → ``[batch, b, a]``."""

    def forward(self, x: Tensor) -> Tensor:
        return x.transpose(1, 2)


class Level(nn.Module):
    """A strided convolution down and transformer layers, or the layers and a transposed convolution up."""

    def __init__(self, inputs: int, outputs: int, stride: int, depth: int, config: TAAEConfig, down: bool) -> None:
        super().__init__()
        inner = inputs if down else outputs  # the dilated units are on the waveform's side
        units = [DilatedUnit(inner, dilation, config.use_snake) for dilation in (1, 3, 9)]
        snake = SnakeBeta(inputs) if config.use_snake else nn.Identity()
        shape = dict(kernel_size=2 * stride, stride=stride, padding=math.ceil(stride / 2))
        dim = outputs if down else inputs
        layers = nn.Sequential(Transpose(), *(TransformerLayer(dim, config) for _ in range(depth)), Transpose())
        conv: nn.Module = nn.Identity()
        if stride > 1:
            conv = nn.Conv1d(inputs, outputs, **shape) if down else nn.ConvTranspose1d(inputs, outputs, **shape)
        extra = units if config.use_dilated_conv else []
        self.layers = nn.Sequential(*(*extra, snake, conv, layers) if down else (layers, snake, conv, *extra))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class TAAEEncoder(nn.Module):
    """``[batch, inputs, length]`` → latents ``[batch, latent_dim, length / prod(strides)]``."""

    def __init__(self, inputs: int, config: TAAEConfig) -> None:
        super().__init__()
        widths = config.widths
        sizes = zip(widths, widths[1:], config.strides, config.transformer_depths, strict=False)
        self.layers = nn.Sequential(
            nn.Conv1d(inputs, widths[0], 7, padding=3),
            *(Level(*size, config, down=True) for size in sizes),
            SnakeBeta(widths[-1]) if config.use_snake else nn.Identity(),
            nn.Conv1d(widths[-1], config.latent_dim, 3, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class TAAEDecoder(nn.Module):
    """Latents → ``[batch, outputs, length]``, the mirror of the encoder."""

    def __init__(self, outputs: int, config: TAAEConfig) -> None:
        super().__init__()
        widths = config.widths
        sizes = list(zip(widths[1:], widths, config.strides, config.transformer_depths, strict=False))
        self.layers = nn.Sequential(
            nn.Conv1d(config.latent_dim, widths[-1], 3, padding=1),
            *(Level(*size, config, down=False) for size in reversed(sizes)),
            SnakeBeta(widths[0]) if config.use_snake else nn.Identity(),
            nn.Conv1d(widths[0], outputs, 7, padding=3, bias=False),
        )

    def forward(self, latents: Tensor) -> Tensor:
        return self.layers(latents)
