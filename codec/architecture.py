"""The architecture of an ALMTokenizer: its keys, and which values a codec can have."""

from __future__ import annotations

from math import inf

from transformers import PretrainedConfig

MIN_WINDOW, MAX_WINDOW = 2, 10

# Keys that came after the first checkpoints. At these values they change nothing, so they are left out of the
# fingerprint: tokens keep the tokenizer that made them.
LATER_KEYS: dict[str, object] = {
    "patchify": "stft",
    "conv_filters": 32,
    "conv_ratios": [2, 4, 5, 8],
    "conv_causal": False,
    "semantic_dim": 0,
    "stft_causal": False,
    "bottleneck": "queries",
    "tonal": False,
    "whiten": False,
}


class ALMTokenizerConfig(PretrainedConfig):
    """Architecture of an :class:`ALMTokenizer`; ``configs/codec/*.yaml`` comments each key."""

    model_type = "almtokenizer"

    def __init__(
        self,
        sample_rate: int = 24000,
        hop: int = 320,
        window: int = 6,
        encoder_dim: int = 128,
        encoder_layers: int = 3,
        decoder_dim: int = 192,
        decoder_layers: int = 4,
        head_dim: int = 64,
        ffn: int = 4,
        span: int = 32,
        encoder_block_causal: bool = False,
        decoder_block_causal: bool = False,
        decoder_query_first: bool = False,
        window_basis: int = 5,
        code_dim: int = 64,
        codebook_sizes: tuple[int, ...] = (2048, 2048, 2048),
        codebook_decay: float = 0.99,
        dead_code_share: float = 0.1,
        analysis_ffts: tuple[int, ...] = (640, 1920),
        synthesis_fft: int = 960,
        excitation: bool = True,
        pitch_low: float = 60.0,
        pitch_high: float = 500.0,
        patchify: str = "stft",
        conv_filters: int = 32,
        conv_ratios: tuple[int, ...] = (2, 4, 5, 8),
        conv_causal: bool = False,
        semantic_dim: int = 0,
        stft_causal: bool = False,
        bottleneck: str = "queries",
        tonal: bool = False,
        whiten: bool = False,
        **kwargs: object,
    ) -> None:
        self.sample_rate, self.hop, self.window = sample_rate, hop, window
        self.encoder_dim, self.encoder_layers = encoder_dim, encoder_layers
        self.decoder_dim, self.decoder_layers = decoder_dim, decoder_layers
        self.head_dim, self.ffn, self.span = head_dim, ffn, span
        self.encoder_block_causal, self.decoder_block_causal = encoder_block_causal, decoder_block_causal
        self.decoder_query_first = decoder_query_first
        self.window_basis = window_basis
        self.code_dim, self.codebook_sizes = code_dim, list(codebook_sizes)
        self.codebook_decay, self.dead_code_share = codebook_decay, dead_code_share
        self.analysis_ffts, self.synthesis_fft = list(analysis_ffts), synthesis_fft
        self.excitation, self.pitch_low, self.pitch_high = excitation, pitch_low, pitch_high
        self.patchify, self.conv_filters, self.conv_ratios = patchify, conv_filters, list(conv_ratios)
        self.conv_causal, self.semantic_dim, self.stft_causal = conv_causal, semantic_dim, stft_causal
        self.bottleneck, self.tonal = bottleneck, tonal
        self.whiten = whiten
        super().__init__(**kwargs)


# key -> its least and its greatest value
RANGES = {
    "sample_rate": (1, inf),
    "hop": (1, inf),
    "encoder_dim": (1, inf),
    "encoder_layers": (1, inf),
    "decoder_dim": (1, inf),
    "decoder_layers": (1, inf),
    "head_dim": (2, inf),
    "ffn": (1, inf),
    "span": (1, inf),
    "window_basis": (0, inf),
    "code_dim": (1, inf),
    "codebook_decay": (0, 1),
    "dead_code_share": (0, 1),
    "conv_filters": (1, inf),
    "semantic_dim": (0, inf),
}
CHOICES = {"patchify": ("stft", "conv", "patch"), "bottleneck": ("queries", "strided")}


def check_window(window: int) -> None:
    """Refuse a window outside 2…10."""
    if not MIN_WINDOW <= window <= MAX_WINDOW:
        raise ValueError(f"window={window} is outside {MIN_WINDOW}…{MAX_WINDOW} frames per query.")


def check_architecture(config: ALMTokenizerConfig) -> None:
    """Refuse values that no codec can have.

    Raises:
        ValueError: in one sentence, with the key.
    """
    for key, choices in CHOICES.items():
        if getattr(config, key) not in choices:
            raise ValueError(f"{key}={getattr(config, key)} is none of {', '.join(choices)}.")
    check_window(config.window)
    for key, (least, most) in RANGES.items():
        if not least <= getattr(config, key) <= most:
            limits = f"at least {least}" if most == inf else f"from {least} to {most}"
            raise ValueError(f"{key}={getattr(config, key)} must be {limits}.")
    if not config.codebook_sizes or min(config.codebook_sizes) < 2:
        raise ValueError(f"codebook_sizes={config.codebook_sizes}: give at least one level, each of at least 2 codes.")
    if config.bottleneck == "queries" and config.head_dim % 2:
        raise ValueError(f"head_dim={config.head_dim} must be even: rotary positions turn pairs.")
    if config.patchify != "stft":
        return
    if not config.analysis_ffts or min(config.analysis_ffts) < 2:
        raise ValueError(f"analysis_ffts={config.analysis_ffts}: give the window of at least one spectrum, in samples.")
    if config.synthesis_fft < config.hop or config.synthesis_fft % 2:
        raise ValueError(f"synthesis_fft={config.synthesis_fft} must be even and at least the hop of {config.hop}.")
    if config.excitation and not 0 < config.pitch_low < config.pitch_high < config.sample_rate / 2:
        raise ValueError(
            f"pitch_low={config.pitch_low:g} and pitch_high={config.pitch_high:g} must rise between 0 Hz and half the "
            f"sample rate of {config.sample_rate} Hz."
        )
