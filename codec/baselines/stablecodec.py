"""StableCodec (Parker et al., 2024, arXiv 2411.19842): our own port, reading the public checkpoints.

16 kHz, 25 frames/s, a transformer autoencoder of about 950 M parameters (taae.py). Its own bottleneck has 17⁶ codes; a
language model uses one of the published post-hoc bottlenecks instead, chosen by the level count: 1 level of 46,656
codes (preset ``1x46656_400bps``, the default: 388 bit/s), 2 levels of 15,625 or 4 levels of 729. Not causal.

Audio is brought to −20 LUFS before it is encoded, as its authors advise and as their code does with a file; what comes
out is as loud as that, and not as the input.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.signal import lfilter
from torch import Tensor, nn

from codec.baselines.baseline import BaselineTokenizer
from codec.baselines.taae import TAAEConfig, TAAEDecoder, TAAEEncoder
from codec.baselines.weights import PublicWeights, fold_weight_norm, load_every_key, read_weights
from codec.interface import TokenizerError

WEIGHTS = PublicWeights(
    name="stablecodec",
    repository="stabilityai/stable-codec-speech-16k",
    files=("model_config.json", "model.*"),
    size="about 3.8 GB",
    licence="code MIT, weights Stability AI Community Licence, to be accepted on the hub first",
)
UNUSED = (
    r"bottleneck\.",  # the bottleneck of the training
    r"proj_head\.",  # phonemes from latents, for a loss
)
# Codes per dimension and scale of each level: the presets that StableCodec publishes.
PRESETS: dict[int, list[tuple[int, float]]] = {
    1: [(6, 1.0)],
    2: [(5, 1.0), (5, 0.25)],
    4: [(3, 1.0), (3, 0.5), (3, 0.25), (3, 0.125)],
}
LOUDNESS = -20.0  # LUFS
SILENCE = 1e-6  # mean square below which a clip keeps its level


@dataclass(frozen=True)
class StableCodecConfig:
    """What model_config.json says of the network.

    Attributes:
        patch: samples that stand side by side as channels before the encoder; 1 for none.
        soft_clip: tanh on the waveform.
    """

    encoder: TAAEConfig
    decoder: TAAEConfig
    sample_rate: int
    hop: int
    patch: int = 1
    soft_clip: bool = False

    @classmethod
    def read(cls, file: Path) -> StableCodecConfig:
        """From model_config.json; TokenizerError where it asks for what this port does not have."""
        try:
            values = json.loads(file.read_text(encoding="utf-8"))
            model = values["model"]
            pretransform = model.get("pretransform") or {"type": "patched", "config": {"patch_size": 1}}
            if pretransform["type"] != "patched" or pretransform["config"].get("oversampling", 1) != 1:
                raise TokenizerError(f"{file}: only the pretransform 'patched' is supported.")
            if model["io_channels"] != 1:
                raise TokenizerError(f"{file}: {model['io_channels']} channels; only mono is supported.")
            config = cls(
                _half(model["encoder"], "encoder", file),
                _half(model["decoder"], "decoder", file),
                values["sample_rate"],
                model["downsampling_ratio"],
                pretransform["config"]["patch_size"],
                model["decoder"].get("soft_clip", False),
            )
        except (KeyError, TypeError, json.JSONDecodeError) as error:
            raise TokenizerError(f"{file} is no StableCodec configuration: {error!r}") from error
        for name, half in (("encoder", config.encoder), ("decoder", config.decoder)):
            if config.patch * math.prod(half.strides) != config.hop:
                raise TokenizerError(f"{file}: the {name}'s strides do not make {config.hop} samples per frame.")
        return config


def _half(values: dict[str, Any], name: str, file: Path) -> TAAEConfig:
    """The configuration of the encoder or the decoder."""
    if values["type"] != "taae":
        raise TokenizerError(f"{file}: the {name} is of type '{values['type']}' and not 'taae'.")
    known = {field.name for field in fields(TAAEConfig)}
    # Channels at the waveform's end follow from the patch size; checkpointing belongs to the training.
    given: dict[str, Any] = {
        k: v for k, v in values["config"].items() if k not in ("in_channels", "out_channels", "checkpointing")
    }
    unknown = sorted(given.keys() - known)
    if unknown:
        raise TokenizerError(f"{file}: the {name} has a key '{unknown[0]}' that this port does not know.")
    given = {k: tuple(v) if isinstance(v, list) else v for k, v in given.items()}
    try:
        return TAAEConfig(**given)
    except ValueError as error:
        raise TokenizerError(f"{file}: {name}: {error}") from error


class StableCodecModel(nn.Module):
    """Patches, encoder, decoder; the bottleneck is :class:`ScalarLevels`."""

    def __init__(self, config: StableCodecConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = TAAEEncoder(config.patch, config.encoder)
        self.decoder = TAAEDecoder(config.patch, config.decoder)

    def encode(self, wav: Tensor) -> Tensor:
        """``wav [batch, frames * hop]`` → latents ``[batch, latent_dim, frames]``."""
        return self.encoder(wav.unflatten(1, (-1, self.config.patch)).transpose(1, 2))

    def decode(self, latents: Tensor) -> Tensor:
        """Latents → ``wav [batch, about frames * hop]``."""
        wav = self.decoder(latents).transpose(1, 2).flatten(1)
        return torch.tanh(wav) if self.config.soft_clip else wav

    def load_checkpoint(self, file: Path) -> None:
        """Read model.safetensors or model.ckpt; every key of it is used or listed in UNUSED."""
        state = {key: value.float() for key, value in read_weights(file).items()}
        load_every_key(self, fold_weight_norm(state), UNUSED, file)


class ScalarLevels(nn.Module):
    """Post-hoc residual scalar quantisation of tanh(latents), in double precision as published.

    Args:
        stages: per level the values per dimension and the range ±scale that they divide.
    """

    def __init__(self, stages: list[tuple[int, float]], dim: int) -> None:
        super().__init__()
        self.stages, self.dim = stages, dim

    def encode(self, latents: Tensor) -> Tensor:
        """``[batch, dim, frames]`` → codes ``[batch, levels, frames]``."""
        residual = torch.tanh(latents.double())
        codes = []
        for values, scale in self.stages:
            step = _step(values, scale)
            digits = ((residual + scale) / step).round()
            residual = residual - (digits * step - scale)
            place = values ** torch.arange(self.dim, device=latents.device)
            codes.append((digits.long() * place[:, None]).sum(1))
        return torch.stack(codes, dim=1)

    def decode(self, codes: Tensor) -> Tensor:
        """Codes ``[batch, levels, frames]`` (the first levels suffice) → ``[batch, dim, frames]`` float32."""
        total = torch.zeros(len(codes), self.dim, codes.shape[2], device=codes.device)
        for level, (values, scale) in zip(codes.unbind(1), self.stages, strict=False):
            place = values ** torch.arange(self.dim, device=codes.device)
            digits = level[:, None] // place[:, None] % values
            total = total + (digits * _step(values, scale) - scale)
        return total


def _step(values: int, scale: float) -> float:
    """Distance of two neighbours, rounded to single precision as the published buffer is."""
    return float(np.float32(2 * scale / (values - 1)))


def loudness(wav: np.ndarray, sample_rate: int) -> float:
    """Integrated loudness (LUFS) of ``wav [samples]`` after ITU-R BS.1770-4: K-weighting, 400 ms blocks, two gates.

    The filters are the second-order ones that StableCodec was trained with (shelf of 4 dB at 1,500 Hz, high-pass at
    38 Hz), not the standard's table for 48 kHz. −inf for less than 400 ms and for silence.
    """
    # The published filters clip what they put out.
    shelved = lfilter(*_high_shelf(sample_rate), wav.astype(np.float64)).clip(-1, 1)
    weighted = lfilter(*_high_pass(sample_rate), shelved).clip(-1, 1)
    block = round(0.4 * sample_rate)
    if len(weighted) < block:
        return -math.inf
    blocks = np.lib.stride_tricks.sliding_window_view(weighted, block)[:: round(0.1 * sample_rate)]
    energy = np.square(blocks).mean(1)
    level = -0.691 + 10 * np.log10(energy + 1e-30)
    loud = level > -70
    if not loud.any():
        return -math.inf
    gate = -0.691 + 10 * math.log10(energy[loud].mean()) - 10
    return -0.691 + 10 * math.log10(energy[loud & (level > gate)].mean())


def _high_shelf(sample_rate: int) -> tuple[list[float], list[float]]:
    """Audio EQ cookbook (Bristow-Johnson): high shelf, 4 dB at 1,500 Hz, Q = 1 / √2."""
    a, w = 10 ** (4 / 40), 2 * math.pi * 1500 / sample_rate
    alpha, cos = math.sin(w) / 2 * math.sqrt(2), math.cos(w)
    root = 2 * math.sqrt(a) * alpha
    b = [a * ((a + 1) + (a - 1) * cos + root), -2 * a * ((a - 1) + (a + 1) * cos), a * ((a + 1) + (a - 1) * cos - root)]
    return b, [(a + 1) - (a - 1) * cos + root, 2 * ((a - 1) - (a + 1) * cos), (a + 1) - (a - 1) * cos - root]


def _high_pass(sample_rate: int) -> tuple[list[float], list[float]]:
    """Audio EQ cookbook: high-pass at 38 Hz, Q = 1 / 2."""
    w = 2 * math.pi * 38 / sample_rate
    alpha, cos = math.sin(w), math.cos(w)
    return [(1 + cos) / 2, -(1 + cos), (1 + cos) / 2], [1 + alpha, -2 * cos, 1 - alpha]


def to_loudness(wav: Tensor, sample_rate: int) -> Tensor:
    """``wav [1, samples]`` at −20 LUFS; near-silence, and clips too short to measure, stay as they are."""
    if not wav.shape[1] or float(wav.square().mean()) < SILENCE:
        return wav
    measured = loudness(wav[0].cpu().numpy(), sample_rate)
    if measured == -math.inf:
        return wav
    wav = wav * 10 ** ((LOUDNESS - measured) / 20)
    peak = float(wav.abs().max())
    return wav * (0.95 / peak) if peak > 1 else wav


class StableCodec(BaselineTokenizer):
    """StableCodec with the post-hoc bottleneck of ``levels`` levels.

    Args:
        normalise: bring clips to −20 LUFS before encoding.
    """

    name = "stablecodec"

    def __init__(self, model: StableCodecModel, levels: int = 1, normalise: bool = True) -> None:
        if levels not in PRESETS:
            raise TokenizerError(
                f"stablecodec: tokenizer.levels={levels} is none of {', '.join(map(str, PRESETS))}, the presets."
            )
        config = model.config
        dim = config.encoder.latent_dim
        sizes = tuple(values**dim for values, _ in PRESETS[levels])
        settings = {"normalise": normalise, "sliding_window": list(config.encoder.sliding_window)}
        super().__init__(model, config.sample_rate, config.hop, sizes, causal=False, settings=settings)
        self.normalise = normalise
        self.bottleneck = ScalarLevels(PRESETS[levels], dim)

    def encode_clip(self, wav: Tensor) -> Tensor:
        if self.normalise:
            wav = to_loudness(wav, self.sample_rate)
        wav = nn.functional.pad(wav, (0, -wav.shape[1] % self.samples_per_frame))
        return self.bottleneck.encode(self.model.encode(wav))

    def decode_clip(self, codes: Tensor) -> Tensor:
        return self.model.decode(self.bottleneck.decode(codes))


def load(
    path: str = WEIGHTS.repository, levels: int = 1, normalise: bool = True, device: str | torch.device = "cpu"
) -> StableCodec:
    """StableCodec from a hub id or a folder that holds model_config.json and model.safetensors or model.ckpt.

    Raises:
        TokenizerError: no weights, another model, or a level count without a preset.
    """
    folder = WEIGHTS.folder(path)
    model = StableCodecModel(StableCodecConfig.read(WEIGHTS.file(folder, "model_config.json")))
    pattern = "model.safetensors" if (folder / "model.safetensors").is_file() else "model.ckpt"
    model.load_checkpoint(WEIGHTS.file(folder, pattern))
    return StableCodec(model, levels, normalise).to(device)
