"""Mimi (Défossez et al., 2024, arXiv 2410.00037) through transformers.

24 kHz, 12.5 frames/s; the first level is distilled from a speech model, 31 acoustic levels of 2048 codes follow.
8 levels give 1.1 kbit/s (as in Moshi), 3 levels 0.41 kbit/s. Causal, one frame of 80 ms.
"""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import MimiModel

from codec.baselines.baseline import BaselineTokenizer, check_levels
from codec.baselines.weights import PublicWeights, load_transformers

WEIGHTS = PublicWeights(
    name="mimi",
    repository="kyutai/mimi",
    files=("config.json", "model.safetensors"),
    size="about 385 MB",
    licence="code MIT, weights CC-BY-4.0",
)


class MimiTokenizer(BaselineTokenizer):
    """The first ``levels`` levels of Mimi, the semantic one first."""

    name = "mimi"

    def __init__(self, model: MimiModel, levels: int = 8) -> None:
        config = model.config
        check_levels("mimi", levels, config.num_quantizers, least=config.num_semantic_quantizers)
        super().__init__(
            model,
            config.sampling_rate,
            round(config.sampling_rate / config.frame_rate),
            (config.codebook_size,) * levels,
            causal=config.use_causal_conv,
            settings={
                "sliding_window": config.sliding_window,
                "num_semantic_quantizers": config.num_semantic_quantizers,
            },
        )

    def encode_clip(self, wav: Tensor) -> Tensor:
        return self.model.encode(wav[:, None], num_quantizers=self.levels).audio_codes

    def decode_clip(self, codes: Tensor) -> Tensor:
        return self.model.decode(codes).audio_values[:, 0]


def load(path: str = WEIGHTS.repository, levels: int = 8, device: str | torch.device = "cpu") -> MimiTokenizer:
    """Mimi from a folder or hub id; ``levels`` 1…32 (8: 1.1 kbit/s, 3: 0.41 kbit/s).

    Raises:
        TokenizerError: no weights, another model, or a level count that it does not have.
    """
    return MimiTokenizer(load_transformers(MimiModel, WEIGHTS, path), levels).to(device)
