"""Tiny baselines with random weights and codebooks filled with their own latents.

The codebooks of a randomly initialised EnCodec or Mimi are all zero, and those of another distribution than the latents
give one code for everything: each level's codebook is a sample of the residuals that reach it.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from transformers import DacConfig, DacModel, EncodecConfig, EncodecModel, MimiConfig, MimiModel

from codec.baselines.baseline import BaselineTokenizer
from codec.baselines.dac import DacTokenizer
from codec.baselines.encodec import EncodecTokenizer
from codec.baselines.mimi import MimiTokenizer


def noise(samples: int, seed: int = 0, rows: int = 1) -> Tensor:
    """``[rows, samples]``: filtered noise whose loudness and colour change, so that latents are spread out."""
    generator = torch.Generator().manual_seed(seed)
    white = torch.randn(rows, samples, generator=generator)
    slow = torch.nn.functional.interpolate(
        torch.rand(rows, 2, samples // 400 + 2, generator=generator), samples, mode="linear"
    )
    smooth = torch.nn.functional.avg_pool1d(white, 9, 1, 4)
    return 0.5 * slow[:, 0] * (slow[:, 1] * white + (1 - slow[:, 1]) * 3 * smooth)


def fill(latents: Tensor, set_codebook: list[Callable[[Tensor], None]], size: int) -> None:
    """Residual codebooks, level by level: ``latents [n, dim]``; each setter stores its ``[size, dim]``."""
    generator = torch.Generator().manual_seed(7)
    for store in set_codebook:
        chosen = latents[torch.randperm(len(latents), generator=generator)[:size]]
        codebook = torch.cat([chosen, chosen.new_zeros(size - len(chosen), chosen.shape[1])])
        store(codebook.clone())
        latents = latents - codebook[torch.cdist(latents, codebook).argmin(dim=1)]


@torch.no_grad()
def tiny_encodec(levels: int = 2, seed: int = 0) -> EncodecTokenizer:
    torch.manual_seed(seed)
    config = EncodecConfig(num_filters=4, hidden_size=16, codebook_size=32, target_bandwidths=[0.75, 3.0])
    model = EncodecModel(config).eval()
    latents = model.encoder(noise(24000)[:, None])[0].T
    fill(latents, [layer.codebook.embed.copy_ for layer in model.quantizer.layers], 32)
    return EncodecTokenizer(model, levels)


def tiny_dac(levels: int = 2, seed: int = 0) -> DacTokenizer:
    torch.manual_seed(seed)
    config = DacConfig(
        sampling_rate=24000,
        downsampling_ratios=[2, 4, 5, 8],
        encoder_hidden_size=4,
        decoder_hidden_size=32,
        n_codebooks=4,
        codebook_size=32,
        codebook_dim=4,
    )
    return DacTokenizer(DacModel(config), levels)


@torch.no_grad()
def tiny_mimi(levels: int = 3, seed: int = 0) -> MimiTokenizer:
    torch.manual_seed(seed)
    config = MimiConfig(
        hidden_size=32,
        num_filters=4,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        intermediate_size=32,
        codebook_size=32,
        codebook_dim=8,
        vector_quantization_hidden_dimension=8,
        num_quantizers=4,
        upsample_groups=32,
    )
    model = MimiModel(config).eval()
    latents: list[Tensor] = []
    hook = model.quantizer.semantic_residual_vector_quantizer.input_proj.register_forward_pre_hook(
        lambda module, inputs: latents.append(inputs[0])
    )
    model.encode(noise(96000)[:, None], num_quantizers=1)
    hook.remove()
    for stage in (
        model.quantizer.semantic_residual_vector_quantizer,
        model.quantizer.acoustic_residual_vector_quantizer,
    ):
        setters = []
        for layer in stage.layers:
            layer.codebook._embed = None  # a cache of embed_sum / cluster_usage
            setters.append(layer.codebook.embed_sum.copy_)
        fill(stage.input_proj(latents[0])[0].T, setters, 32)
    return MimiTokenizer(model, levels)


TINY: dict[str, Callable[..., BaselineTokenizer]] = {
    "encodec": tiny_encodec,
    "dac": tiny_dac,
    "mimi": tiny_mimi,
}
