"""Class posteriors of an audio classifier (AST and its like), for the KL between reference and generated audio.

Windows of 10 s, one every 5 s; the mean of their logits, then a softmax over the classes. Published values use PaSST or
PANNs: this one is named after its own network and is not comparable with theirs.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoFeatureExtractor, AutoModelForAudioClassification

from eval.embedders.clap import windows
from eval.harness.audio import RESAMPLER, Wave, check_wave, resample
from eval.harness.networks import describe_network, load_network, load_part

SECONDS, STEP = 10.0, 5.0
SHORTEST = 0.1  # s


class AudioClassifier:
    """A network with a class head.

    Args:
        path: folder or hub id, for example ``MIT/ast-finetuned-audioset-10-10-0.4593``.
    """

    def __init__(self, path: str, device: str = "cpu") -> None:
        self.network = load_network(AutoModelForAudioClassification, path, device, "classifier")
        self.extractor = load_part(AutoFeatureExtractor, path, "classifier")
        self.path, self.device, self.rate = path, device, int(self.extractor.sampling_rate)

    @torch.inference_mode()
    def posterior(self, wav: Wave, sample_rate: int) -> NDArray[np.float64]:
        """``[classes]``, sums to 1.

        Raises:
            CannotScore: no audio, NaN, or shorter than 0.1 s.
        """
        check_wave(wav, sample_rate, SHORTEST)
        samples = resample(wav, sample_rate, self.rate)
        logits = []
        for window in windows(samples, int(SECONDS * self.rate), int(STEP * self.rate)):
            inputs = self.extractor(window, sampling_rate=self.rate, return_tensors="pt").to(self.device)
            logits.append(self.network(**inputs).logits[0].double())
        return torch.stack(logits).mean(0).softmax(0).cpu().numpy()

    def how(self) -> dict[str, Any]:
        """What a result records about this classifier."""
        return describe_network(self.path, self.network) | {
            "classes": int(self.network.config.num_labels),
            "windows": f"fixed, {SECONDS:g} s every {STEP:g} s; mean of logits, softmax",
            "sample_rate": self.rate,
            "resampler": RESAMPLER,
        }
