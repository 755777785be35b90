"""The STFT ends of the codec in real arithmetic: short-time spectra as convolutions with cosines and sines.

Other runtimes (ONNX, mobile ones) have no complex numbers, no fold and no running maximum, or slow ones. These modules
stand in for :class:`~codec.network.patchify.STFTPatchify` and :class:`~codec.network.patchify.STFTUnpatchify` of a
trained codec and compute the same from the same weights, of convolutions, products and sums only. In torch the fast
Fourier transform is quicker, so that training and ``codec.load`` keep it.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from codec.network.patchify import NOISE_SAMPLES, STFTPatchify, STFTUnpatchify, Synthesis, noise_sequence
from codec.network.pitch import RATE, WINDOW_SECONDS, framing

Parts = tuple[Tensor, Tensor]
"""Real and imaginary part, ``[batch, frames, bins]`` each."""


def fourier_rows(size: int) -> Tensor:
    """The real Fourier transform as a matrix, float64 ``[2 * bins, size]``: cosines, then negative sines."""
    bins = torch.arange(size // 2 + 1, dtype=torch.float64)
    angles = 2 * math.pi * torch.outer(bins, torch.arange(size, dtype=torch.float64)) / size
    return torch.cat((angles.cos(), -angles.sin()))


class RealSpectrum(nn.Module):
    """:func:`codec.network.patchify.spectrum` as one convolution."""

    def __init__(self, fft_size: int, hop: int, causal: bool = False) -> None:
        super().__init__()
        self.hop = hop
        self.left = fft_size - hop if causal else (fft_size - hop) // 2
        self.right = fft_size - hop - self.left
        window = torch.hann_window(fft_size, dtype=torch.float64)
        rows = fourier_rows(fft_size) * (window / window.square().sum().sqrt())
        self.register_buffer("rows", rows.float()[:, None])

    def forward(self, wav: Tensor) -> Parts:
        """``wav [batch, frames * hop]`` → parts ``[batch, frames, bins]``."""
        padded = F.pad(wav, (self.left, self.right))[:, None]
        real, imaginary = F.conv1d(padded, self.rows, stride=self.hop).transpose(1, 2).chunk(2, dim=-1)
        return real, imaginary


class RealAutocorrelations(nn.Module):
    """:func:`codec.network.pitch.autocorrelations` of windows of ``size``, as one convolution and one product."""

    def __init__(self, size: int) -> None:
        super().__init__()
        without_mean = torch.eye(size, dtype=torch.float64) - 1 / size
        rows = fourier_rows(2 * size)[:, :size] * torch.hann_window(size, dtype=torch.float64) @ without_mean
        self.register_buffer("rows", rows.float()[:, None])
        # of the 2 * size lags, those within the window: `pitch` reads no other
        bins, lags = torch.arange(size + 1, dtype=torch.float64), torch.arange(size, dtype=torch.float64)
        twice = torch.full((size + 1, 1), 2.0, dtype=torch.float64)  # a real signal's spectrum has two such halves
        twice[0] = twice[-1] = 1.0
        self.register_buffer("back", (twice * (math.pi / size * torch.outer(bins, lags)).cos() / (2 * size)).float())

    def forward(self, x: Tensor, size: int, step: int, causal: bool) -> Tensor:
        left = size - step if causal else (size - step) // 2
        padded = F.pad(x, (left, size - step - left))[:, None]
        real, imaginary = F.conv1d(padded, self.rows, stride=step).transpose(1, 2).chunk(2, dim=-1)
        return (real.square() + imaginary.square()) @ self.back


class RealPatchify(nn.Module):
    """What :class:`STFTPatchify` computes, from its weights."""

    def __init__(self, patchify: STFTPatchify) -> None:
        super().__init__()
        self.spectra = nn.ModuleList(RealSpectrum(s, patchify.hop, patchify.causal) for s in patchify.fft_sizes)
        self.project, self.pitch = patchify.project, patchify.pitch
        if self.pitch is not None:
            _, size, _ = framing(self.pitch.sample_rate, patchify.hop, RATE, WINDOW_SECONDS)
            self.pitch.correlate = RealAutocorrelations(size)
        self.register_buffer("mean", patchify.mean.clone())
        self.register_buffer("scale", patchify.scale.clone())

    def forward(self, wav: Tensor, valid: Tensor | None = None) -> Tensor:
        """``wav [batch, frames * hop]``, zero beyond a clip's end → ``[batch, frames, dim]``."""
        parts = [spectrum(wav) for spectrum in self.spectra]
        magnitudes = torch.cat([(real.square() + imaginary.square()).sqrt() for real, imaginary in parts], dim=-1)
        frames = self.project((torch.log(magnitudes + 1e-4) - self.mean) * self.scale)
        return frames if self.pitch is None else frames + self.pitch(wav)


def running_max(x: Tensor) -> Tensor:
    """The largest value so far along the last axis, in log₂ steps (no runtime has ``cummax``)."""
    size, shift = x.shape[-1], 1
    while shift < size:
        x = torch.maximum(x, F.pad(x, (shift, 0), value=-math.inf)[..., :size])
        shift *= 2
    return x


def nearest_peak(level: Tensor) -> Tensor:
    """:func:`codec.network.patchify.nearest_peak` without ``cummax``."""
    bins = torch.arange(level.shape[-1], device=level.device).to(level.dtype)
    up = F.pad((level[..., 1:] > level[..., :-1]).float(), (1, 0), value=1.0)
    down = F.pad((level[..., :-1] >= level[..., 1:]).float(), (0, 1), value=1.0)
    far = torch.full_like(level, -2.0 * level.shape[-1])
    left = running_max(torch.where(up * down > 0, bins, far))
    right = -running_max(torch.where(up * down > 0, -bins, far).flip(-1)).flip(-1)
    return torch.where(bins - left <= right - bins, left, right).clamp(0, level.shape[-1] - 1).long()


