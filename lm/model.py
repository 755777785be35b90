"""The language model: a stock LLaMA-style causal LM with an extended vocabulary.

From a config (trained from scratch) or from a pretrained text model whose embedding gains the control and
audio rows. Saved, it is a plain transformers folder plus ``audio_vocabulary.json``; nothing of ours is needed
to load it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch
from omegaconf import DictConfig, OmegaConf
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaModel,
    PreTrainedModel,
)

from lm.network.depth import CONFIG_NAME, add_depth, load_depth
from lm.network.head import ModelError as ModelError
from lm.network.head import head_form
from lm.sequences.text_tokenizer import load_text_tokenizer
from lm.sequences.vocabulary import FILE_NAME, AudioVocabulary, VocabularyError
from training.pretrained import ERRORS, PretrainedError, check_numbers, description, load_model, pinned

ROW_INITS = ("normal", "mean", "codebook")
LAYER = re.compile(r"^(model|transformer|gpt_neox)\.(layers|h)\.\d+\..*(weight|bias)$")  # of a language model's blocks


def build_lm(
    cfg: DictConfig, vocabulary: AudioVocabulary, seed: int, code_vectors: Sequence[Tensor] | None = None
) -> Any:
    """A language model for ``vocabulary``: ``cfg.pretrained`` extended, or a LLaMA of ``cfg.config`` from
    scratch; with ``cfg.variant=depth`` a `lm.network.depth.DepthLM` on it.

    Args:
        cfg: configs/lm/*.yaml.
        seed: of the initialisation.
        code_vectors: per level ``[codes, dim]``, for ``init_rows=codebook``.

    Raises:
        ModelError: options that cannot work, or a pretrained model that cannot be extended.
    """
    torch.manual_seed(seed)
    if cfg.pretrained:
        model = load_weights(cfg.pretrained)
        if model.revision:  # into config.json, and with it into every checkpoint that follows from this one
            model.config.pretrained_from = {"id": pinned(cfg.pretrained)[0], "revision": model.revision}
        extend_vocabulary(model, vocabulary, cfg.init_rows, code_vectors)
        check_head(model, cfg.pretrained)
    else:
        model = LlamaForCausalLM(llama_config(cfg.config, vocabulary.size, "lm.config"))
    set_special_ids(model, vocabulary)
    if cfg.get("variant", "flat") == "depth":
        depth = OmegaConf.to_container(cfg.depth, resolve=True)
        assert isinstance(depth, dict)
        try:
            return add_depth(model, vocabulary, {str(k): v for k, v in depth.items()})
        except ValueError as error:
            raise ModelError(str(error)) from None
    return model


def load_weights(path: str | Path) -> Any:
    """A causal language model of transformers in float32, from a folder or a hub id (`training.pretrained`).

    Raises:
        ModelError: it cannot be loaded, or some of its weights are not there: transformers would draw them at random.
    """
    try:
        model, info = load_model(AutoModelForCausalLM, path)
    except PretrainedError as error:
        raise ModelError(str(error)) from None
    if missing := sorted(info["missing_keys"]):
        raise ModelError(
            f"the checkpoint in '{path}' has no values for {len(missing)} weights of {type(model).__name__} "
            f"({', '.join(missing[:3])} …): it is another model's, or without the head that predicts tokens."
        )
    if unused := [key for key in info["unexpected_keys"] if LAYER.search(key)]:
        raise ModelError(
            f"the checkpoint in '{path}' has {len(unused)} weights of layers that its config.json does not count "
            f"({', '.join(unused[:3])} …): it is another model's."
        )
    return model


def check_head(model: Any, path: str | Path) -> None:
    """Refuse a model whose loss and generation would not be its own.

    Raises:
        ModelError: naming ``path``.
    """
    try:
        head_form(model)
    except ModelError as error:
        raise ModelError(f"'{path}' cannot be used here: {error}") from None


def set_special_ids(model: PreTrainedModel, vocabulary: AudioVocabulary) -> None:
    """Tell transformers' own `generate` where audio and text end, and what padding is."""
    model.config.bos_token_id = None  # documents begin with their task token; nothing is put before it
    # Where a pattern delays levels, their rest follows </audio>: then padding marks the end.
    end = "<pad>" if max(vocabulary.order.delays(vocabulary.levels)) else "</audio>"
    model.config.eos_token_id = vocabulary.control_id(end)
    model.config.pad_token_id = vocabulary.control_id("<pad>")
    model.generation_config = GenerationConfig(
        bos_token_id=None,
        eos_token_id=[vocabulary.control_id(end), vocabulary.control_id("</text>")],
        pad_token_id=vocabulary.control_id("<pad>"),
    )


def extend_vocabulary(
    model: PreTrainedModel,
    vocabulary: AudioVocabulary,
    init_rows: str,
    code_vectors: Sequence[Tensor] | None = None,
) -> None:
    """Give ``model`` the rows of ``vocabulary``; its text rows stay bit for bit as they are.

    transformers' own resizing would draw the new rows from the mean of the old ones with a covariance scaled
    by 1e-9: all of them nearly equal and some 60 times shorter than text rows. Here they get the text rows'
    RMS:

    * ``normal``: independent normal rows of that RMS;
    * ``mean``: the mean text row plus such a normal row (of half the RMS);
    * ``codebook``: the mean text row plus, for the codes, their code vectors under a fixed random map at the text
      rows' RMS: codes that sound alike begin as neighbours. Control rows are as in ``mean``.
    """
    if init_rows not in ROW_INITS:
        raise ModelError(f"lm.init_rows={init_rows} is unknown; choose one of {', '.join(ROW_INITS)}.")
    if init_rows == "codebook" and code_vectors is None:
        raise ModelError("lm.init_rows=codebook needs an audio tokenizer with code vectors: take normal or mean.")
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    if getattr(head, "weight", None) is None:
        raise ModelError(f"{type(model).__name__} has no output table that could be extended: take another model.")
    tied = embedding.weight is head.weight
    text = [table.weight.detach()[: vocabulary.text_size].clone() for table in (embedding, head)]
    if len(text[0]) < vocabulary.text_size:
        raise ModelError(f"the model has {len(text[0])} rows, its text tokenizer needs {vocabulary.text_size}.")
    model.resize_token_embeddings(vocabulary.size, mean_resizing=False)
    tables = (model.get_input_embeddings(), model.get_output_embeddings())
    for table, rows in zip(tables[: 1 if tied else 2], text, strict=False):
        with torch.no_grad():
            table.weight[: len(rows)] = rows
            table.weight[len(rows) :] = new_rows(rows, vocabulary.size - len(rows), init_rows)
            if init_rows == "codebook":
                assert code_vectors is not None
                for level, projected in enumerate(projected_codes(code_vectors, rows)):
                    block = vocabulary.block(level)
                    table.weight[block.start : block.stop] = projected
    model.tie_weights()


def new_rows(text_rows: Tensor, count: int, init: str) -> Tensor:
    """``[count, width]`` rows at the RMS of ``text_rows [rows, width]``."""
    rms = text_rows.float().pow(2).mean().sqrt()
    rows = torch.randn(count, text_rows.shape[1]) * rms
    if init != "normal":
        rows = text_rows.float().mean(0) + 0.5 * rows
    return rows.to(text_rows)


def projected_codes(code_vectors: Sequence[Tensor], text_rows: Tensor) -> list[Tensor]:
    """Per level ``[codes, dim]`` → ``[codes, width]``: centred, mapped by one random matrix, scaled to the RMS of
    ``text_rows``, around their mean.
    """
    rms = text_rows.float().pow(2).mean().sqrt()
    projection = torch.randn(code_vectors[0].shape[1], text_rows.shape[1])
    projected = []
    for vectors in code_vectors:
        rows = (vectors.float() - vectors.float().mean(0)) @ projection
        rows = rows * (rms / rows.pow(2).mean().sqrt().clamp(min=1e-12))
        projected.append((text_rows.float().mean(0) + rows).to(text_rows))
    return projected


def code_vectors_of(tokenizer: Any) -> list[Tensor] | None:
    """Code vectors ``[codes, dim]`` of each level of an audio tokenizer; None where it has none of one dimension."""
    books = getattr(getattr(tokenizer, "quantizer", None), "books", None)
    if books is None:
        return None
    vectors = [book.embed.detach().float().cpu() for book in books]
    return vectors if len({v.shape[1] for v in vectors}) == 1 else None


def embeddings_of(model: nn.Module) -> set[int]:
    """The ids of the parameters with a row for each token, of what goes in and what comes out."""
    tables = [m for m in model.modules() if isinstance(m, nn.Embedding)]
    rows = {id(p) for m in (*tables, model.get_output_embeddings()) for p in m.parameters()}  # type: ignore[operator]
    return rows | {id(p) for name, p in model.named_parameters() if "heads." in name}


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Two groups: matrices inside the blocks with decay; embeddings, norms and biases without."""
    rows = embeddings_of(model) | {id(p) for name, p in model.named_parameters() if "trainable_tokens" in name}
    parameters = [p for p in model.parameters() if p.requires_grad]
    decayed = [p for p in parameters if p.ndim >= 2 and id(p) not in rows]
    kept = {id(p) for p in decayed}
    return [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": [p for p in parameters if id(p) not in kept], "weight_decay": 0.0},
    ]


def save_lm(
    folder: Path,
    model: Any,
    vocabulary: AudioVocabulary,
    tokenizer: Any,
    weights: dict[str, Tensor] | None = None,
) -> None:
    """Write a plain transformers folder and the vocabulary into ``folder``.

    Args:
        weights: by name, where the model's own lie on several processes.
    """
    model.save_pretrained(folder, **({"state_dict": weights} if weights else {}))
    tokenizer.save_pretrained(folder)
    vocabulary.save(folder)


def load_vocabulary(folder: Path) -> AudioVocabulary:
    """The vocabulary of the language model in ``folder``.

    Raises:
        ModelError: there is no model.
        VocabularyError: ``audio_vocabulary.json`` is missing or damaged.
    """
    if not (folder / "config.json").is_file():
        if (folder / "final/config.json").is_file():
            raise ModelError(f"'{folder}' is the folder of a run: its model is in '{folder / 'final'}'.")
        raise ModelError(
            f"no language model at '{folder}': train one with `accelerate launch lm/train.py task=tts`, "
            "or give the folder of another."
        )
    return AudioVocabulary.load(folder)


def llama_config(options: DictConfig, rows: int, key: str) -> LlamaConfig:
    """The configuration of a LLaMA from scratch.

    Args:
        options: of ``transformers.LlamaConfig``.
        key: what the options are called, for messages.

    Raises:
        ModelError: no LLaMA can have these sizes.
    """
    given = cast(dict[str, Any], OmegaConf.to_container(options, resolve=True))
    try:
        check_numbers(given, key)
        config = LlamaConfig(vocab_size=rows, **given)
        with torch.device("meta"), torch.no_grad():
            mask, places = torch.zeros(1, 1, 2, 2), torch.zeros(1, 2, dtype=torch.long)
            LlamaModel(config)(input_ids=places, attention_mask=mask, position_ids=places, use_cache=False)
    except (*ERRORS, PretrainedError) as error:
        reason = re.sub(r"\s+", " ", str(error)).rstrip(". ")
        raise ModelError(f"no LLaMA can be made of {key}={given} ({reason}).") from None
    return config


def load_lm(folder: str | Path, device: str | torch.device = "cpu") -> tuple[Any, AudioVocabulary, Any]:
    """Load what `save_lm` wrote: (model in eval mode, vocabulary, text tokenizer).

    Raises:
        ModelError: the folder is missing, or its weights are damaged or of another size.
        VocabularyError: ``audio_vocabulary.json`` is missing, damaged, or does not fit the model.
    """
    layout = load_layout(folder)
    return load_network(folder, device), *layout


def load_layout(folder: str | Path) -> tuple[AudioVocabulary, Any]:
    """What of `save_lm` turns texts and codes into ids: (vocabulary, text tokenizer). Raises as `load_lm`."""
    folder = Path(folder)
    vocabulary = load_vocabulary(folder)
    try:
        rows = description(folder).get("vocab_size")
    except PretrainedError as error:
        raise ModelError(str(error)) from None
    if rows != vocabulary.size:
        raise VocabularyError(
            f"'{folder}': the model has {rows} rows but {FILE_NAME} describes {vocabulary.size}: "
            "the files come from two different trainings."
        )
    tokenizer = load_text_tokenizer(folder)
    if len(tokenizer) > vocabulary.text_size:
        raise VocabularyError(
            f"'{folder}': the text tokenizer has {len(tokenizer)} ids but {FILE_NAME} has {vocabulary.text_size} "
            "text rows: the files come from two different trainings."
        )
    return vocabulary, tokenizer


def load_network(folder: str | Path, device: str | torch.device = "cpu") -> Any:
    """The model that `save_lm` wrote, in eval mode. Raises ModelError as `load_lm`."""
    folder = Path(folder)
    try:
        model = load_weights(folder)
        if (folder / CONFIG_NAME).is_file():
            model = load_depth(model, folder)
    except (SafetensorError, OSError, RuntimeError, json.JSONDecodeError, KeyError, TypeError) as error:
        raise ModelError(f"the weights in '{folder}' cannot be read ({error}): copy the folder again.") from None
    check_head(model, folder)
    return model.to(device).eval()
