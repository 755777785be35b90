"""The pitch of a voice or an instrument, frame by frame, and how a frame of the codec comes to know it.

A spectrum holds it, too, but as the spacing of a comb: in real speech of many people an encoder of a few layers did not
learn to read it from there within 6,000 steps (docs/real_sound.md, "Where the pitch is lost"). So it is measured and
said beside the spectra (:class:`PitchInput`), as codecs with a source and a filter have always done. Not in the paper.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

WINDOW_SECONDS, RATE = 0.04, 8000.0
VOICED = (0.5, 0.8)  # periodicities from which a frame begins to have a pitch, and has one
GAIN = 5.0  # two numbers beside more than a thousand bins: without it learning starts slowly


def framing(sample_rate: int, hop: int, rate: float, window_seconds: float) -> tuple[int, int, int]:
    """Samples that are averaged to one (pitch needs no high frequencies), and then samples of a window and of a hop."""
    factor = max(1, int(sample_rate // rate))
    while hop % factor:
        factor -= 1
    return factor, int(window_seconds * sample_rate / factor) // 2 * 2, hop // factor


def autocorrelations(x: Tensor, size: int, step: int, causal: bool) -> Tensor:
    """``x [batch, frames * step]`` → those of its Hann windows of ``size``, without mean: ``[batch, frames, lags]``.

    Args:
        causal: windows end with their step instead of standing around it.
    """
    left = size - step if causal else (size - step) // 2
    frames = F.pad(x, (left, size - step - left)).unfold(1, size, step)
    frames = (frames - frames.mean(-1, keepdim=True)) * torch.hann_window(size, device=x.device, dtype=x.dtype)
    return torch.fft.irfft(torch.fft.rfft(frames, n=2 * size).abs().square(), n=2 * size)


def window_autocorrelation(size: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Of the window itself, ``[lags]``, 1 at lag 0."""
    window = torch.hann_window(size, device=device, dtype=dtype)
    found = torch.fft.irfft(torch.fft.rfft(window, n=2 * size).abs().square(), n=2 * size)
    return found / found[0]


def pitch(
    wav: Tensor,
    sample_rate: int,
    hop: int,
    low: float = 60.0,
    high: float = 500.0,
    window_seconds: float = WINDOW_SECONDS,
    rate: float = RATE,
    causal: bool = False,
    correlate: Callable[[Tensor, int, int, bool], Tensor] = autocorrelations,
) -> tuple[Tensor, Tensor]:
    """Pitch and periodicity of each frame of ``hop`` samples, by normalised autocorrelation (Boersma, 1993).

    The autocorrelation of a windowed frame, divided by that of the window, peaks at multiples of the period; the
    highest peak within the range is the pitch, its height the periodicity (1 = perfectly periodic). A penalty for long
    lags prefers the true period over its multiples. No tracking over time: frames stand alone, so the estimate is the
    same for a clip and a crop of it.

    Args:
        wav: ``[batch, frames * hop]``.
        low, high: range searched, in Hz. The window should hold two to three periods of the lowest voice expected.
        rate: Hz that the autocorrelation has at least: ten times ``high`` for cents, less where semitones do.
        causal: windows end with their frame instead of standing around it.
        correlate: :func:`autocorrelations`, or what computes the same.

    Returns:
        frequency ``[batch, frames]`` in Hz, periodicity ``[batch, frames]`` in 0…1 (0 where the frame is silent).
    """
    return pitches(wav, sample_rate, hop, low, [high], window_seconds, rate, causal, correlate)[0]


def pitches(
    wav: Tensor,
    sample_rate: int,
    hop: int,
    low: float,
    highs: Sequence[float],
    window_seconds: float = WINDOW_SECONDS,
    rate: float = RATE,
    causal: bool = False,
    correlate: Callable[[Tensor, int, int, bool], Tensor] = autocorrelations,
) -> list[tuple[Tensor, Tensor]]:
    """What :func:`pitch` finds up to each of ``highs``: the autocorrelations, which cost most, are made once."""
    factor, size, step = framing(sample_rate, hop, rate, window_seconds)
    rate = sample_rate / factor
    longest = min(int(rate / low) + 2, size - 2)
    r = correlate(F.avg_pool1d(wav[:, None], factor)[:, 0], size, step, causal)[..., : longest + 2]
    energy = r[..., 0]
    reference = window_autocorrelation(size, wav.device, wav.dtype)[: longest + 2]
    r = r / energy[..., None].clamp(min=1e-9) / reference.clamp(min=0.02)
    found = []
    for high in highs:
        shortest = max(2, int(rate / high))
        left, mid, right = r[..., shortest - 1 : -2], r[..., shortest:-1], r[..., shortest + 1 :]
        lags = torch.arange(shortest, r.shape[-1] - 1, device=r.device)
        score = mid - 0.08 * torch.log2(lags / shortest)
        is_peak = (mid >= left) & (mid > right)
        best = torch.where(is_peak, score, score.new_tensor(-1.0)).argmax(-1, keepdim=True)
        a, b, c = (t.gather(-1, best) for t in (left, mid, right))
        # parabola through the peak and its neighbours: lags are coarse at 8 kHz
        shift = (0.5 * (a - c) / (a - 2 * b + c).clamp(max=-1e-6)).clamp(-0.5, 0.5)
        lag, height = (best + shortest + shift)[..., 0], b[..., 0]
        silent = energy < 1e-5 * size
        found.append((rate / lag, torch.where(silent, height.new_zeros(()), height.clamp(0, 1))))
    return found


def voicing(periodicity: Tensor) -> Tensor:
    """How much of a pitch frames of that periodicity have, 0…1."""
    return ((periodicity - VOICED[0]) / (VOICED[1] - VOICED[0])).clamp(0, 1)


class PitchInput(nn.Linear):
    """Pitch of each frame (octaves from the middle of the range) and whether it has one (0…1), mapped to ``dim``."""

    def __init__(self, dim: int, hop: int, sample_rate: int, low: float, high: float, causal: bool) -> None:
        super().__init__(2, dim)
        self.hop, self.sample_rate, self.low, self.high, self.causal = hop, sample_rate, low, high, causal
        self.correlate: Callable[[Tensor, int, int, bool], Tensor] = autocorrelations

    @property
    def window(self) -> int:
        """Samples that a frame's pitch is measured over."""
        return round(WINDOW_SECONDS * self.sample_rate)

    def measure(self, wav: Tensor) -> Tensor:
        """``wav [batch, frames * hop]`` → ``[batch, frames, 2]``; frames without a pitch are zero."""
        frequency, periodicity = pitch(
            wav, self.sample_rate, self.hop, self.low, self.high, causal=self.causal, correlate=self.correlate
        )
        voiced = voicing(periodicity)
        octaves = torch.log2(frequency / (self.low * self.high) ** 0.5)
        return torch.stack((octaves * voiced, voiced), dim=-1)

    def forward(self, wav: Tensor) -> Tensor:
        """``wav [batch, frames * hop]`` → ``[batch, frames, dim]``."""
        return super().forward(GAIN * self.measure(wav))
