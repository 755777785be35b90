"""Fundamental frequency by normalised autocorrelation (Boersma, 1993).

The autocorrelation of a windowed frame, divided by that of the window, peaks at multiples of the period; the highest
peak within the range is the pitch, its height the periodicity (1 = perfectly periodic). A penalty for long
lags prefers the true period over its multiples. No tracking over time: frames stand alone, so the estimate is the
same for a clip and a crop of it.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def pitch(
    wav: Tensor, sample_rate: int, hop: int, low: float = 60.0, high: float = 500.0, window_seconds: float = 0.04
) -> tuple[Tensor, Tensor]:
    """Pitch and periodicity of each frame of ``hop`` samples.

    Args:
        wav: ``[batch, frames * hop]``.
        low, high: range searched, in Hz. The window should hold two to three periods of the lowest voice expected.

    Returns:
        frequency ``[batch, frames]`` in Hz, periodicity ``[batch, frames]`` in 0…1 (0 where the frame is silent).
    """
    # Decimate by averaging: pitch needs no high frequencies, and the autocorrelation gets cheaper.
    factor = max(1, sample_rate // 8000)
    while hop % factor:
        factor -= 1
    rate, step = sample_rate / factor, hop // factor
    x = F.avg_pool1d(wav[:, None], factor)[:, 0]
    size = int(window_seconds * rate) // 2 * 2
    longest = min(int(rate / low) + 2, size - 2)
    shortest = max(2, int(rate / high))
    x = F.pad(x, ((size - step) // 2, size - step - (size - step) // 2))
    frames = x.unfold(1, size, step)
    frames = frames - frames.mean(-1, keepdim=True)
    window = torch.hann_window(size, device=wav.device, dtype=wav.dtype)

    def autocorrelation(t: Tensor) -> Tensor:
        return torch.fft.irfft(torch.fft.rfft(t, n=2 * size).abs().square(), n=2 * size)[..., : longest + 2]

    r = autocorrelation(frames * window)
    energy = r[..., :1]
    reference = autocorrelation(window)
    r = r / energy.clamp(min=1e-9) / (reference / reference[0]).clamp(min=0.02)
    lags = torch.arange(longest + 2, device=wav.device)
    score = r - 0.08 * torch.log2(lags.clamp(min=1) / shortest)
    score = score[..., shortest : longest + 1]
    left, mid, right = (
        r[..., shortest - 1 : longest],
        r[..., shortest : longest + 1],
        r[..., shortest + 1 : longest + 2],
    )
    is_peak = (mid >= left) & (mid > right)
    best = torch.where(is_peak, score, score.new_tensor(-1.0)).argmax(-1, keepdim=True)
    a, b, c = (t.gather(-1, best) for t in (left, mid, right))
    # parabola through the peak and its neighbours: lags are coarse at 8 kHz
    shift = (0.5 * (a - c) / (a - 2 * b + c).clamp(max=-1e-6)).clamp(-0.5, 0.5)
    frequency = rate / (best + shortest + shift)[..., 0]
    silent = energy[..., 0] < 1e-5 * size
    periodicity = torch.where(silent, b.new_zeros(()), b[..., 0].clamp(0, 1))
    return frequency, periodicity
