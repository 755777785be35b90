"""Distortions for training a recogniser: level, filters, telephone bands, reverberation, noise, speed.

All of them are things that happen to recordings; none of them is a codec. Everything random comes from the
``numpy`` generator that is passed in, so a clip, a seed and a step number give the same distorted clip.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.fft
from numpy.typing import NDArray

Wave = NDArray[np.float32]


@dataclass(frozen=True)
class AugmentationConfig:
    """How often each distortion is drawn and how strong it may be."""

    speed: tuple[float, float] = (0.93, 1.07)  # resampling factor (pitch and tempo together)
    speed_share: float = 0.6
    equaliser_db: float = 9.0  # standard deviation of the gain at 8 random nodes between 60 Hz and 8 kHz
    equaliser_share: float = 0.7
    low_pass: tuple[float, float] = (3000.0, 8000.0)  # Hz
    low_pass_share: float = 0.5
    high_pass: tuple[float, float] = (20.0, 350.0)  # Hz
    high_pass_share: float = 0.3
    reverberation: tuple[float, float] = (0.02, 0.25)  # seconds for a decay by 20 dB
    reverberation_share: float = 0.35
    snr_db: tuple[float, float] = (5.0, 40.0)
    noise_share: float = 0.8
    talkers_share: float = 0.15  # of the noisy clips: another clip as the noise, at least 10 dB below
    clip_share: float = 0.1  # hard clipping at 0.2 ... 0.8 of the peak
    level_db: tuple[float, float] = (-30.0, 0.0)  # peak level


def change_speed(wav: Wave, factor: float) -> Wave:
    """Play ``wav`` ``factor`` times as fast (linear interpolation; its images lie in the augmentation's
    noise).
    """
    length = int(len(wav) / factor)
    return np.interp(np.arange(length) * factor, np.arange(len(wav)), wav).astype(np.float32)


def coloured_noise(length: int, exponent: float, generator: np.random.Generator) -> Wave:
    """Noise with power proportional to frequency ** -exponent (0 white, 1 pink, 2 brown), unit variance."""
    size = scipy.fft.next_fast_len(length, real=True)
    spectrum = generator.standard_normal((size // 2 + 1, 2), dtype=np.float32).view(np.complex64)[:, 0]
    shape = np.maximum(np.arange(size // 2 + 1, dtype=np.float32), 4.0) ** np.float32(-exponent / 2.0)
    noise = scipy.fft.irfft(spectrum * shape, size)[:length]
    return noise / max(float(noise.std()), 1e-12)


def _filter_gain(size: int, rate: int, config: AugmentationConfig, generator: np.random.Generator) -> NDArray:
    """Magnitude response at ``size`` frequencies from 0 to ``rate / 2``."""
    hertz = np.linspace(0.0, rate / 2.0, 512)  # drawn on a coarse grid: all curves are smooth
    gain_db = np.zeros(512)
    if generator.random() < config.equaliser_share:
        nodes = np.geomspace(60.0, 8000.0, 8)
        gain_db += np.interp(
            np.log(hertz + 1.0), np.log(nodes), generator.normal(0, config.equaliser_db, 8).clip(-18, 18)
        )
    if generator.random() < config.low_pass_share:
        edge, slope = generator.uniform(*config.low_pass), generator.uniform(12.0, 96.0)
        gain_db -= slope * np.log2(np.maximum(hertz / edge, 1.0))
    if generator.random() < config.high_pass_share:
        edge, slope = generator.uniform(*config.high_pass), generator.uniform(6.0, 36.0)
        gain_db -= slope * np.log2(np.maximum(edge / (hertz + 1.0), 1.0))
    gain_db = np.interp(np.linspace(0.0, rate / 2.0, size), hertz, np.maximum(gain_db, -80.0)).astype(np.float32)
    return np.float32(10.0) ** (gain_db / np.float32(20.0))


def augment(
    wav: Wave,
    rate: int,
    generator: np.random.Generator,
    other: Wave | None = None,
) -> Wave:
    """One distorted version of ``wav [samples]``.

    Args:
        rate: samples per second.
        other: another clip, used as background talk.

    Returns:
        ``[samples']`` float32 within −1…1; longer or shorter than the input where the speed changed.
    """
    config = AugmentationConfig()
    out = np.asarray(wav, dtype=np.float32)
    if generator.random() < config.speed_share:
        out = change_speed(out, generator.uniform(*config.speed))
    size = len(out)
    padded = scipy.fft.next_fast_len(size + rate // 4, real=True)  # room for the reverberation's tail
    spectrum = scipy.fft.rfft(out, padded)
    spectrum *= _filter_gain(len(spectrum), rate, config, generator)
    if generator.random() < config.reverberation_share:
        decay = generator.uniform(*config.reverberation)
        time = np.arange(rate // 4) / rate
        tail = generator.standard_normal(len(time), dtype=np.float32) * 10.0 ** (-time / decay)
        tail *= generator.uniform(0.2, 1.0) / max(float(np.linalg.norm(tail)), 1e-12)
        tail[0] += 1.0
        spectrum *= scipy.fft.rfft(tail.astype(np.float32), padded)
    out = scipy.fft.irfft(spectrum, padded)[:size]
    if generator.random() < config.clip_share:
        limit = float(np.abs(out).max()) * generator.uniform(0.2, 0.8)
        out = out.clip(-limit, limit)
    if generator.random() < config.noise_share:
        snr = generator.uniform(*config.snr_db)
        if other is not None and generator.random() < config.talkers_share:
            noise, snr = np.resize(other, size).astype(np.float32), max(snr, 10.0)
        else:
            noise = coloured_noise(size, generator.uniform(0.0, 2.0), generator)
        ratio = float(out.std()) / max(float(noise.std()), 1e-12) * 10.0 ** (-snr / 20.0)
        out = out + ratio * noise
    peak = max(float(np.abs(out).max()), 1e-9)
    return (out * (10.0 ** (generator.uniform(*config.level_db) / 20.0) / peak)).astype(np.float32)
