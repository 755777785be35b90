"""CLAP (Wu et al. 2023) through transformers: one space for audio and captions.

Clips longer than 10 s are cut into fixed windows of 10 s, one every second, and a last one that ends with the clip;
transformers' own processing would take a random crop instead, and the score would change from call to call. Shorter
clips are repeated until 10 s, as the network was trained. Samples pass through 16 bit and captions end at 77 tokens, as
in the reference code.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoTokenizer, ClapFeatureExtractor, ClapModel

from eval.harness.audio import RESAMPLER, Wave, check_wave, resample
from eval.harness.networks import describe_network, load_network, load_part

SECONDS, STEP = 10.0, 1.0
CAPTION_TOKENS = 77
SHORTEST = 0.1  # s


def windows(samples: Wave, size: int, step: int) -> list[Wave]:
    """Fixed windows ``[size]`` every ``step`` samples and a last one at the end; a short clip is one shorter window."""
    if len(samples) <= size:
        return [samples]
    starts = list(range(0, len(samples) - size + 1, step))
    if starts[-1] + size < len(samples):
        starts.append(len(samples) - size)
    return [samples[start : start + size] for start in starts]


def pooled(output: Any) -> torch.Tensor:
    """The joint embedding ``[batch, d]``: a tensor in some versions of transformers, in an output object in others."""
    return output if isinstance(output, torch.Tensor) else output.pooler_output


class Clap:
    """A CLAP network with its processing.

    Args:
        path: folder or hub id (``laion/clap-htsat-unfused`` = LAION's 630k-audioset-best).
    """

    name = "clap"

    def __init__(self, path: str, device: str = "cpu") -> None:
        self.network = load_network(ClapModel, path, device, "clap")
        self.extractor = load_part(ClapFeatureExtractor, path, "clap")
        self.tokenizer = load_part(AutoTokenizer, path, "clap")
        self.path, self.device = path, device
        self.rate = int(self.extractor.sampling_rate)

    @torch.inference_mode()
    def embed(self, wav: Wave, sample_rate: int) -> NDArray[np.float32]:
        """``[windows, d]`` of length 1 each.

        Raises:
            CannotScore: no audio, NaN, or shorter than 0.1 s.
        """
        check_wave(wav, sample_rate, SHORTEST)
        samples = resample(wav, sample_rate, self.rate).clip(-1.0, 1.0)
        samples = (samples * 32767.0).astype(np.int16).astype(np.float32) / 32767.0
        found = []
        for window in windows(samples, int(SECONDS * self.rate), int(STEP * self.rate)):
            # one window at a time: with several, the fused variant marks a random one of them as long
            inputs = self.extractor(window, sampling_rate=self.rate, return_tensors="pt").to(self.device)
            vector = pooled(self.network.get_audio_features(**inputs))[0].float().cpu().numpy()
            found.append(vector / np.linalg.norm(vector))
        return np.stack(found).astype(np.float32)

    @torch.inference_mode()
    def embed_texts(self, captions: list[str]) -> NDArray[np.float32]:
        """``[captions, d]`` of length 1 each."""
        inputs = self.tokenizer(
            captions, padding=True, truncation=True, max_length=CAPTION_TOKENS, return_tensors="pt"
        ).to(self.device)
        vectors = pooled(self.network.get_text_features(**inputs)).float().cpu().numpy()
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    def how(self) -> dict[str, Any]:
        """What a result records about this network."""
        return describe_network(self.path, self.network) | {
            "sample_rate": self.rate,
            "windows": f"fixed, {SECONDS:g} s every {STEP:g} s",
            "caption_tokens": CAPTION_TOKENS,
            "resampler": RESAMPLER,
        }
