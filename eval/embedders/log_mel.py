"""The offline embedding: statistics of log-mel spectrograms. No network, so it needs no weights and no download.

It sees loudness, spectral shape and their spread and knows nothing of meaning. Its Fréchet distance is ours alone
(``fad/log-mel``), ranks gross differences and is not to be set beside a FAD of VGGish, CLAP or any other network.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from codec.audio.mel import mel_filters
from eval.harness.audio import RESAMPLER, Wave, check_wave, resample

RATE = 16_000
WINDOW, HOP, BANDS = 400, 160, 64  # 25 ms, 10 ms
PATCH, STEP = 96, 48  # frames: 0.96 s, every 0.48 s
FLOOR = 1e-5
SHORTEST = (PATCH * HOP + WINDOW - HOP) / RATE  # s


class LogMel:
    """Per patch of 0.96 s the mean and the standard deviation of 64 log-mel bands: ``[patches, 128]``."""

    name = "log-mel"

    def embed(self, wav: Wave, sample_rate: int) -> NDArray[np.float32]:
        """``[patches, 128]`` of one clip ``[samples]``.

        Raises:
            CannotScore: no audio, NaN, or shorter than one patch (0.975 s).
        """
        check_wave(wav, sample_rate, SHORTEST)
        samples = resample(wav, sample_rate, RATE)
        samples = np.pad(samples, (0, max(0, int(SHORTEST * RATE) - len(samples))))  # a sample lost in resampling
        frames = np.lib.stride_tricks.sliding_window_view(samples, WINDOW)[::HOP]
        magnitude = np.abs(np.fft.rfft(frames * np.hanning(WINDOW), 512, axis=1))
        mel = np.log(np.maximum(magnitude @ mel_filters(RATE, 512, BANDS).T, FLOOR))  # [frames, bands]
        patches = np.lib.stride_tricks.sliding_window_view(mel, PATCH, axis=0)[::STEP]  # [patches, bands, frames]
        return np.concatenate([patches.mean(-1), patches.std(-1)], axis=1).astype(np.float32)

    def how(self) -> dict[str, Any]:
        """What a result records about this embedding."""
        return {
            "embedding": "log-mel statistics (ours, offline): mean and standard deviation of 64 bands",
            "sample_rate": RATE,
            "patch_seconds": PATCH * HOP / RATE,
            "step_seconds": STEP * HOP / RATE,
            "resampler": RESAMPLER,
        }
