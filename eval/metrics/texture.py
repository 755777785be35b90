"""How smooth a clip is beside its recording, and how much of it is tones: what distances to a recording do not see.

A decoder that predicts the mean of all sounds that its codes may stand for is near to each of them and like none: its
spectrum moves too little in time and its neighbouring bands differ too little. Ratios are output over recording: 1 is
right, less is too smooth, more flutters. A sample from the true distribution has them at 1, and is at twice the squared
error of that mean.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F

from codec.audio.mel import mel_filters
from eval.harness.audio import CannotScore, Wave
from eval.metrics.signal import CLAMP, check_pair, magnitudes

BANDS, BAND_WINDOW = 80, 1024
TONE_WINDOW = 2048
PROMINENCE, BESIDE = 2.0, 3  # a peak is 6 dB above what lies so many bins to either side
LOBE = 2  # bins to either side of its peak that the window spreads a tone over


def deviation_over_time(bands: torch.Tensor) -> float:
    """Standard deviation over time of log-magnitudes ``[bands, frames]``, mean of the bands."""
    return float(bands.std(1, correction=0).mean())


def contrast_of_bands(bands: torch.Tensor) -> float:
    """Mean distance of neighbouring bands of log-magnitudes ``[bands, frames]``."""
    return float(bands.diff(dim=0).abs().mean())


def _ratio(measure: Callable[[torch.Tensor], float], reference: Wave, degraded: Wave, rate: int) -> float:
    check_pair(reference, degraded, rate)
    if len(reference) < BAND_WINDOW + 1:
        raise CannotScore(f"shorter than {BAND_WINDOW + 1} samples")
    filters = torch.from_numpy(mel_filters(rate, BAND_WINDOW, BANDS))
    found = [
        measure((filters @ magnitudes(wav, BAND_WINDOW)).clamp(min=CLAMP).log10()) for wav in (reference, degraded)
    ]
    if found[0] == 0.0:
        raise CannotScore("reference without change")
    return found[1] / found[0]


def deviation_ratio(reference: Wave, degraded: Wave, sample_rate: int) -> float:
    """Deviation over time of 80 log-mel bands, output over recording.

    Raises:
        CannotScore: among others where nothing in the recording changes, as in silence.
    """
    return _ratio(deviation_over_time, reference, degraded, sample_rate)


def contrast_ratio(reference: Wave, degraded: Wave, sample_rate: int) -> float:
    """Distance of neighbouring ones of 80 log-mel bands, output over recording.

    Raises:
        CannotScore: among others where the recording's bands are all alike, as in silence.
    """
    return _ratio(contrast_of_bands, reference, degraded, sample_rate)


def tonality(reference: Wave, degraded: Wave, sample_rate: int) -> float:
    """Share of the energy of ``degraded`` in narrow peaks that stay: to be read beside that of the recording.

    A bin of a 2048 window (hop a quarter) is a peak where none beside it is louder and those three bins away are 6 dB
    quieter; it counts, with the two bins to either side over which the window spreads it, where it is one of
    three frames on end with a peak there or in the next bin.

    Raises:
        CannotScore: among others of silence.
    """
    check_pair(reference, degraded, sample_rate)
    if len(degraded) < TONE_WINDOW:  # five frames
        raise CannotScore(f"shorter than {TONE_WINDOW} samples")
    if not np.any(degraded):
        raise CannotScore("silent degraded clip")
    level = magnitudes(degraded, TONE_WINDOW)
    bins = len(level)
    padded = F.pad(level, (0, 0, BESIDE, BESIDE))

    def beside(distance: int) -> torch.Tensor:
        return torch.maximum(padded[BESIDE - distance :][:bins], padded[BESIDE + distance :][:bins])

    peaks = (level > 0) & (level >= beside(1)) & (level > PROMINENCE * beside(BESIDE))

    def near(marked: torch.Tensor, reach: int, frames: int = 0) -> torch.Tensor:
        """Bins within ``reach`` and ``frames`` of a marked one."""
        size = (2 * reach + 1, 2 * frames + 1)
        return F.max_pool2d(marked.float()[None], size, 1, (reach, frames))[0] > 0

    around = F.pad(near(peaks, 1), (1, 1))
    middles = peaks & around[:, :-2] & around[:, 2:]
    tones = peaks & near(middles, 1, 1)
    energy = level.double().square()
    return float((energy * near(tones, LOBE)).sum() / energy.sum())


TEXTURE: dict[str, Callable[..., float]] = {
    "deviation-ratio": deviation_ratio,
    "contrast-ratio": contrast_ratio,
    "tonality": tonality,
}
"""As :data:`eval.metrics.signal.PAIRED`; tonality looks at the output alone, so that recordings have it too."""
