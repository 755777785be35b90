"""Mimi (Défossez et al., 2024, arXiv 2410.00037) through transformers.

24 kHz, 12.5 frames/s; the first level is distilled from a speech model, 31 acoustic levels of 2048 codes follow.
8 levels give 1.1 kbit/s (as in Moshi), 3 levels 0.41 kbit/s. Causal, one frame of 80 ms.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import MimiModel

from codec.baselines.baseline import BaselineTokenizer, check_levels, encode_levels
from codec.baselines.weights import PublicWeights, load_transformers
from codec.interface import HasLatents

WEIGHTS = PublicWeights(
    name="mimi",
    repository="kyutai/mimi",
    files=("config.json", "model.safetensors"),
    size="about 385 MB",
    licence="code MIT, weights CC-BY-4.0",
)


class MimiTokenizer(BaselineTokenizer, HasLatents):
    """The first ``levels`` levels of Mimi, the semantic one first."""

    name = "mimi"

    def __init__(self, model: MimiModel, levels: int = 8) -> None:
        config = model.config
        self.semantic = config.num_semantic_quantizers  # levels
        check_levels("mimi", levels, config.num_quantizers, least=self.semantic)
        super().__init__(
            model,
            config.sampling_rate,
            round(config.sampling_rate / config.frame_rate),
            (config.codebook_size,) * levels,
            causal=config.use_causal_conv,
            settings={"sliding_window": config.sliding_window, "num_semantic_quantizers": self.semantic},
        )

    def encode_clip(self, wav: Tensor) -> Tensor:
        return self.model.encode(wav[:, None], num_quantizers=self.levels).audio_codes

    def decode_clip(self, codes: Tensor) -> Tensor:
        return self.model.decode(codes).audio_values[:, 0]

    # Two quantisers side by side see a projection each, and what they give is projected back and added: the space is
    # that of both projections, one after the other. They are met there, as versions of transformers differ elsewhere.
    def latents_of_clip(self, wav: Tensor) -> Tensor:
        seen: list[Tensor] = []
        hooks = [part.input_proj.register_forward_hook(lambda _, __, found: seen.append(found)) for part in self._parts]
        try:
            self.model.encode(wav[:, None], num_quantizers=self.semantic + 1)
        finally:
            for hook in hooks:
                hook.remove()
        return torch.cat(seen, dim=1)[0].T

    def quantise(self, z: Tensor) -> Tensor:
        parts = zip(self._parts, z.chunk(2, dim=1), (self.semantic, self.levels - self.semantic), strict=True)
        return torch.cat([encode_levels(part.layers[:levels], half) for part, half, levels in parts], dim=1)

    def vectors(self, codes: Tensor) -> Tensor:
        codes = codes.to(self.device)
        halves = []
        for part, own in zip(self._parts, codes.tensor_split([self.semantic], dim=1), strict=True):
            vector = torch.zeros(len(codes), part.output_proj.in_channels, device=self.device)
            for layer, column in zip(part.layers, own.T, strict=False):
                vector = vector + layer.codebook.decode(column)
            halves.append(vector)
        return torch.cat(halves, dim=1)

    def sound_of_latents(self, z: Tensor) -> Tensor:
        halves = (half.T[None] for half in z.chunk(2, dim=1))
        levels = self.semantic + int(self.levels > self.semantic)
        hooks = [part.output_proj.register_forward_pre_hook(lambda _, __: (next(halves),)) for part in self._parts]
        try:
            anything = torch.zeros(1, levels, len(z), dtype=torch.long, device=self.device)
            return self.model.decode(anything).audio_values[:, 0]
        finally:
            for hook in hooks:
                hook.remove()

    @property
    def _parts(self) -> tuple[nn.Module, nn.Module]:
        quantizer = self.model.quantizer
        return quantizer.semantic_residual_vector_quantizer, quantizer.acoustic_residual_vector_quantizer


def load(path: str = WEIGHTS.repository, levels: int = 8, device: str | torch.device = "cpu") -> MimiTokenizer:
    """Mimi from a folder or hub id; ``levels`` 1…32 (8: 1.1 kbit/s, 3: 0.41 kbit/s).

    Raises:
        TokenizerError: no weights, another model, or a level count that it does not have.
    """
    return MimiTokenizer(load_transformers(MimiModel, WEIGHTS, path), levels).to(device)
