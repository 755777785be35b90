"""Speaker similarity: the cosine of two x-vectors of a WavLM speaker-verification network.

The network is part of the metric's name (``speaker-similarity/wavlm-base-plus-sv``). Families must not be mixed in a
column: this one (transformers' ``WavLMForXVector``) runs high, 0.92 for Mimi with 3 levels; "SIM-o" of TTS papers is
WavLM-large with ECAPA (ground truth about 0.73), which is another network.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoFeatureExtractor, WavLMForXVector

from eval.harness.audio import Wave, pieces, resample
from eval.harness.networks import describe_network, load_network, load_part
from eval.metrics.voices import VoiceSimilarity, check_voice

LONGEST = 30.0  # s; longer clips are the mean of the vectors of equal pieces


class SpeakerSimilarity(VoiceSimilarity):
    """Mean cosine of x-vectors.

    Args:
        path: folder or hub id, for example ``microsoft/wavlm-base-plus-sv``.
    """

    def __init__(self, path: str, device: str = "cpu") -> None:
        super().__init__()
        self.network: Any = load_network(WavLMForXVector, path, device, "speaker")
        self.extractor = load_part(AutoFeatureExtractor, path, "speaker")
        self.path, self.target = path, device

    @torch.inference_mode()
    def embed(self, wav: Wave, sample_rate: int) -> NDArray[np.float32]:
        """The x-vector ``[d]`` of one clip, of length 1.

        Raises:
            CannotScore: no audio, NaN, silence, or shorter than 0.5 s.
        """
        check_voice(wav, sample_rate)
        rate = self.extractor.sampling_rate
        vectors = []
        for part in pieces(resample(wav, sample_rate, rate), rate, LONGEST):
            inputs = self.extractor(part, sampling_rate=rate, return_tensors="pt")
            vector = self.network(inputs.input_values.to(self.target)).embeddings[0].float().cpu().numpy()
            vectors.append(vector / np.linalg.norm(vector))
        total = np.sum(vectors, axis=0)
        return total / np.linalg.norm(total)

    @cached_property
    def description(self) -> dict[str, Any]:
        """What a result records about these scores."""
        return describe_network(self.path, self.network) | {
            "sample_rate": self.extractor.sampling_rate,
            "longest_piece_seconds": LONGEST,
        }
