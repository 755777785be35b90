"""Where a training begins: from a checkpoint of its own, from a trained model, from a text model, or from nothing."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from omegaconf import DictConfig
from torch import Tensor
from transformers import AutoModelForCausalLM

from codec.load import shipped_codec
from lm.model import build_lm, llama_config, load_lm, load_vocabulary
from lm.network.head import ModelError
from lm.recipe.tuning import check_targets
from lm.run_state import pattern_name
from lm.sequences.text_tokenizer import load_text_tokenizer, train_text_tokenizer
from lm.sequences.vocabulary import AudioVocabulary
from tasks.base import Task
from tasks.document import TextSegment
from training.config import ConfigError
from training.pretrained import PretrainedError, load_config


def check_start(cfg: DictConfig) -> None:
    """Refuse what a training could not begin with, before any work.

    Raises:
        ConfigError: rows longer than the model's positions.
        ModelError, VocabularyError, TextTokenizerError: no such model, or one that cannot be used.
    """
    try:
        if cfg.init:
            load_vocabulary(Path(cfg.init))
            config = load_config(cfg.init)
        elif cfg.lm.pretrained:
            config = load_config(cfg.lm.pretrained)
            load_text_tokenizer(cfg.lm.pretrained)
        else:
            config = llama_config(cfg.lm.config, 8, "lm.config")
    except PretrainedError as error:
        raise ModelError(str(error)) from None
    if cfg.lm.variant == "depth" and not cfg.init:
        llama_config(cfg.lm.depth, 8, "lm.depth")
    places = getattr(config.get_text_config(), "max_position_embeddings", None)
    if places and cfg.trainer.row_length > places:
        raise ConfigError(
            f"trainer.row_length={cfg.trainer.row_length} is more than the {places} positions of "
            f"{cfg.init or cfg.lm.pretrained or 'lm.config.max_position_embeddings'}."
        )
    if cfg.tuning.method == "lora":
        with torch.device("meta"):
            check_targets(AutoModelForCausalLM.from_config(config, trust_remote_code=False), cfg.tuning.targets)


def starting_point(
    cfg: DictConfig,
    trained: str | Path | None,
    description: dict[str, Any],
    vectors: Sequence[Tensor] | None,
    rows: Sequence[Any],
    task: Task,
    run_dir: Path,
    accelerator: Accelerator,
) -> tuple[Any, AudioVocabulary, Any]:
    """(model, vocabulary, text tokenizer).

    Args:
        trained: folder of a language model to go on from, or None.
        description: `AudioTokenizer.describe()`.
        vectors: code vectors per level, for ``lm.init_rows=codebook``.
        rows: train rows of the task; their texts train a text tokenizer where there is none.

    Raises:
        VocabularyError: ``trained`` speaks the tokens of another tokenizer.
        ModelError, TextTokenizerError: a model or texts that cannot be used.
    """
    if trained:
        model, vocabulary, text_tokenizer = load_lm(trained)
        if cfg.adopt_tokenizer and tuple(description["codebook_sizes"]) == vocabulary.codebook_sizes:
            vocabulary = dataclasses.replace(vocabulary, tokenizer=description)
        where = f"the tokenizer of this training ({description['name']})"
        vocabulary.check_tokenizer(description, where, shipped_codec)
        return model, vocabulary, text_tokenizer
    if cfg.lm.pretrained:
        text_tokenizer = load_text_tokenizer(cfg.lm.pretrained)
    else:
        folder = run_dir / "text_tokenizer"
        if accelerator.is_main_process:
            train_text_tokenizer(texts_of(rows, task), cfg.lm.text_tokenizer.vocab_size, folder)
        accelerator.wait_for_everyone()
        text_tokenizer = load_text_tokenizer(folder)
    sizes = tuple(description["codebook_sizes"])
    vocabulary = AudioVocabulary(len(text_tokenizer), sizes, description, pattern=pattern_name(cfg.lm))
    return build_lm(cfg.lm, vocabulary, cfg.seed, vectors), vocabulary, text_tokenizer


def texts_of(rows: Sequence[Any], task: Task) -> Iterator[str]:
    """Every text of the documents of ``rows``, in all their variants."""
    for row in rows:
        for variant in range(task.variants(row)):
            for segment in task.document(row, variant=variant).segments:
                if isinstance(segment, TextSegment) and segment.text:
                    yield segment.text
