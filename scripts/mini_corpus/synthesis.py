"""Building blocks of the synthesised sounds and music, numpy only.

All signals are mono float64 arrays [samples] at SAMPLE_RATE. Filters are applied in the frequency domain and
resonators are written as decaying sinusoids, so that nothing loops over samples in Python.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

SAMPLE_RATE = 24_000  # Hz
Signal = np.ndarray
Rng = np.random.Generator


def seconds_to_samples(seconds: float) -> int:
    return round(seconds * SAMPLE_RATE)


def times(n: int) -> Signal:
    """[n] seconds."""
    return np.arange(n) / SAMPLE_RATE


def shape(signal: Signal, gain: Callable[[np.ndarray], np.ndarray]) -> Signal:
    """Filter with a gain given as a function of frequency in Hz (zero phase)."""
    n = len(signal)
    size = fast_size(n)
    spectrum = np.fft.rfft(signal, size)
    spectrum *= gain(np.fft.rfftfreq(size, 1 / SAMPLE_RATE))
    return np.fft.irfft(spectrum, size)[:n]


def fast_size(n: int) -> int:
    """Smallest 2^a or 3 * 2^a that is at least n: lengths that the FFT is quick at."""
    power = 1 << max(n - 1, 1).bit_length()
    return power * 3 // 4 if power * 3 // 4 >= n else power


def band(low: float, high: float, order: int = 2) -> Callable[[np.ndarray], np.ndarray]:
    """Gain of a band pass between two frequencies in Hz with slopes of 6 dB per octave and order."""

    def gain(frequency: np.ndarray) -> np.ndarray:
        ratio = np.maximum(frequency, 1e-3)
        return 1 / np.sqrt((1 + (low / ratio) ** (2 * order)) * (1 + (ratio / high) ** (2 * order)))

    return gain


def noise(rng: Rng, n: int, low: float = 20.0, high: float = 11_000.0, order: int = 2, tilt: float = 0.0) -> Signal:
    """[n] noise of unit RMS between two frequencies; ``tilt`` in dB per octave (pink: -3)."""
    pass_band = band(low, high, order)

    def gain(frequency: np.ndarray) -> np.ndarray:
        return pass_band(frequency) * (np.maximum(frequency, 20.0) / 1000) ** (tilt / 6.02)

    signal = shape(rng.standard_normal(n), gain)
    return signal / (np.sqrt(np.mean(signal**2)) + 1e-12)


def curve(rng: Rng, n: int, rate: float, low: float, high: float) -> Signal:
    """[n] a smooth random curve between ``low`` and ``high`` with about ``rate`` turning points a second."""
    knots = max(4, int(n / SAMPLE_RATE * rate) + 4)
    values = rng.uniform(low, high, knots)
    position = np.linspace(0.5, knots - 2.5, n)
    left = position.astype(int)
    blend = (1 - np.cos(np.pi * (position - left))) / 2
    return values[left] * (1 - blend) + values[left + 1] * blend


def oscillate(frequency: Signal | float, n: int | None = None, phase: float = 0.0) -> Signal:
    """Sine of a frequency in Hz that may change from sample to sample."""
    if np.isscalar(frequency):
        return np.sin(2 * np.pi * float(frequency) * times(int(n or 0)) + phase)  # type: ignore[arg-type]
    return np.sin(2 * np.pi * np.cumsum(frequency) / SAMPLE_RATE + phase)


def ring(frequencies: Iterable[float], gains: Iterable[float], decays: Iterable[float], n: int) -> Signal:
    """[n] a struck body: decaying sinusoids; ``decays`` are seconds to -60 dB."""
    t = times(n)
    out = np.zeros(n)
    for frequency, gain, decay in zip(frequencies, gains, decays, strict=True):
        if frequency < SAMPLE_RATE / 2 - 500:
            used = min(n, seconds_to_samples(decay * 1.2) + 1)
            out[:used] += gain * np.exp(-6.91 / decay * t[:used]) * np.sin(2 * np.pi * frequency * t[:used])
    return out


def decay(n: int, seconds: float, attack: float = 0.001) -> Signal:
    """[n] envelope: linear attack, then exponential decay that reaches -60 dB after ``seconds``."""
    t = times(n)
    return np.minimum(1, t / max(attack, 1e-4)) * np.exp(-6.91 / seconds * t)


def bump(n: int, power: float = 1.0) -> Signal:
    """[n] envelope: half a sine, from 0 to 1 to 0."""
    return np.maximum(0.0, np.sin(np.pi * np.arange(n) / max(n - 1, 1))) ** power


def add(out: Signal, event: Signal, at: float, gain: float = 1.0) -> None:
    """Add an event into ``out`` at ``at`` seconds; what reaches beyond either end is cut."""
    start = seconds_to_samples(at)
    if start < 0:
        event, start = event[-start:], 0
    event = event[: max(0, len(out) - start)]
    out[start : start + len(event)] += gain * event


def convolve(signal: Signal, kernel: Signal) -> Signal:
    """Convolution cut to the signal's length."""
    size = fast_size(len(signal) + len(kernel))
    return np.fft.irfft(np.fft.rfft(signal, size) * np.fft.rfft(kernel, size), size)[: len(signal)]


def room(rng: Rng, signal: Signal, seconds: float, wet: float, high: float = 5000.0) -> Signal:
    """Add the reverberation of a room: a noise tail that decays by 60 dB in ``seconds``."""
    n = seconds_to_samples(seconds)
    tail = noise(rng, n, 150, high, 1) * decay(n, seconds, 0.004)
    tail /= np.sqrt(np.sum(tail**2))
    return signal + wet * convolve(signal, tail)


def rhythm(rng: Rng, seconds: float, interval: float, jitter: float, start: float | None = None) -> list[float]:
    """Times of events in seconds, ``interval`` apart, each interval off by up to ``jitter`` of itself."""
    at = rng.uniform(0.0, interval * 0.7) if start is None else start
    found = []
    while at < seconds:
        found.append(at)
        at += interval * (1 + rng.uniform(-jitter, jitter))
    return found


def loudness(signal: Signal) -> float:
    """RMS over the louder half of 20 ms frames: sparse events and steady noise compare fairly."""
    size = SAMPLE_RATE // 50
    frames = signal[: len(signal) // size * size].reshape(-1, size)
    power = np.sort(np.mean(frames**2, axis=1))
    loud = power[power > power[-1] * 1e-3]
    return float(np.sqrt(np.mean(loud[len(loud) // 2 :])))


def finish(rng: Rng, signal: Signal, low: float = -28.0, high: float = -18.0) -> Signal:
    """Set a random level (dBFS of the loud part), fade 15 ms at both ends, keep peaks below 0.95."""
    signal = signal - np.mean(signal)
    signal = signal * 10 ** (rng.uniform(low, high) / 20) / max(loudness(signal), 1e-9)
    signal *= min(1.0, 0.95 / float(np.max(np.abs(signal))))
    ramp = np.linspace(0, 1, seconds_to_samples(0.015))
    signal[: len(ramp)] *= ramp
    signal[-len(ramp) :] *= ramp[::-1]
    return signal
