"""What a language model of a comparison is trained with: how long its rows are, how many steps, how many FLOPs."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from training.config import ConfigError, compose, refusing
from training.pretrained import PretrainedError, load_config


@dataclass(frozen=True)
class LanguageModel:
    """The training of a language model: its row length and steps follow from the tokenizer.

    Args:
        c: the comparison.
        tokens: what codec/encode.py recorded.
        overrides: the rest of the command.
    """

    c: DictConfig
    tokens: Path
    overrides: list[str]

    def arguments(self) -> list[str]:
        """Of lm/train.py."""
        tokenizer = json.loads(self.tokens.read_text(encoding="utf-8"))["tokenizer"]
        lm = compose("lm_train", self.overrides).lm
        levels = 1 if lm.variant == "depth" else tokenizer["levels"]
        length = row_length(self.c, tokenizer["frame_rate"] * levels)
        longest = lm.config.max_position_embeddings if not lm.pretrained else length
        if length > longest:
            raise ConfigError(
                f"{self.c.context_seconds:g} s are {length} ids for {tokenizer['name']}, and lm.config."
                f"max_position_embeddings={longest}: raise it in comparison.lm, or lower comparison.context_seconds."
            )
        if self.c.match == "seconds":
            steps = int(self.c.steps)
        else:
            per_step = self.c.batch_rows * length * flops_per_position(lm, tokenizer["codebook_sizes"], length)
            steps = max(1, round(float(self.c.flops) / per_step))
        return [
            *self.overrides, f"trainer.row_length={length}", f"trainer.batch_rows={self.c.batch_rows}",
            f"trainer.max_steps={steps}",
        ]  # fmt: skip


def row_length(c: DictConfig, tokens_per_second: float) -> int:
    """Ids of a row that holds ``context_seconds`` of audio and its texts, rounded up to a multiple of 8."""
    return 8 * math.ceil(c.context_seconds * (tokens_per_second + c.text_rate) / 8)


def flops(parameters: float, layers: int, width: int, length: int) -> float:
    """FLOPs of training on one position: 6·N + 6·layers·width·length.

    6·N: two per parameter of blocks and head forward, four backward (Kaplan et al. 2020, section 2.1; N without the
    input table, which is looked up). The other term is attention over ``length`` positions, half of them on average:
    2 · 2 · width · length / 2 forward and twice that backward, per layer.
    """
    return 6 * parameters + 6 * layers * width * length


def flops_per_position(lm: DictConfig, codebook_sizes: Sequence[int], length: int) -> float:
    """`flops` of a model that is yet to be trained, from ``cfg.lm``."""
    import torch
    from transformers import AutoModelForCausalLM, LlamaConfig

    if lm.variant == "depth":
        raise ConfigError("comparison.match=flops counts models of one stream: give lm.variant=flat, or match=seconds.")
    config: Any
    if lm.pretrained:
        with refusing(PretrainedError):
            config = load_config(lm.pretrained)
        text_rows = config.vocab_size
    else:
        config = LlamaConfig(**OmegaConf.to_container(lm.config, resolve=True))  # type: ignore[arg-type]
        text_rows = lm.text_tokenizer.vocab_size
    config.vocab_size = math.ceil((text_rows + 64 + sum(codebook_sizes)) / 64) * 64
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    total = sum(parameter.numel() for parameter in model.parameters())
    table = config.vocab_size * config.hidden_size
    backbone = total - table * (1 if config.tie_word_embeddings else 2)
    return flops(backbone + table, config.num_hidden_layers, config.hidden_size, length)
