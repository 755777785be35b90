"""DistillMOS: predicted quality of speech without a reference, by a small network that was taught by a large one
(Stahl and Gamper 2025, "Distillation and Pruning for Scalable Self-Supervised Representation-Based Speech Quality
Assessment").

    judge = DistillMOS(find_weights())
    judge.rate(wav, sample_rate)        # 1 … 5

Another judge than DNSMOS, trained on other listeners: where the two disagree, neither is to be believed. The network is
our own and reads the weights inside Microsoft's package ``distillmos`` (MIT), as tensors and nothing else, so that its
dependencies (torchaudio) need not be installed: ``pip install --no-deps distillmos``. A test compares it with values of
the package. The level does not matter: each window is brought to a peak of 1.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from eval.harness.audio import CannotScore, Wave, check_wave, resample
from eval.harness.networks import NetworkError, inside_package, path_or_installed, reading_checkpoint
from eval.metrics.clip_metric import ClipMetric
from training.identity import file_hash
from training.pretrained import check_finite

RATE = 16_000
WINDOW, HOP = 122_880, 16_000  # samples: the 7.68 s that the network sees, and how far windows lie apart at most
N_FFT, STRIDE, POWER = 320, 160, 0.3  # of the spectrogram, whose magnitudes are raised to POWER
CHANNELS = (64, 64, 128, 256, 256, 256)
WIDTH, HEADS, LAYERS, FRAMES = 200, 8, 7, 384
SHORTEST = 0.1  # s
BATCH = 8  # windows at a time


def find_weights() -> Path | None:
    """The weights of the installed package, which is not imported; None where it is not installed."""
    return inside_package("distillmos", "weights/distill_mos_v7.pt")


def distillmos_path(setting: str) -> Path:
    """``installed`` → the weights inside the package; else the path itself. Raises NetworkError."""
    return path_or_installed("distillmos", setting, find_weights(), "pip install --no-deps distillmos")


class _Spectrum(nn.Module):
    """Waves ``[batch, samples]`` → ``[batch, 1024, frames]``: convolutions over a compressed complex spectrogram."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for index, (before, after) in enumerate(zip((2, *CHANNELS), CHANNELS, strict=False)):
            stride = (2 if index else 1, 2 if index == len(CHANNELS) - 1 else 1)  # over frequencies, over frames
            layers += [nn.Conv2d(before, after, 3, stride, padding=(0, 1)), nn.LeakyReLU(0.1)]
        self.cnn = nn.Sequential(*layers)

    def forward(self, wav: Tensor) -> Tensor:
        edge = (N_FFT - STRIDE) // 2
        wav = functional.pad(wav, (edge, edge), mode="reflect")
        window = torch.hann_window(N_FFT, device=wav.device)
        bins = torch.stft(wav, N_FFT, STRIDE, window=window, center=False, return_complex=True)
        size = bins.abs().clamp(min=1e-12)
        compressed = torch.view_as_real(bins * (size**POWER / size))  # [batch, bins, frames, 2]
        return self.cnn(compressed.permute(0, 3, 1, 2)).flatten(1, 2)


class _Encoder(nn.Module):
    """Features ``[batch, frames, 1024]`` → ``[batch, frames, WIDTH]``."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(features)
        self.position_encoding = nn.Module()
        self.position_encoding.register_buffer("pe", torch.zeros(1, FRAMES, WIDTH))
        self.linear_proj = nn.Linear(features, WIDTH)
        layer = nn.TransformerEncoderLayer(WIDTH, HEADS, 2 * WIDTH, dropout=0.0, batch_first=True)
        self.transformer_encoder = nn.TransformerEncoder(layer, LAYERS, enable_nested_tensor=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.linear_proj(self.norm(x.mT).mT) + self.position_encoding.pe
        return self.transformer_encoder(x)


class _Pool(nn.Module):
    """Frames ``[batch, frames, WIDTH]`` → ``[batch]``: their mean by attention, through a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.linear1, self.linear2 = nn.Linear(WIDTH, 2 * WIDTH), nn.Linear(2 * WIDTH, 1)
        self.linear3 = nn.Linear(WIDTH, 1)

    def forward(self, x: Tensor) -> Tensor:
        weights = self.linear2(self.linear1(x).relu()).softmax(1)  # [batch, frames, 1]
        return self.linear3((weights * x).sum(1)).squeeze(1)


