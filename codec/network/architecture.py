"""The architecture of an ALMTokenizer: its keys, and which values a codec can have."""

from __future__ import annotations

from inspect import signature

from transformers import PretrainedConfig

from training.config import BELOW_ONE, fits_number, range_in_words

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


# key -> its least and its greatest value; what is larger is no codec's, but would take the memory before it is missed
LARGEST, MOST_LAYERS = 1_000_000, 1000
RANGES = {
    "sample_rate": (1, LARGEST),
    "hop": (1, LARGEST),
    "encoder_dim": (1, LARGEST),
    "encoder_layers": (1, MOST_LAYERS),
    "decoder_dim": (1, LARGEST),
    "decoder_layers": (1, MOST_LAYERS),
    "head_dim": (2, LARGEST),
    "ffn": (1, MOST_LAYERS),
    "span": (1, LARGEST),
    "window_basis": (0, MOST_LAYERS),
    "code_dim": (1, LARGEST),
    "codebook_decay": (0, BELOW_ONE),
    "dead_code_share": (0, 1),
    "conv_filters": (1, LARGEST),
    "semantic_dim": (0, LARGEST),
    "synthesis_fft": (0, LARGEST),
}
CHOICES = {"patchify": ("stft", "conv", "patch"), "bottleneck": ("queries", "strided")}


def check_window(window: int) -> None:
    """Refuse a window outside 2…10."""
    if not MIN_WINDOW <= window <= MAX_WINDOW:
        raise ValueError(f"window={window} is outside {MIN_WINDOW}…{MAX_WINDOW} frames per query.")


def check_types(config: ALMTokenizerConfig) -> None:
    """Refuse values of another kind than the defaults.

    Raises:
        ValueError: in one sentence, with the key.
    """
    for key, parameter in signature(ALMTokenizerConfig.__init__).parameters.items():
        default, value = parameter.default, getattr(config, key, None)
        if isinstance(default, bool):
            fits, kind = isinstance(value, bool), "true or false"
        elif isinstance(default, int):
            fits, kind = fits_number(value, whole=True), "a whole number"
        elif isinstance(default, float):
            fits, kind = fits_number(value), "a number"
        elif isinstance(default, tuple):
            fits, kind = isinstance(value, list) and all(fits_number(v, whole=True) for v in value), "whole numbers"
        else:  # self, the further options, and the choices below
            continue
        if not fits:
            raise ValueError(f"{key}={str(value)[:40]} must be {kind}.")


def check_architecture(config: ALMTokenizerConfig) -> None:
    """Refuse values that no codec can have.

    Raises:
        ValueError: in one sentence, with the key.
    """
    check_types(config)
    for key, choices in CHOICES.items():
        if getattr(config, key) not in choices:
            raise ValueError(f"{key}={getattr(config, key)} is none of {', '.join(choices)}.")
    check_window(config.window)
    for key, (least, most) in RANGES.items():
        if not least <= getattr(config, key) <= most:
            above = getattr(config, key) > most
            limits = range_in_words(least, most) if most <= 1 else f"at most {most}" if above else f"at least {least}"
            raise ValueError(f"{key}={getattr(config, key)} must be {limits}.")
    for key in ("codebook_sizes", "analysis_ffts", "conv_ratios"):
        if len(getattr(config, key)) > MOST_LAYERS or max(getattr(config, key), default=0) > LARGEST:
            raise ValueError(f"{key} has more than {MOST_LAYERS} values, or one above {LARGEST}.")
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
