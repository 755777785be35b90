"""DAC, the Descript audio codec (Kumar et al., 2023, arXiv 2306.06546) through transformers.

24 kHz model: 75 frames/s, 32 levels of 1024 codes, 2 levels = 1.5 kbit/s (the default). 16 kHz model
(``path=descript/dac_16khz levels=3``): 50 frames/s, 12 levels, 3 levels = 1.5 kbit/s. Trained with quantiser dropout,
so the first k levels are an operating point for each k. Not causal.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import DacModel

from codec.baselines.baseline import LatentBaseline, check_levels
from codec.baselines.weights import PublicWeights, load_transformers

WEIGHTS = PublicWeights(
    name="dac",
    repository="descript/dac_24khz",
    files=("config.json", "model.safetensors"),
    size="about 300 MB",
    licence="code and weights MIT",
)


class DacTokenizer(LatentBaseline):
    """The first ``levels`` levels of a DAC of any sample rate."""

    name = "dac"

    def __init__(self, model: DacModel, levels: int = 2) -> None:
        config = model.config
        check_levels("dac", levels, config.n_codebooks)
        sizes = (config.codebook_size,) * levels
        super().__init__(model, config.sampling_rate, config.hop_length, sizes, causal=False)

    def latents_of_clip(self, wav: Tensor) -> Tensor:
        # As the original package does before encoding: zeros up to a whole number of frames.
        wav = nn.functional.pad(wav, (0, -wav.shape[1] % self.samples_per_frame))
        return self.model.encoder(wav[:, None])[0].T

    def quantise(self, z: Tensor) -> Tensor:
        return self.model.quantizer(z.T[None], self.levels)[1][0].T

    def vectors(self, codes: Tensor) -> Tensor:
        return self.model.quantizer.from_codes(codes.T[None].to(self.device))[0][0].T

    def sound_of_latents(self, z: Tensor) -> Tensor:
        # A few samples fewer than frames * samples_per_frame: odd strides lose some in the transposed convolutions.
        return self.model.decode(z.T[None]).audio_values


def load(path: str = WEIGHTS.repository, levels: int = 2, device: str | torch.device = "cpu") -> DacTokenizer:
    """DAC from a folder or hub id; ``levels`` 1…32 (24 kHz) or 1…12 (16 kHz).

    Raises:
        TokenizerError: no weights, another model, or a level count that it does not have.
    """
    return DacTokenizer(load_transformers(DacModel, WEIGHTS, path), levels).to(device)
