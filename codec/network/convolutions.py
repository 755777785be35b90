"""Waveform ⇄ frames by strided convolutions: the paper's patchify and its mirror (``conv``).

They follow the SEANet encoder and decoder of EnCodec (Défossez et al., 2022): a convolution, one residual unit and
one strided convolution per ratio (2 · 4 · 5 · 8 = 320 samples per frame at 24 kHz), channels doubling each time. Two
differences, both ours: no LSTM (the transformers stand right behind), and no weight normalisation (as Mimi).

Padding is with zeros, and whatever lies beyond a clip's last frame is set to zero before each convolution, so a clip in
a padded batch gives the same frames as alone. ``causal`` pads on the left only: no frame depends on later samples.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from codec.network.patchify import Synthesis
from codec.network.waveform_frames import Patchify


def silence_padding(x: Tensor, valid: Tensor | None) -> Tensor:
    """Zero ``x [batch, channels, time]`` where ``valid [batch, frames]`` is False; ``time`` is k ``frames``."""
    if valid is None:
        return x
    return x * valid.repeat_interleave(x.shape[2] // valid.shape[1], dim=1)[:, None].to(x.dtype)


class SameConv(nn.Conv1d):
    """Convolution that keeps the length; ``causal``: an output sees no later input."""

    def __init__(self, inputs: int, outputs: int, kernel: int, dilation: int = 1, causal: bool = False) -> None:
        super().__init__(inputs, outputs, kernel, dilation=dilation)
        reach = (kernel - 1) * dilation
        self.sides = (reach, 0) if causal else (reach // 2, reach - reach // 2)

    def forward(self, x: Tensor) -> Tensor:
        """``[batch, inputs, time]`` → ``[batch, outputs, time]``."""
        return super().forward(F.pad(x, self.sides))

    def inputs(self, low: int, high: int) -> tuple[int, int]:
        """First and last input that the outputs ``low … high`` depend on."""
        return low - self.sides[0], high + self.sides[1]


class DownConv(nn.Conv1d):
    """Strided convolution, kernel twice the stride: ``[batch, inputs, time]`` → ``[batch, outputs, time / stride]``."""

    def __init__(self, inputs: int, outputs: int, stride: int, causal: bool) -> None:
        super().__init__(inputs, outputs, 2 * stride, stride=stride)
        self.sides = (stride, 0) if causal else (stride - stride // 2, stride // 2)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.pad(x, self.sides))

    def inputs(self, low: int, high: int) -> tuple[int, int]:
        """First and last input that the outputs ``low … high`` depend on."""
        return low * self.stride[0] - self.sides[0], high * self.stride[0] - self.sides[0] + self.kernel_size[0] - 1


class UpConv(nn.ConvTranspose1d):
    """Transposed convolution: ``[batch, inputs, time]`` → ``[batch, outputs, time * stride]``."""

    def __init__(self, inputs: int, outputs: int, stride: int, causal: bool) -> None:
        super().__init__(inputs, outputs, 2 * stride, stride=stride)
        self.trim = 0 if causal else stride // 2

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        length = x.shape[2] * self.stride[0]
        return super().forward(x)[:, :, self.trim : self.trim + length]

    def inputs(self, low: int, high: int) -> tuple[int, int]:
        """First and last input that the outputs ``low … high`` depend on."""
        low, high = low + self.trim, high + self.trim
        return -(-(low - self.kernel_size[0] + 1) // self.stride[0]), high // self.stride[0]


class ResidualUnit(nn.Module):
    """ELU, a convolution to ``hidden`` channels (None: half of them), ELU, a pointwise one back; added to the input."""

    def __init__(
        self, channels: int, causal: bool, hidden: int | None = None, kernel: int = 3, dilation: int = 1
    ) -> None:
        super().__init__()
        hidden = hidden or channels // 2
        self.inner = SameConv(channels, hidden, kernel, dilation, causal)
        self.outer = SameConv(hidden, channels, 1)

    def forward(self, x: Tensor, valid: Tensor | None) -> Tensor:
        y = self.inner(silence_padding(F.elu(x), valid))
        return x + self.outer(F.elu(y))


class Levelled(nn.Module):
    """An end of the codec that works on the waveform divided by ``level``, about its RMS."""

    level: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("level", torch.tensor(0.1))

    @torch.no_grad()
    def calibrate(self, batches: Sequence[Tensor]) -> None:
        """Set the level that counts as 1 from training audio, each ``[batch, samples]``."""
        squares = sum(wav.double().square().sum() for wav in batches) / sum(wav.numel() for wav in batches)
        self.level.copy_(squares.sqrt().clamp(min=1e-3))


class ConvPatchify(Levelled, Patchify):
    """SEANet encoder.

    Args:
        filters: channels of the first convolution; doubled at each ratio.
        ratios: strides, first the one next to the waveform; their product is the hop.
    """

    def __init__(self, dim: int, filters: int, ratios: tuple[int, ...], causal: bool) -> None:
        super().__init__()
        self.hop = math.prod(ratios)
        widths = [filters * 2**i for i in range(len(ratios) + 1)]
        self.first = SameConv(1, filters, 7, causal=causal)
        self.units = nn.ModuleList(ResidualUnit(width, causal) for width in widths[:-1])
        self.downs = nn.ModuleList(
            DownConv(a, b, stride, causal) for a, b, stride in zip(widths, widths[1:], ratios, strict=False)
        )
        self.last = SameConv(widths[-1], dim, 7, causal=causal)

    def forward(self, wav: Tensor, valid: Tensor | None = None) -> Tensor:
        """``wav [batch, frames * hop]``, ``valid [batch, frames]`` → ``[batch, frames, dim]``."""
        x = self.first(silence_padding((wav / self.level)[:, None], valid))
        for unit, down in zip(self.units, self.downs, strict=True):
            x = down(silence_padding(F.elu(unit(x, valid)), valid))
        return self.last(silence_padding(F.elu(x), valid)).transpose(1, 2)

    @property
    def reach(self) -> tuple[int, int]:
        low, high = self.last.inputs(0, 0)
        for unit, down in zip(reversed(self.units), reversed(self.downs), strict=True):
            low, high = unit.inner.inputs(*down.inputs(low, high))
        low, high = self.first.inputs(low, high)
        return -(low // self.hop), high // self.hop


class ConvUnpatchify(Levelled):
    """SEANet decoder: the mirror of :class:`ConvPatchify` (``ratios`` are given in the encoder's order)."""

    def __init__(self, dim: int, filters: int, ratios: tuple[int, ...], causal: bool) -> None:
        super().__init__()
        self.hop = math.prod(ratios)
        widths = [filters * 2**i for i in range(len(ratios), -1, -1)]
        self.first = SameConv(dim, widths[0], 7, causal=causal)
        self.ups = nn.ModuleList(
            UpConv(a, b, stride, causal) for a, b, stride in zip(widths, widths[1:], reversed(ratios), strict=False)
        )
        self.units = nn.ModuleList(ResidualUnit(width, causal) for width in widths[1:])
        self.last = SameConv(filters, 1, 7, causal=causal)

    def forward(
        self,
        frames: Tensor,
        noise_offset: int = 0,
        valid: Tensor | None = None,
        pulse_start: Tensor | None = None,
        tone_start: Tensor | None = None,
    ) -> Synthesis:
        """``frames [batch, frames, dim]`` → ``wav [batch, frames * hop]``; no noise and no pulses are used."""
        x = self.first(silence_padding(frames.transpose(1, 2), valid))
        for up, unit in zip(self.ups, self.units, strict=True):
            x = unit(up(silence_padding(F.elu(x), valid)), valid)
        wav = self.last(silence_padding(F.elu(x), valid))
        return Synthesis(silence_padding(wav, valid)[:, 0].float() * self.level, None)

    @property
    def reach(self) -> tuple[int, int]:
        """Frames before and after its own that a frame of the waveform depends on."""
        low, high = self.last.inputs(0, self.hop - 1)
        for unit, up in zip(reversed(self.units), reversed(self.ups), strict=True):
            low, high = up.inputs(*unit.inner.inputs(low, high))
        low, high = self.first.inputs(low, high)
        return -low, high


def check_ratios(ratios: tuple[int, ...], hop: int) -> None:
    """Refuse strides whose product is not the hop."""
    if math.prod(ratios) != hop:
        raise ValueError(f"conv_ratios {list(ratios)} multiply to {math.prod(ratios)}, not to hop={hop}.")
