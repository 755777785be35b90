"""The SEANet encoder and decoder of EnCodec (Défossez et al., 2022, section 3.1) in the variant without causality.

SpeechTokenizer and WavTokenizer are built on it. Module numbers inside ``model`` are those of the public checkpoints;
weight normalisation is folded into the weights when they are loaded (weights.py).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Snake(nn.Module):
    """x + sin²(αx) / α per channel (Ziyin et al., 2020)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.ones(1, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.sin(self.alpha * x).square() / (self.alpha + 1e-9)


def activation(name: str, channels: int) -> nn.Module:
    """``ELU`` or ``Snake``: the two of the public checkpoints."""
    if name == "ELU":
        return nn.ELU()
    if name == "Snake":
        return Snake(channels)
    raise ValueError(f"activation '{name}' is neither ELU nor Snake.")


class PaddedConv1d(nn.Module):
    """Convolution that gives ceil(length / stride) frames: reflected padding, its odd sample at the left, and on the
    right as many more as fill the last stride."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, dilation: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv1d(inputs, outputs, kernel, stride, dilation=dilation)
        self.stride = stride
        self.overlap = (kernel - 1) * dilation + 1 - stride

    def forward(self, x: Tensor) -> Tensor:
        right = self.overlap // 2
        left = self.overlap - right
        right += -x.shape[-1] % self.stride
        # Reflection needs more samples than padding: a shorter clip gets zeros first, which are cut off afterwards.
        zeros = max(0, max(left, right) + 1 - x.shape[-1])
        x = nn.functional.pad(nn.functional.pad(x, (0, zeros)), (left, right), mode="reflect")
        return self.conv(x[..., : x.shape[-1] - zeros])


class TrimmedConvTranspose1d(nn.Module):
    """Transposed convolution that gives length * stride samples; the odd one of the overlap goes at the left."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.conv = nn.ConvTranspose1d(inputs, outputs, kernel, stride)
        self.overlap = kernel - stride

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        right = self.overlap // 2
        return x[..., self.overlap - right : x.shape[-1] - right]


class ResidualBlock(nn.Module):
    """Two convolutions beside a 1x1 one; the middle has half the channels."""

    def __init__(self, channels: int, kernel: int, dilation: int, act: str) -> None:
        super().__init__()
        self.block = nn.Sequential(
            activation(act, channels),
            PaddedConv1d(channels, channels // 2, kernel, dilation=dilation),
            activation(act, channels // 2),
            PaddedConv1d(channels // 2, channels, 1),
        )
        self.shortcut = PaddedConv1d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.shortcut(x) + self.block(x)


class ResidualLSTM(nn.Module):
    """LSTM over time plus its input; both directions double the channels."""

    def __init__(self, channels: int, layers: int, bidirectional: bool) -> None:
        super().__init__()
        self.lstm = nn.LSTM(channels, channels, layers, bidirectional=bidirectional, batch_first=True)
        self.repeats = 2 if bidirectional else 1

    def forward(self, x: Tensor) -> Tensor:
        y = self.lstm(x.transpose(1, 2))[0]
        return y.transpose(1, 2) + x.repeat(1, self.repeats, 1)


class SEANetEncoder(nn.Module):
    """``wav [batch, 1, samples]`` → latents ``[batch, dim, ceil(samples / prod(ratios))]``.

    Args:
        filters: channels of the first layer; they double at each stride.
        ratios: strides in the DECODER's order, as the public configurations give them.
    """

    def __init__(
        self,
        filters: int,
        dim: int,
        ratios: list[int],
        lstm_layers: int = 2,
        bidirectional: bool = False,
        residual_layers: int = 1,
        residual_kernel: int = 3,
        dilation_base: int = 2,
        act: str = "ELU",
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = [PaddedConv1d(1, filters, 7)]
        for ratio in reversed(ratios):
            layers += [ResidualBlock(filters, residual_kernel, dilation_base**j, act) for j in range(residual_layers)]
            layers += [activation(act, filters), PaddedConv1d(filters, 2 * filters, 2 * ratio, stride=ratio)]
            filters *= 2
        layers.append(ResidualLSTM(filters, lstm_layers, bidirectional))
        filters *= 2 if bidirectional else 1
        layers += [activation(act, filters), PaddedConv1d(filters, dim, 7)]
        self.model = nn.Sequential(*layers)

    def forward(self, wav: Tensor) -> Tensor:
        return self.model(wav)


class SEANetDecoder(nn.Module):
    """Latents ``[batch, dim, frames]`` → ``wav [batch, 1, frames * prod(ratios)]``; arguments as the encoder's."""

    def __init__(
        self,
        filters: int,
        dim: int,
        ratios: list[int],
        lstm_layers: int = 2,
        residual_layers: int = 1,
        residual_kernel: int = 3,
        dilation_base: int = 2,
        act: str = "ELU",
    ) -> None:
        super().__init__()
        filters *= 2 ** len(ratios)
        layers: list[nn.Module] = [PaddedConv1d(dim, filters, 7), ResidualLSTM(filters, lstm_layers, False)]
        for ratio in ratios:
            layers += [activation(act, filters), TrimmedConvTranspose1d(filters, filters // 2, 2 * ratio, ratio)]
            filters //= 2
            layers += [ResidualBlock(filters, residual_kernel, dilation_base**j, act) for j in range(residual_layers)]
        layers += [activation(act, filters), PaddedConv1d(filters, 1, 7)]
        self.model = nn.Sequential(*layers)

    def forward(self, latents: Tensor) -> Tensor:
        return self.model(latents)


class ResidualCodebooks(nn.Module):
    """Residual nearest-neighbour codebooks ``[levels, size, dim]`` at the latents' own width (EnCodec's quantiser)."""

    def __init__(self, levels: int, size: int, dim: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Codebook(size, dim) for _ in range(levels))

    def encode(self, latents: Tensor, levels: int) -> Tensor:
        """``[batch, dim, frames]`` → codes ``[batch, levels, frames]``."""
        residual = latents.transpose(1, 2)
        codes = []
        for layer in list(self.layers)[:levels]:
            # |r − c|² = |r|² − 2 r·c + |c|², in the published order of operations: it decides near-ties.
            distance = residual.square().sum(-1, keepdim=True) - 2 * residual @ layer.embed.T
            codes.append((distance + layer.embed.square().sum(1)).argmin(-1))
            residual = residual - layer.embed[codes[-1]]
        return torch.stack(codes, dim=1)

    def decode(self, codes: Tensor) -> Tensor:
        """Codes ``[batch, levels, frames]`` (the first levels suffice) → ``[batch, dim, frames]``."""
        # As published, the sum starts at the first level.
        total = self.layers[0].embed[codes[:, 0]]
        for level in range(1, codes.shape[1]):
            total = total + self.layers[level].embed[codes[:, level]]
        return total.transpose(1, 2)


class Codebook(nn.Module):
    """One level's codewords ``embed [size, dim]``."""

    embed: Tensor

    def __init__(self, size: int, dim: int) -> None:
        super().__init__()
        self.register_buffer("embed", torch.zeros(size, dim))


def own_keys(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Checkpoint keys of SEANet and its codebooks → those of the classes here (public layers are wrapped once more)."""
    renamed = {}
    for key, value in state.items():
        key = key.replace(".convtr.convtr.", ".conv.").replace(".conv.conv.", ".conv.")
        renamed[key.replace("._codebook.embed", ".embed") if key.endswith("._codebook.embed") else key] = value
    return renamed
