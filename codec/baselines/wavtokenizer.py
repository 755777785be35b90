"""WavTokenizer (Ji et al., 2024, arXiv 2408.16532): our own port, reading the public checkpoints.

24 kHz, one level of 4096 codes, 40 frames/s (0.48 kbit/s) or 75: a SEANet encoder, one codebook, and a Vocos decoder
(convolutions and attention over all frames, ConvNeXt blocks, inverse STFT). Not causal; its attention and group norms
run over the whole clip, so clips go through it one by one, as its authors advise.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from codec.baselines.baseline import BaselineTokenizer, check_levels
from codec.baselines.seanet import ResidualCodebooks, SEANetEncoder, own_keys
from codec.baselines.weights import PublicWeights, fold_weight_norm, load_every_key, read_weights
from codec.interface import TokenizerError

WEIGHTS = PublicWeights(
    name="wavtokenizer",
    repository="novateur/WavTokenizer-large-unify-40token",
    files=("*.ckpt",),
    size="about 1.8 GB, a training checkpoint",
    licence="code and weights MIT",
)
PARTS = ("feature_extractor.", "backbone.", "head.")  # the other keys are discriminators and losses of the training
UNUSED = (
    r"feature_extractor\.encodec\.decoder\.",  # EnCodec's decoder, which Vocos replaces
    r".*\._codebook\.(inited|cluster_size|embed_avg)$",  # state of the codebook's training
    r"head\.istft\.window$",  # a Hann window
)
# Trained conditions of the decoder's norms; the authors' inference always takes the first.
CONDITION = 0


@dataclass(frozen=True)
class WavTokenizerConfig:
    """Sizes of the network; the sample rate is the one of all published checkpoints."""

    ratios: list[int]
    codebook_size: int
    dim: int
    intermediate: int
    layers: int
    conditions: int
    filters: int
    latent: int
    n_fft: int
    hop: int
    sample_rate: int = 24000

    @classmethod
    def of(cls, state: dict[str, Tensor], file: Path) -> WavTokenizerConfig:
        """From the shapes of a checkpoint with our keys: its training configuration does not always lie beside it."""
        try:
            # Encoder: convolution, four times (residual block, ELU, strided convolution), …; kernels of two strides.
            ratios = [state[f"encoder.model.{3 * i}.conv.weight"].shape[-1] // 2 for i in (4, 3, 2, 1)]
            size, latent = state["quantizer.layers.0.embed"].shape
            dim = len(state["backbone.final_layer_norm.weight"])
            return cls(
                ratios=ratios,
                codebook_size=size,
                dim=dim,
                intermediate=len(state["backbone.convnext.0.pwconv1.bias"]),
                layers=len([key for key in state if re.fullmatch(r"backbone\.convnext\.\d+\.gamma", key)]),
                conditions=len(state["backbone.norm.scale.weight"]),
                filters=len(state["encoder.model.0.conv.bias"]),
                latent=latent,
                n_fft=len(state["head.out.bias"]) - 2,
                hop=math.prod(ratios),
            )
        except KeyError as error:
            raise TokenizerError(f"{file} is no WavTokenizer checkpoint: no value for {error.args[0]}.") from error


class ResnetBlock(nn.Module):
    """Two times group norm, SiLU, convolution over three frames."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(32, dim, eps=1e-6), nn.GroupNorm(32, dim, eps=1e-6)
        self.conv1, self.conv2 = nn.Conv1d(dim, dim, 3, padding=1), nn.Conv1d(dim, dim, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        silu = nn.functional.silu
        return x + self.conv2(silu(self.norm2(self.conv1(silu(self.norm1(x))))))


class AttentionBlock(nn.Module):
    """One head of attention over all frames."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(32, dim, eps=1e-6)
        self.q, self.k, self.v, self.proj_out = (nn.Conv1d(dim, dim, 1) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(x)
        q, k, v = (layer(h).transpose(1, 2) for layer in (self.q, self.k, self.v))
        return x + self.proj_out(nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2))


class ConditionedNorm(nn.Module):
    """Layer norm over channels whose scale and shift are rows of a table, one per condition."""

    def __init__(self, conditions: int, dim: int) -> None:
        super().__init__()
        self.scale, self.shift = nn.Embedding(conditions, dim), nn.Embedding(conditions, dim)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.layer_norm(x, x.shape[-1:], eps=1e-6)
        return x * self.scale.weight[CONDITION] + self.shift.weight[CONDITION]


class ConvNeXtBlock(nn.Module):
    """Depthwise convolution, conditioned norm and a two-layer perceptron per frame, scaled by gamma."""

    def __init__(self, dim: int, intermediate: int, conditions: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv1d(dim, dim, 7, padding=3, groups=dim)
        self.norm = ConditionedNorm(conditions, dim)
        self.pwconv1, self.pwconv2 = nn.Linear(dim, intermediate), nn.Linear(intermediate, dim)
        self.gamma = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(self.dwconv(x).transpose(1, 2))
        h = self.gamma * self.pwconv2(nn.functional.gelu(self.pwconv1(h)))
        return x + h.transpose(1, 2)


class VocosBackbone(nn.Module):
    """``[batch, latent, frames]`` → ``[batch, frames, dim]``."""

    def __init__(self, config: WavTokenizerConfig) -> None:
        super().__init__()
        dim = config.dim
        self.embed = nn.Conv1d(config.latent, dim, 7, padding=3)
        self.pos_net = nn.Sequential(
            ResnetBlock(dim),
            ResnetBlock(dim),
            AttentionBlock(dim),
            ResnetBlock(dim),
            ResnetBlock(dim),
            nn.GroupNorm(32, dim, eps=1e-6),
        )
        self.norm = ConditionedNorm(config.conditions, dim)
        self.convnext = nn.ModuleList(
            ConvNeXtBlock(dim, config.intermediate, config.conditions) for _ in range(config.layers)
        )
        self.final_layer_norm = nn.LayerNorm(dim, eps=1e-6)

    def forward(self, latents: Tensor) -> Tensor:
        x = self.norm(self.pos_net(self.embed(latents)).transpose(1, 2)).transpose(1, 2)
        for block in self.convnext:
            x = block(x)
        return self.final_layer_norm(x.transpose(1, 2))


class SpectrumHead(nn.Module):
    """Log magnitude and phase per frame, overlap-added: ``[batch, frames, dim]`` → ``wav [batch, frames * hop]``."""

    window: Tensor

    def __init__(self, dim: int, n_fft: int, hop: int) -> None:
        super().__init__()
        self.out = nn.Linear(dim, n_fft + 2)
        self.n_fft, self.hop = n_fft, hop
        self.register_buffer("window", torch.hann_window(n_fft), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        magnitude, phase = self.out(x).transpose(1, 2).chunk(2, dim=1)
        spectrum = torch.polar(magnitude.exp().clamp(max=1e2), phase)  # the published limit
        pieces = torch.fft.irfft(spectrum, self.n_fft, dim=1) * self.window[:, None]
        weights = self.window.square()[None, :, None].expand(1, -1, x.shape[1])
        return self._overlap_add(pieces) / self._overlap_add(weights)

    def _overlap_add(self, pieces: Tensor) -> Tensor:
        """``[batch, n_fft, frames]`` → ``[batch, frames * hop]``: the middle of the sum ("same" padding)."""
        length = (pieces.shape[2] - 1) * self.hop + self.n_fft
        summed = nn.functional.fold(pieces, (1, length), (1, self.n_fft), stride=(1, self.hop))[:, 0, 0]
        edge = (self.n_fft - self.hop) // 2
        return summed[:, edge : length - edge]


class WavTokenizerModel(nn.Module):
    """Encoder, codebook and Vocos decoder."""

    def __init__(self, config: WavTokenizerConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = SEANetEncoder(config.filters, config.latent, config.ratios)
        self.quantizer = ResidualCodebooks(1, config.codebook_size, config.latent)
        self.backbone = VocosBackbone(config)
        self.head = SpectrumHead(config.dim, config.n_fft, config.hop)


def read_checkpoint(file: Path) -> WavTokenizerModel:
    """The model of a Lightning checkpoint; every key of its ``state_dict`` below PARTS is used or matches UNUSED."""
    values = {k: v for k, v in read_weights(file).items() if k.startswith(PARTS)}
    state = {k: v.float() if v.is_floating_point() else v for k, v in values.items()}
    prefix = "feature_extractor.encodec."
    state = {
        key.replace(f"{prefix}encoder.", "encoder.").replace(f"{prefix}quantizer.vq.", "quantizer."): value
        for key, value in own_keys(fold_weight_norm(state)).items()
    }
    model = WavTokenizerModel(WavTokenizerConfig.of(state, file))
    load_every_key(model, state, UNUSED, file)
    return model


class WavTokenizer(BaselineTokenizer):
    """WavTokenizer: always one level."""

    name = "wavtokenizer"

    def __init__(self, model: WavTokenizerModel, levels: int = 1) -> None:
        config = model.config
        check_levels("wavtokenizer", levels, 1)
        super().__init__(model, config.sample_rate, math.prod(config.ratios), (config.codebook_size,), causal=False)

    def encode_clip(self, wav: Tensor) -> Tensor:
        return self.model.quantizer.encode(self.model.encoder(wav[:, None]), 1)

    def decode_clip(self, codes: Tensor) -> Tensor:
        return self.model.head(self.model.backbone(self.model.quantizer.decode(codes)))


def load(path: str = WEIGHTS.repository, levels: int = 1, device: str | torch.device = "cpu") -> WavTokenizer:
    """WavTokenizer from a checkpoint file (.ckpt), a folder that holds one, or a hub id.

    Raises:
        TokenizerError: no weights, several of them, another model, or more than one level.
    """
    file = Path(path) if Path(path).is_file() else WEIGHTS.file(WEIGHTS.folder(path), "*.ckpt")
    return WavTokenizer(read_checkpoint(file), levels).to(device)
