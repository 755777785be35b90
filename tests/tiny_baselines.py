"""Tiny baselines with random weights and codebooks filled with their own latents.

The codebooks of a randomly initialised EnCodec or Mimi are all zero, and those of another distribution than the latents
give one code for everything: each level's codebook is a sample of the residuals that reach it.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from transformers import (
    DacConfig,
    DacModel,
    EncodecConfig,
    EncodecModel,
    MimiConfig,
    MimiModel,
    Wav2Vec2BertConfig,
    Xcodec2Config,
    Xcodec2Model,
)

from codec.baselines.baseline import BaselineTokenizer
from codec.baselines.dac import DacTokenizer
from codec.baselines.encodec import EncodecTokenizer
from codec.baselines.mimi import MimiTokenizer
from codec.baselines.seanet import ResidualCodebooks
from codec.baselines.speechtokenizer import SpeechTokenizer, SpeechTokenizerConfig, SpeechTokenizerModel
from codec.baselines.stablecodec import StableCodec, StableCodecConfig, StableCodecModel
from codec.baselines.taae import TAAEConfig
from codec.baselines.wavtokenizer import WavTokenizer, WavTokenizerConfig, WavTokenizerModel
from codec.baselines.xcodec2 import Xcodec2Tokenizer


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


def fill_codebooks(quantizer: ResidualCodebooks, latents: Tensor) -> None:
    """Codebooks of one of our ports from ``latents [1, dim, frames]``."""
    books = [layer.embed for layer in quantizer.layers]  # type: ignore[union-attr]
    fill(latents[0].T, [book.copy_ for book in books], len(books[0]))


@torch.no_grad()
def tiny_speechtokenizer(levels: int = 3, seed: int = 0) -> SpeechTokenizer:
    torch.manual_seed(seed)
    config = SpeechTokenizerConfig(
        n_filters=2,
        strides=[8, 5, 4, 2],
        dimension=16,
        bidirectional=True,
        dilation_base=2,
        residual_kernel_size=3,
        n_residual_layers=1,
        lstm_layers=1,
        activation="ELU",
        codebook_size=32,
        n_q=4,
        sample_rate=16000,
    )
    model = SpeechTokenizerModel(config).eval()
    fill_codebooks(model.quantizer, model.encoder(noise(24000)[:, None]))
    return SpeechTokenizer(model, levels)


@torch.no_grad()
def tiny_wavtokenizer(levels: int = 1, seed: int = 0) -> WavTokenizer:
    torch.manual_seed(seed)
    config = WavTokenizerConfig(
        ratios=[6, 5, 5, 4],
        codebook_size=32,
        dim=64,
        intermediate=48,
        layers=1,
        conditions=4,
        filters=2,
        latent=16,
        n_fft=2400,
        hop=600,
    )
    model = WavTokenizerModel(config).eval()
    fill_codebooks(model.quantizer, model.encoder(noise(24000)[:, None]))
    return WavTokenizer(model, levels)


def tiny_stablecodec(levels: int = 1, seed: int = 0) -> StableCodec:
    torch.manual_seed(seed)
    half = TAAEConfig(16, 6, (1, 2), (1, 2), (1, 1), sliding_window=(7, 8))
    model = StableCodecModel(StableCodecConfig(half, half, 16000, 640, patch=320)).eval()
    with torch.no_grad():
        model.encoder.layers[-1].weight.mul_(4)
    return StableCodec(model, levels)


def tiny_xcodec2(levels: int = 1, seed: int = 0) -> Xcodec2Tokenizer:
    torch.manual_seed(seed)
    hears = Wav2Vec2BertConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        vocab_size=None,
        conv_depthwise_kernel_size=3,
        output_hidden_size=16,
    )
    config = Xcodec2Config(
        hidden_size=64,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=4,
        head_dim=16,
        encoder_hidden_size=2,
        semantic_model_config=hears.to_dict(),
        quantization_dim=80,
    )
    model = Xcodec2Model(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:  # transformers' initialisation passes next to nothing on
                torch.nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5)
    tokenizer = Xcodec2Tokenizer(model, levels)
    project = model.quantizer.project_in
    seen: list[Tensor] = []
    hook = project.register_forward_hook(lambda module, inputs, output: seen.append(output[0]))
    tokenizer.encode(noise(24000))
    hook.remove()
    spread = seen[0].std(0)
    with torch.no_grad():
        project.bias.copy_((project.bias - seen[0].mean(0)) / spread)
        project.weight.div_(spread[:, None])
    return tokenizer


TINY: dict[str, Callable[..., BaselineTokenizer]] = {
    "encodec": tiny_encodec,
    "dac": tiny_dac,
    "mimi": tiny_mimi,
    "speechtokenizer": tiny_speechtokenizer,
    "wavtokenizer": tiny_wavtokenizer,
    "stablecodec": tiny_stablecodec,
    "xcodec2": tiny_xcodec2,
}
