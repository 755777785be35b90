"""Reconstruction losses: log-mel and spectral convergence at several resolutions, and pitch.

The paper states that reconstruction and adversarial losses are used, not which weights or resolutions; all of them
are keys. On a CPU these transforms cost more than the network, so each step draws a few resolutions (without bias:
all are drawn equally often).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from codec.network.patchify import spectrum
from codec.network.pitch import pitch
from training import processes


@lru_cache(maxsize=32)
def mel_filters(sample_rate: int, fft_size: int, bands: int, device: torch.device) -> Tensor:
    """Triangular mel filters (Slaney scale, unit peak) ``[fft_size / 2 + 1, bands]``."""

    def to_mel(hz: np.ndarray) -> np.ndarray:
        return np.where(hz < 1000, hz / (200 / 3), 15 + np.log(np.maximum(hz, 1e-3) / 1000) / (np.log(6.4) / 27))

    def to_hz(mel: np.ndarray) -> np.ndarray:
        return np.where(mel < 15, mel * (200 / 3), 1000 * np.exp((mel - 15) * (np.log(6.4) / 27)))

    edges = to_hz(np.linspace(0, float(to_mel(np.array(sample_rate / 2))), bands + 2))
    frequencies = np.linspace(0, sample_rate / 2, fft_size // 2 + 1)[:, None]
    rising = (frequencies - edges[None, :-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[None, 2:] - frequencies) / (edges[2:] - edges[1:-1])
    filters = np.clip(np.minimum(rising, falling), 0, None)
    # low bands narrower than a bin would be empty: give them the nearest bin
    empty = filters.sum(0) == 0
    nearest = np.abs(frequencies - edges[None, 1:-1]).argmin(0)
    filters[nearest[empty], np.nonzero(empty)[0]] = 1.0
    filters /= filters.sum(0, keepdims=True)
    return torch.tensor(filters, dtype=torch.float32, device=device)


@dataclass(frozen=True)
class Resolution:
    """One analysis: window length in samples (hop a quarter of it) and number of mel bands."""

    fft_size: int
    bands: int

    @property
    def hop(self) -> int:
        return self.fft_size // 4


def spectral_losses(output: Tensor, target: Tensor, sample_rate: int, resolution: Resolution) -> dict[str, Tensor]:
    """Distances of ``output [batch, samples]`` to ``target`` at one resolution.

    Returns:
        ``mel``: mean |log mel(output) − log mel(target)| (natural log of magnitudes, floor 1e-3);
        ``convergence``: ‖|X̂| − |X|‖ / ‖|X|‖ per clip (Arık et al., 2018), averaged over clips that are not silent.
    """
    hop = resolution.hop
    usable = output.shape[1] // hop * hop
    x, y = (spectrum(t[:, :usable], resolution.fft_size, hop).abs() for t in (output, target))
    filters = mel_filters(sample_rate, resolution.fft_size, resolution.bands, output.device)
    log_x, log_y = (torch.log(t @ filters + 1e-3) for t in (x, y))
    scale = y.square().sum((1, 2)).sqrt()
    convergence = (x - y).square().sum((1, 2)).sqrt() / scale.clamp(min=1.0)
    return {"mel": F.l1_loss(log_x, log_y), "convergence": convergence.mean()}


def pitch_loss(frequency: Tensor, wav: Tensor, sample_rate: int, hop: int, low: float, high: float) -> Tensor:
    """Mean |octaves| between predicted and measured pitch over periodic frames (periodicity above 0.6).

    Args:
        frequency: predicted, ``[batch, frames]`` in Hz.
        wav: the source, ``[batch, frames * hop]``.
    """
    with torch.no_grad():
        target, periodicity = pitch(wav, sample_rate, hop, low, high)
        voiced = (periodicity > 0.6).float()
    error = (torch.log2(frequency) - torch.log2(target)).abs()
    # over the voiced frames of all processes: a mean of means would weigh frames of noisy batches more
    return (error * voiced).sum() / processes.mean(voiced.sum()).clamp(min=1.0)
