"""SpeechTokenizer (Zhang et al., 2024, arXiv 2308.16692): our own port, reading the public checkpoints.

16 kHz, 50 frames/s, 8 levels of 1024 codes, the first distilled from HuBERT; 3 levels give 1.5 kbit/s. It was trained
with all 8 levels always on, so fewer are off its training point. Not causal: its encoder's LSTM runs in both
directions.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from codec.baselines.baseline import BaselineTokenizer, check_levels
from codec.baselines.seanet import ResidualCodebooks, SEANetDecoder, SEANetEncoder, own_keys
from codec.baselines.weights import PublicWeights, fold_weight_norm, load_every_key, read_weights
from codec.interface import TokenizerError

WEIGHTS = PublicWeights(
    name="speechtokenizer",
    repository="fnlp/SpeechTokenizer",
    files=("speechtokenizer_hubert_avg/config.json", "speechtokenizer_hubert_avg/SpeechTokenizer.pt"),
    size="about 480 MB",
    licence="code and weights Apache-2.0",
)
UNUSED = (
    r"transform\.",  # projects the first level to HuBERT's width, for the distillation loss
    r".*\._codebook\.(inited|cluster_size|embed_avg)$",  # state of the codebooks' training
)


@dataclass(frozen=True)
class SpeechTokenizerConfig:
    """The keys of the checkpoint's config.json that shape the network; the others belong to its training."""

    n_filters: int
    strides: list[int]
    dimension: int
    bidirectional: bool
    dilation_base: int
    residual_kernel_size: int
    n_residual_layers: int
    lstm_layers: int
    activation: str
    codebook_size: int
    n_q: int
    sample_rate: int

    @classmethod
    def read(cls, file: Path) -> SpeechTokenizerConfig:
        """From config.json; TokenizerError where a key is missing."""
        values = json.loads(file.read_text(encoding="utf-8"))
        missing = [field.name for field in fields(cls) if field.name not in values]
        if missing:
            raise TokenizerError(f"{file} has no key {missing[0]}: it is no SpeechTokenizer configuration.")
        return cls(**{field.name: values[field.name] for field in fields(cls)})


class SpeechTokenizerModel(nn.Module):
    """SEANet with residual codebooks at full width."""

    def __init__(self, config: SpeechTokenizerConfig) -> None:
        super().__init__()
        shape: dict[str, Any] = dict(
            lstm_layers=config.lstm_layers,
            residual_layers=config.n_residual_layers,
            residual_kernel=config.residual_kernel_size,
            dilation_base=config.dilation_base,
            act=config.activation,
        )
        common = (config.n_filters, config.dimension, config.strides)
        self.config = config
        self.encoder = SEANetEncoder(*common, bidirectional=config.bidirectional, **shape)
        self.quantizer = ResidualCodebooks(config.n_q, config.codebook_size, config.dimension)
        self.decoder = SEANetDecoder(*common, **shape)

    def load_checkpoint(self, file: Path) -> None:
        """Read ``SpeechTokenizer.pt``; every key of it is used or listed in UNUSED."""
        state = {key: v.float() if v.is_floating_point() else v for key, v in read_weights(file).items()}
        state = own_keys(fold_weight_norm(state))
        state = {key.replace("quantizer.vq.layers.", "quantizer.layers."): v for key, v in state.items()}
        load_every_key(self, state, UNUSED, file)


class SpeechTokenizer(BaselineTokenizer):
    """The first ``levels`` levels of SpeechTokenizer."""

    name = "speechtokenizer"

    def __init__(self, model: SpeechTokenizerModel, levels: int = 3) -> None:
        config = model.config
        check_levels("speechtokenizer", levels, config.n_q)
        sizes = (config.codebook_size,) * levels
        settings = {"activation": config.activation, "dilation_base": config.dilation_base}
        hop = math.prod(config.strides)
        super().__init__(model, config.sample_rate, hop, sizes, causal=False, settings=settings)

    def encode_clip(self, wav: Tensor) -> Tensor:
        return self.model.quantizer.encode(self.model.encoder(wav[:, None]), self.levels)

    def decode_clip(self, codes: Tensor) -> Tensor:
        return self.model.decoder(self.model.quantizer.decode(codes))[:, 0]


def load(path: str = WEIGHTS.repository, levels: int = 3, device: str | torch.device = "cpu") -> SpeechTokenizer:
    """SpeechTokenizer from a hub id or a folder that holds (or whose one folder holds) config.json and *.pt.

    Raises:
        TokenizerError: no weights, another model, or a level count that it does not have.
    """
    folder = WEIGHTS.folder(path)
    if not (folder / "config.json").is_file() and (folder / "speechtokenizer_hubert_avg").is_dir():
        folder = folder / "speechtokenizer_hubert_avg"
    model = SpeechTokenizerModel(SpeechTokenizerConfig.read(WEIGHTS.file(folder, "config.json")))
    model.load_checkpoint(WEIGHTS.file(folder, "*.pt"))
    return SpeechTokenizer(model, levels).to(device)
