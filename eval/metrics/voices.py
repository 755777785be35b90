"""What every judge of speaker similarity shares: the cosine of two embeddings of length 1."""

from __future__ import annotations

from abc import abstractmethod

import numpy as np
from numpy.typing import NDArray

from eval.harness.audio import CannotScore, Wave, check_wave
from eval.metrics.clip_metric import ClipMetric

SHORTEST = 0.5  # s; WavLM's own layers need 0.3 s


class VoiceSimilarity(ClipMetric):
    """Mean cosine; ``update(references, others, sample_rate=...)`` with float32 ``[samples]`` clips of any lengths."""

    higher_is_better = True

    def __init__(self) -> None:
        super().__init__(self.similarity)

    @abstractmethod
    def embed(self, wav: Wave, sample_rate: int) -> NDArray[np.float32]:
        """The embedding ``[d]`` of one clip, of length 1.

        Raises:
            CannotScore: no audio, NaN, silence, or shorter than 0.5 s.
        """

    def similarity(self, reference: Wave, other: Wave, sample_rate: int) -> float:
        """The cosine of two clips."""
        return float(self.embed(reference, sample_rate) @ self.embed(other, sample_rate))


def check_voice(wav: Wave, sample_rate: int) -> None:
    """Raise CannotScore for what holds no voice: no audio, NaN, silence, or shorter than 0.5 s."""
    check_wave(wav, sample_rate, SHORTEST)
    if not np.any(wav):
        raise CannotScore("silence has no speaker")