class _Head(nn.Module):
    """Features ``[batch, frames, 1024]`` → quality ``[batch]`` from 0 to 1."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.norm_input = nn.BatchNorm1d(features)
        self.transformer = _Encoder(features)
        self.norm_trans = nn.BatchNorm1d(WIDTH)
        self.pool = _Pool()

    def forward(self, x: Tensor) -> Tensor:
        x = self.transformer(self.norm_input(x.mT).mT)
        return self.pool(self.norm_trans(x.mT).mT).sigmoid()


class DistillMOSNetwork(nn.Module):
    """``forward(windows [batch, WINDOW] at 16 kHz)`` → ``[batch]`` from 1 to 5."""

    def __init__(self) -> None:
        super().__init__()
        self.cnn = _Spectrum()
        self.transformer_pool_attn = _Head(4 * CHANNELS[-1])

    def forward(self, wav: Tensor) -> Tensor:
        wav = wav / (wav.abs().amax(1, keepdim=True) + 1e-8)
        return 1 + 4 * self.transformer_pool_attn(self.cnn(wav).mT)

    @classmethod
    def load(cls, path: Path) -> DistillMOSNetwork:
        """Read the published checkpoint; every key must be used and none may be missing.

        Raises:
            NetworkError: no such file, or another layout.
        """
        if not path.is_file():
            raise NetworkError(
                f"weights.distillmos={path} does not exist: give distill_mos_v7.pt of the package distillmos, or "
                "'installed' after pip install --no-deps distillmos."
            )
        network = cls()
        with reading_checkpoint("distillmos", path, "DistillMOS"):
            network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True)["model"])
            check_finite(network, path)
        return network.eval()


class DistillMOS(ClipMetric):
    """Mean DistillMOS; ``update(waves, sample_rate=...)`` with float32 ``[samples]`` clips."""

    higher_is_better = True

    def __init__(self, path: Path, device: str = "cpu", network: DistillMOSNetwork | None = None) -> None:
        super().__init__(self.rate)
        self.network = (network or DistillMOSNetwork.load(path)).to(device)
        self.path, self.target = path, device

    @torch.inference_mode()
    def rate(self, wav: Wave, sample_rate: int) -> float:
        """The score of one clip: the mean over windows of 7.68 s, at most 1 s apart; shorter clips end in zeros.

        Raises:
            CannotScore: no audio, NaN, shorter than 0.1 s, or silence, which has no level to bring to 1.
        """
        check_wave(wav, sample_rate, SHORTEST)
        samples = resample(wav, sample_rate, RATE)
        if not samples.any():
            raise CannotScore("silence has no quality")
        samples = np.pad(samples, (0, max(0, WINDOW - len(samples))))
        over = len(samples) - WINDOW
        starts = (np.linspace(0, 1, math.ceil(over / HOP) + 1) * over).astype(int)
        scores: list[float] = []
        for first in range(0, len(starts), BATCH):
            part = np.stack([samples[start : start + WINDOW] for start in starts[first : first + BATCH]])
            scores += self.network(torch.from_numpy(part).to(self.target)).tolist()
        return sum(scores) / len(scores)

    def how(self) -> dict[str, object]:
        """What a result records about these scores."""
        return {
            "network": "DistillMOS v7", "sha256": file_hash(self.path), "sample_rate": RATE, "window_samples": WINDOW,
            "longest_hop_samples": HOP, "level": "each window to a peak of 1",
        }  # fmt: skip