class RealUnpatchify(nn.Module):
    """What :class:`STFTUnpatchify` computes at the start of a clip, from its weights."""

    def __init__(self, unpatchify: STFTUnpatchify) -> None:
        super().__init__()
        self.of = unpatchify
        size = unpatchify.fft_size
        window = torch.hann_window(size, dtype=torch.float64)
        self.spectrum = RealSpectrum(size, unpatchify.hop)
        twice = torch.full((size // 2 + 1,), 2.0, dtype=torch.float64)  # a real signal's spectrum has two such halves
        twice[0] = twice[-1] = 1.0
        scale = torch.cat((twice, twice))[:, None] / size * (window * window.square().sum().sqrt())
        self.register_buffer("inverse", (fourier_rows(size) * scale).float()[:, None])
        self.register_buffer("square", window.square().float()[None, None])
        self.register_buffer("noise", noise_sequence(torch.device("cpu")).clone())

    def pulses(self, frequency: Tensor) -> Tensor:
        """:func:`codec.network.patchify.pulse_train` of ``frequency [batch, frames]`` → ``[batch, frames * hop]``."""
        f = frequency.double()
        place = (torch.arange(self.of.hop, dtype=torch.float64, device=f.device) + 0.5) / self.of.hop - 0.5
        before, after = torch.cat((f[:, :1], f[:, :-1]), 1)[..., None], torch.cat((f[:, 1:], f[:, -1:]), 1)[..., None]
        f0 = (f[..., None] * (1 - place.abs()) + torch.where(place < 0, before, after) * place.abs()).flatten(1)
        phase = torch.cumsum(f0 / self.of.sample_rate, dim=1)
        theta = ((phase - phase.floor()) * 2 * math.pi).float()
        harmonics = torch.floor(self.of.sample_rate / 2 / f0).float()
        half = torch.sin(theta / 2)
        small = half.abs() < 1e-4
        kernel = torch.sin((harmonics + 0.5) * theta) / torch.where(small, torch.ones_like(half), half)
        return (torch.where(small, 2 * harmonics + 1, kernel) - 1) / (2 * harmonics).sqrt()

    def tones(self, parts: Tensor) -> Parts:
        """:func:`codec.network.patchify.tones` of ``parts [batch, frames, 2 * bins]``."""
        level, raw = parts.chunk(2, dim=-1)
        offset = torch.tanh(raw) * (self.of.fft_size / (2 * self.of.hop))
        bins = torch.arange(self.of.bins, dtype=torch.float64, device=level.device)
        peak = nearest_peak(level)
        running = ((bins + offset.double()).gather(-1, peak) * (self.of.hop / self.of.fft_size)).cumsum(1)
        locked = (running - running.floor()).gather(-1, peak) - bins / 2
        phase = (locked - locked.floor()).float() * (2 * math.pi)
        magnitude = torch.exp(level.clamp(max=6.0))
        return magnitude * phase.cos(), magnitude * phase.sin()

    def forward(self, frames: Tensor, noise_offset: int = 0, valid: Tensor | None = None) -> Synthesis:
        """``frames [batch, frames, dim]``, ``valid [batch, frames]`` bool → ``wav [batch, frames * hop]``."""
        if valid is None:
            valid = torch.ones(frames.shape[:2], dtype=torch.bool, device=frames.device)
        hop, count = self.of.hop, frames.shape[1]
        parts = self.of.spectra(frames).unflatten(-1, (-1, self.of.bins))
        magnitude, phase = torch.exp(parts[..., 0, :].clamp(max=6.0)), parts[..., 1, :]
        real, imaginary = magnitude * phase.cos(), magnitude * phase.sin()
        if self.of.pitch is not None:
            position = torch.sigmoid(self.of.pitch(frames)[..., 0])
            frequency = self.of.pitch_low * (self.of.pitch_high / self.of.pitch_low) ** position
            last = valid.sum(1, keepdim=True).clamp(min=1) - 1
            place = torch.arange(count, device=frames.device)
            frequency = frequency.gather(1, torch.minimum(place.expand(len(frames), -1), last))
            index = (torch.arange(count * hop, device=frames.device) + noise_offset) % NOISE_SAMPLES
            sounding = valid.float().repeat_interleave(hop, dim=1)
            filters = torch.exp(parts[..., 2:, :].clamp(max=6.0))
            for number, excitation in enumerate((self.pulses(frequency), self.noise[index][None])):
                a, b = self.spectrum(excitation * sounding)
                real, imaginary = real + filters[..., number, :] * a, imaginary + filters[..., number, :] * b
        if self.of.tones is not None:
            a, b = self.tones(self.of.tones(frames))
            real, imaginary = real + a, imaginary + b
        weight = valid.float()[..., None]
        spectra = (torch.cat((real, imaginary), dim=-1) * weight).transpose(1, 2)
        wav = F.conv_transpose1d(spectra, self.inverse, stride=hop)[:, 0]
        norm = F.conv_transpose1d(weight.transpose(1, 2), self.square, stride=hop)[:, 0]
        left = (self.of.fft_size - hop) // 2
        return Synthesis((wav / norm.clamp(min=1e-3))[:, left : left + count * hop])


def in_real_arithmetic(codec: nn.Module) -> nn.Module:
    """``codec`` itself, an ALMTokenizer, with its STFT ends replaced; convolutional ends stay as they are."""
    if isinstance(codec.patchify, STFTPatchify):
        codec.patchify, codec.unpatchify = RealPatchify(codec.patchify), RealUnpatchify(codec.unpatchify)
    return codec
