"""The architecture of an ALMTokenizer: its keys, and which values a codec can have."""

from typing import Annotated, Any, cast

from omegaconf import DictConfig, OmegaConf
from transformers import PretrainedConfig

from training.schema import first_fault_in

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
    "pitch_input": False,
    "experts": [],
}

# What is larger is no codec's, but would take the memory before it is missed.
Size = Annotated[int, "int, from 1 to 1000000"]
Count = Annotated[int, "int, from 1 to 1000"]
Dimension = Annotated[int, "int, from 0 to 1000000"]
Sizes = Annotated[list[int], "ints, from 2 to 1000000"]
Share = Annotated[float, "float, at least 0 and below 1"]
Number = Annotated[float, "float"]
Switch = Annotated[bool, "bool"]
MOST = 1000  # values of a list


class ALMTokenizerConfig(PretrainedConfig):
    """Architecture of an :class:`ALMTokenizer`; ``configs/codec/mini.yaml`` comments each key."""

    model_type = "almtokenizer"

    sample_rate: Size = 24000
    hop: Size = 320
    window: Annotated[int, "int"] = 6  # see `check_window`
    encoder_dim: Size = 128
    encoder_layers: Count = 3
    decoder_dim: Size = 192
    decoder_layers: Count = 4
    head_dim: Annotated[int, "int, from 2 to 1000000"] = 64
    ffn: Count = 4
    span: Size = 32
    encoder_block_causal: Switch = False
    decoder_block_causal: Switch = False
    decoder_query_first: Switch = False
    window_basis: Annotated[int, "int, from 0 to 1000"] = 5
    code_dim: Size = 64
    codebook_sizes: Sizes = (2048, 2048, 2048)  # type: ignore[assignment]  # a list of its own is made of it
    codebook_decay: Share = 0.99
    dead_code_share: Share = 0.1
    analysis_ffts: Sizes = (640, 1920)  # type: ignore[assignment]
    synthesis_fft: Dimension = 960
    excitation: Switch = True
    pitch_low: Number = 60.0
    pitch_high: Number = 500.0
    patchify: Annotated[str, "stft | conv | experts"] = "stft"
    conv_filters: Size = 32
    conv_ratios: Annotated[list[int], "ints, at most 1000000"] = (2, 4, 5, 8)  # type: ignore[assignment]
    conv_causal: Switch = False
    semantic_dim: Dimension = 0
    stft_causal: Switch = False
    bottleneck: Annotated[str, "queries | strided"] = "queries"
    tonal: Switch = False
    whiten: Switch = False
    pitch_input: Switch = False
    experts: Annotated[list, "list"] = ()  # type: ignore[assignment]  # codec/network/experts.py, only with experts
    flow: Annotated[dict | None, "dict or null"] = None  # a decoder of codec/network/flow_decoder.py

    def __post_init__(self, **kwargs: object) -> None:
        for key in ("codebook_sizes", "analysis_ffts", "conv_ratios", "experts"):
            if isinstance(given := getattr(self, key), tuple):
                setattr(self, key, list(given))
        super().__post_init__(**kwargs)


def architecture_of(options: DictConfig) -> ALMTokenizerConfig:
    """What ``codec`` of a program's configuration describes, not yet checked."""
    return ALMTokenizerConfig(**cast(dict[str, Any], OmegaConf.to_container(options, resolve=True)))


def check_window(window: int) -> None:
    """Refuse a window outside 2…10."""
    if not MIN_WINDOW <= window <= MAX_WINDOW:
        raise ValueError(f"window={window} is outside {MIN_WINDOW}…{MAX_WINDOW} frames per query.")


def check_architecture(config: ALMTokenizerConfig) -> None:
    """Refuse values that no codec can have.

    Raises:
        ValueError: in one sentence, with the key.
    """
    if fault := first_fault_in(config):
        raise ValueError(fault)
    check_window(config.window)
    for key in ("codebook_sizes", "analysis_ffts", "conv_ratios", "experts"):
        if len(getattr(config, key)) > MOST:
            raise ValueError(f"{key} has more than {MOST} values.")
    if not config.codebook_sizes:
        raise ValueError("codebook_sizes=[]: give at least one level.")
    if config.bottleneck == "queries" and config.head_dim % 2:
        raise ValueError(f"head_dim={config.head_dim} must be even: rotary positions turn pairs.")
    if (config.patchify == "experts") != bool(config.experts):
        raise ValueError(f"patchify={config.patchify} and {len(config.experts)} experts: give both, or neither.")
    if config.patchify == "conv":
        return
    if not config.analysis_ffts:
        raise ValueError(f"analysis_ffts={config.analysis_ffts}: give the window of at least one spectrum, in samples.")
    if config.synthesis_fft < config.hop or config.synthesis_fft % 2:
        raise ValueError(f"synthesis_fft={config.synthesis_fft} must be even and at least the hop of {config.hop}.")
    if (
        config.excitation or config.pitch_input
    ) and not 0 < config.pitch_low < config.pitch_high < config.sample_rate / 2:
        raise ValueError(
            f"pitch_low={config.pitch_low:g} and pitch_high={config.pitch_high:g} must rise between 0 Hz and half the "
            f"sample rate of {config.sample_rate} Hz."
        )
