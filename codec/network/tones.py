"""Steady tones in the output spectrum: magnitudes and instantaneous frequencies, phases that follow from them.

Noise behind a narrow filter flutters, and pulses have one pitch; neither makes an organ chord or a telephone's bell.
Here the network predicts for each bin how loud it is and how far the frequency in it lies from the bin's centre (the
instantaneous frequency, which GANSynth predicts for notes: Engel et al., 2019). Phase is their sum over time, so a
tone stays coherent for as long as it sounds, though no phase is ever coded. Bins around a spectral peak take the peak's
phase (identity phase locking of the phase vocoder: Laroche and Dolson, 1999).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ToneHead(nn.Linear):
    """Frame → log-magnitude and raw frequency offset of each bin: ``[..., dim]`` → ``[..., 2 * bins]``."""

    def __init__(self, dim: int, bins: int) -> None:
        super().__init__(dim, 2 * bins)
        self.bins = bins

    def reset_parameters(self) -> None:
        """Start quiet, at the centres of the bins."""
        nn.init.normal_(self.weight, std=0.02)
        nn.init.zeros_(self.bias)
        if hasattr(self, "bins"):  # nn.Linear's constructor calls this before the layout is known
            with torch.no_grad():
                self.bias[: self.bins] = -5.0


def nearest_peak(level: Tensor) -> Tensor:
    """The bin of the closest local maximum, for each bin of ``level [..., bins]`` → int64 ``[..., bins]``."""
    bins = torch.arange(level.shape[-1], device=level.device)
    up = F.pad(level[..., 1:] > level[..., :-1], (1, 0), value=True)
    down = F.pad(level[..., :-1] >= level[..., 1:], (0, 1), value=True)
    peak = up & down
    far = 2 * len(bins)
    left = torch.where(peak, bins, -far).cummax(-1).values
    right = torch.where(peak, bins, far).flip(-1).cummin(-1).values.flip(-1)
    # a spectrum that is not finite has no peak: its bins stay legal, and the loss says what is wrong
    return torch.where(bins - left <= right - bins, left, right).clamp(0, len(bins) - 1)


@torch.no_grad()
def tone_phase(level: Tensor, offset: Tensor, hop: int, fft_size: int, first: Tensor | None) -> tuple[Tensor, Tensor]:
    """Phase of each bin, in cycles.

    Args:
        level, offset: ``[batch, frames, bins]``, log-magnitude and distance of the frequency from the bin, in bins.
        first: ``[batch, bins]``, the running phase of the first frame when the frames continue earlier ones.

    Returns:
        the phases to use ``[batch, frames, bins]`` float32, and the running phases (float64: hours keep their phase)
        that a later piece continues from.
    """
    bins = torch.arange(level.shape[-1], device=level.device)
    peak = nearest_peak(level)
    frequency = (bins + offset.double()).gather(-1, peak)
    running = (frequency * (hop / fft_size)).cumsum(1)
    if first is not None:
        running = running + (first - running[:, 0])[:, None]
    running = running % 1.0
    # running phases are those at the window's centre, where all bins of a sinusoid agree; a spectrum counts from the
    # window's first sample, half a cycle from bin to bin
    locked = running.gather(-1, peak) - bins / 2
    return (locked % 1.0).float(), running


def tones(parts: Tensor, hop: int, fft_size: int, first: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """Output of :class:`ToneHead` → spectrum of the tones.

    Args:
        parts: ``[batch, frames, 2 * bins]``.
        first: as in :func:`tone_phase`.

    Returns:
        complex spectra ``[batch, frames, bins]``, frequency offsets ``[batch, frames, bins]`` in bins, and the running
        phases.
    """
    level, raw = parts.float().chunk(2, dim=-1)
    offset = torch.tanh(raw) * (fft_size / (2 * hop))  # further away, a frame's advance is ambiguous
    phase, running = tone_phase(level.detach(), offset.detach(), hop, fft_size, first)
    return torch.polar(torch.exp(level.clamp(max=6.0)), phase * (2 * math.pi)), offset, running


def tone_loss(offset: Tensor, target: Tensor, hop: int, fft_size: int) -> Tensor:
    """Mean |bins| between predicted and measured instantaneous frequency, weighted by magnitude, mean over clips.

    Args:
        offset: predicted, ``[batch, frames, bins]``.
        target: spectra of the source, complex ``[batch, frames, bins]``, windows of ``fft_size`` every ``hop``.
    """
    with torch.no_grad():
        step = target[:, 1:] * target[:, :-1].conj()
        centre = torch.arange(target.shape[-1], device=target.device) * (-2 * math.pi * hop / fft_size)
        measured = torch.angle(step * torch.polar(torch.ones_like(centre), centre)) * (fft_size / (2 * math.pi * hop))
        weight = step.abs().sqrt()
    error = ((offset[:, 1:] - measured).abs() * weight).sum((1, 2))
    return (error / weight.sum((1, 2)).clamp(min=1e-3)).mean()
