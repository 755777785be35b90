"""A tiny codec for tests: the architecture of the real one, random weights, used codes spread over the codebooks."""

import torch

from codec.model import ALMTokenizer
from codec.network.architecture import ALMTokenizerConfig


def tiny_codec(seed: int = 0, **changes: object) -> ALMTokenizer:
    """An ALMTokenizer of some ten thousand parameters; codebooks are samples of its own latents (random codebooks
    would give one code for everything, and a test on shapes would pass on a dead quantiser)."""
    torch.manual_seed(seed)
    values: dict = dict(
        encoder_dim=16,
        encoder_layers=2,
        decoder_dim=16,
        decoder_layers=2,
        head_dim=8,
        ffn=2,
        span=12,
        code_dim=4,
        codebook_sizes=(32, 32, 32),
        analysis_ffts=(640,),
        synthesis_fft=640,
    )
    codec = ALMTokenizer(ALMTokenizerConfig(**{**values, **changes})).eval()
    with torch.no_grad():
        wav = torch.randn(4, 320 * 6 * 30) * torch.rand(4, 1) * torch.linspace(0, 1, 320 * 6 * 30)
        latents = codec.quantizer(codec.encode_latents(wav, 6), bypass=True).inputs.flatten(0, 1)
        codec.quantizer.initialise(latents, 10.0, 5, torch.Generator().manual_seed(seed))
    return codec
