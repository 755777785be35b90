"""A tiny codec for tests: the architecture of the real one, random weights, used codes spread over the codebooks."""

import copy

import torch

from codec.model import ALMTokenizer
from codec.network.architecture import ALMTokenizerConfig

# no queries; five units each way, so that every dilation occurs and one occurs twice
STRIDED = {"encoder_layers": 4, "decoder_layers": 4, "bottleneck": "strided"}

_MADE: dict[str, tuple[ALMTokenizer, torch.Tensor]] = {}  # and what was drawn next


def tiny_codec(seed: int = 0, **changes: object) -> ALMTokenizer:
    """An ALMTokenizer of some ten thousand parameters; codebooks are samples of its own latents (random codebooks
    would give one code for everything, and a test on shapes would pass on a dead quantiser)."""
    key = repr((seed, changes))
    if key not in _MADE:
        _MADE[key] = _make(seed, changes), torch.get_rng_state()
    codec, drawn = _MADE[key]
    torch.set_rng_state(drawn)
    return copy.deepcopy(codec)


def _make(seed: int, changes: dict[str, object]) -> ALMTokenizer:
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


def tiny_flow_codec(flow: dict | None = None, **changes: object) -> ALMTokenizer:
    """:func:`tiny_codec` with a flow decoder whose network, as that of a trained one, has its say."""
    base = tiny_codec(**changes)
    small = dict(target="partials", dim=16, layers=1, span=12)
    codec = tiny_codec(**changes, flow={**small, **(flow or {})})
    codec.load_state_dict(base.state_dict(), strict=False)  # its construction drew more
    assert codec.flow is not None
    generator = torch.Generator().manual_seed(3)
    network = codec.flow.network
    with torch.no_grad():
        for linear, size in ((network.leave, 0.1), (network.modulation, 0.05)):
            linear.weight.normal_(std=size, generator=generator)
        codec.flow.nothing.normal_(generator=generator)
        codec.flow.mean.fill_(0.0 if codec.flow.config.target == "latent" else -7.0)  # sound below 1
        if codec.flow.config.target == "partials":
            codec.flow.mean[codec.flow.target.dim // 2 :] = 0.0
            codec.flow.deviation[codec.flow.target.dim // 2 :] = 0.5
        codec.flow.residual.fill_(0.7)
    return codec
