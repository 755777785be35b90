"""EnCodec, 24 kHz (Défossez et al., 2022, arXiv 2210.13438) through transformers.

75 frames/s; 32 levels of 1024 codes, of which 2 give 1.5 kbit/s. It was trained with bandwidth dropout, so the first
k levels are an operating point for each k. Its convolutions are causal but pad a clip's start by reflection: its first
frames see a few frames ahead.
"""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import EncodecModel

from codec.baselines.baseline import LatentBaseline, check_levels, encode_levels
from codec.baselines.weights import PublicWeights, load_transformers
from codec.interface import TokenizerError

WEIGHTS = PublicWeights(
    name="encodec",
    repository="facebook/encodec_24khz",
    files=("config.json", "model.safetensors"),
    size="about 93 MB",
    licence="code MIT; the licence of the weights is not stated clearly by their authors",
)


class EncodecTokenizer(LatentBaseline):
    """The first ``levels`` levels of an EnCodec without chunks and without loudness normalisation (24 kHz)."""

    name = "encodec"

    def __init__(self, model: EncodecModel, levels: int = 2) -> None:
        config = model.config
        if config.chunk_length is not None or config.normalize or config.audio_channels != 1:
            # Their scales and overlapping chunks are a second stream beside the codes.
            raise TokenizerError("encodec: only the mono model without chunks is supported, facebook/encodec_24khz.")
        check_levels("encodec", levels, config.num_quantizers)
        super().__init__(
            model,
            config.sampling_rate,
            config.hop_length,
            (config.codebook_size,) * levels,
            causal=config.use_causal_conv,
            settings={"pad_mode": config.pad_mode, "dilation_growth_rate": config.dilation_growth_rate},
        )

    def latents_of_clip(self, wav: Tensor) -> Tensor:
        return self.model.encoder(wav[:, None])[0].T

    def quantise(self, z: Tensor) -> Tensor:
        # model.encode() takes one of a few published bandwidths; the residual quantiser itself takes any level count.
        return encode_levels(self.model.quantizer.layers[: self.levels], z)

    def vectors(self, codes: Tensor) -> Tensor:
        return self.model.quantizer.decode(codes.T[:, None].to(self.device))[0].T

    def sound_of_latents(self, z: Tensor) -> Tensor:
        return self.model.decoder(z.T[None])[:, 0]


def load(path: str = WEIGHTS.repository, levels: int = 2, device: str | torch.device = "cpu") -> EncodecTokenizer:
    """EnCodec from a folder or hub id; ``levels`` 1…32 (2: 1.5 kbit/s).

    Raises:
        TokenizerError: no weights, another model, or a level count that it does not have.
    """
    return EncodecTokenizer(load_transformers(EncodecModel, WEIGHTS, path), levels).to(device)
