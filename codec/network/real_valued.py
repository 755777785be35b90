"""The STFT ends of the codec in real arithmetic: short-time spectra as convolutions with cosines and sines.

Other runtimes (ONNX, mobile ones) have no complex numbers, no fold and no running maximum, or slow ones. These modules
stand in for :class:`~codec.network.patchify.STFTPatchify` and :class:`~codec.network.patchify.STFTUnpatchify` of a
trained codec and compute the same from the same weights, of convolutions, products and sums only. In torch the fast
Fourier transform is quicker, so that training and ``codec.load`` keep it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

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


def counted_from(edges: Tensor, start: Tensor, steps: Tensor) -> tuple[Tensor, Tensor]:
    """Running sums ``[batch, n, …]`` of ``steps`` in cycles, ``start [batch, …]`` before place ``edges[0]``, and what
    they are before ``edges[1]``.
    """
    sums = steps.cumsum(1)
    before = torch.cat((torch.zeros_like(sums[:, :1]), sums), dim=1).index_select(1, edges)
    running, end = sums - before[:, :1] + start[:, None], before[:, 1] - before[:, 0] + start
    return running - running.floor(), end - end.floor()


@dataclass
class RealPiece:
    """``wav [batch, frames * hop]``, and the phases (cycles, float64) where the piece ends that was asked for: ``pulse
    [batch]``, ``tones [batch, bins]``.
    """

    wav: Tensor
    pulse: Tensor
    tones: Tensor


class RealUnpatchify(nn.Module):
    """What :class:`STFTUnpatchify` computes, from its weights."""

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

    def pulses(self, frequency: Tensor, edges: Tensor, start: Tensor) -> tuple[Tensor, Tensor]:
        """:func:`codec.network.patchify.pulse_train` of ``frequency [batch, frames]`` → ``[batch, frames * hop]``, and
        the phase at the second edge.
        """
        f = frequency.double()
        place = (torch.arange(self.of.hop, dtype=torch.float64, device=f.device) + 0.5) / self.of.hop - 0.5
        before, after = torch.cat((f[:, :1], f[:, :-1]), 1)[..., None], torch.cat((f[:, 1:], f[:, -1:]), 1)[..., None]
        f0 = (f[..., None] * (1 - place.abs()) + torch.where(place < 0, before, after) * place.abs()).flatten(1)
        phase, end = counted_from(edges * self.of.hop, start, f0 / self.of.sample_rate)
        theta = (phase * 2 * math.pi).float()
        harmonics = torch.floor(self.of.sample_rate / 2 / f0).float()
        half = torch.sin(theta / 2)
        small = half.abs() < 1e-4
        kernel = torch.sin((harmonics + 0.5) * theta) / torch.where(small, torch.ones_like(half), half)
        return (torch.where(small, 2 * harmonics + 1, kernel) - 1) / (2 * harmonics).sqrt(), end

    def tones(self, parts: Tensor, edges: Tensor, start: Tensor) -> tuple[Parts, Tensor]:
        """:func:`codec.network.patchify.tones` of ``parts [batch, frames, 2 * bins]``; phases at the second edge."""
        level, raw = parts.chunk(2, dim=-1)
        offset = torch.tanh(raw) * (self.of.fft_size / (2 * self.of.hop))
        bins = torch.arange(self.of.bins, dtype=torch.float64, device=level.device)
        peak = nearest_peak(level)
        steps = (bins + offset.double()).gather(-1, peak) * (self.of.hop / self.of.fft_size)
        running, end = counted_from(edges, start, steps)
        locked = running.gather(-1, peak) - bins / 2
        phase = (locked - locked.floor()).float() * (2 * math.pi)
        magnitude = torch.exp(level.clamp(max=6.0))
        return (magnitude * phase.cos(), magnitude * phase.sin()), end

    def forward(self, frames: Tensor, noise_offset: int = 0, valid: Tensor | None = None) -> Synthesis:
        """Clips ``frames [batch, frames, dim]``, ``valid [batch, frames]`` bool → ``wav [batch, frames * hop]``."""
        (batch, count), device = frames.shape[:2], frames.device
        if valid is None:
            valid = torch.ones(batch, count, dtype=torch.bool, device=device)
        zero = torch.zeros(batch, self.of.bins, dtype=torch.float64, device=device)
        edges = torch.tensor([0, count], device=device)
        return Synthesis(self.piece(frames, valid, edges, zero[:, 0], zero, noise_offset).wav)

    def piece(
        self,
        frames: Tensor,
        valid: Tensor,
        edges: Tensor,
        pulse: Tensor,
        tones: Tensor,
        noise_offset: Tensor | int,
    ) -> RealPiece:
        """A piece of a clip and what stands around it, ``frames [batch, frames, dim]`` → ``wav [batch, frames * hop]``.

        Args:
            valid: ``[batch, frames]`` bool, a prefix.
            edges: ``[2]``, the first frame of the piece, and the first one after it.
            pulse: ``[batch]``, the phase of the pulses at the first edge, float64 cycles; 0 where the clip starts.
            tones: ``[batch, bins]``, those of the tones, likewise.
            noise_offset: sample of the clip that the frames begin with, ``[1]`` or a number.
        """
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
            pulses, pulse = self.pulses(frequency, edges, pulse)
            for number, excitation in enumerate((pulses, self.noise[index][None])):
                a, b = self.spectrum(excitation * sounding)
                real, imaginary = real + filters[..., number, :] * a, imaginary + filters[..., number, :] * b
        if self.of.tones is not None:
            (a, b), tones = self.tones(self.of.tones(frames), edges, tones)
            real, imaginary = real + a, imaginary + b
        weight = valid.float()[..., None]
        spectra = (torch.cat((real, imaginary), dim=-1) * weight).transpose(1, 2)
        wav = F.conv_transpose1d(spectra, self.inverse, stride=hop)[:, 0]
        norm = F.conv_transpose1d(weight.transpose(1, 2), self.square, stride=hop)[:, 0]
        left = (self.of.fft_size - hop) // 2
        return RealPiece((wav / norm.clamp(min=1e-3))[:, left : left + count * hop], pulse.clone(), tones.clone())


def in_real_arithmetic(codec: nn.Module) -> nn.Module:
    """``codec`` itself, an ALMTokenizer, with its STFT ends replaced; convolutional ends stay as they are."""
    if isinstance(codec.patchify, STFTPatchify):
        codec.patchify, codec.unpatchify = RealPatchify(codec.patchify), RealUnpatchify(codec.unpatchify)
    return codec
