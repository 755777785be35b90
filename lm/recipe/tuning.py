"""What of a model is trained: everything, LoRA adapters and the new rows, or the new rows alone.

LoRA goes through peft, which is imported where it is used, as it takes half a second of each start. The new rows
(control tokens and audio) of BOTH tables train with it, tied or not: with adapters on the linear layers alone, or with
the input rows alone, the codes are never learnt. Text rows stay as they are, bit for bit. What is saved in the end is
merged: a stock checkpoint.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from safetensors.torch import load_file
from torch import nn
from transformers.pytorch_utils import Conv1D

from lm.network.head import ModelError
from lm.sequences.vocabulary import AudioVocabulary

ADAPTER = "adapter"


def add_lora(model: Any, cfg: DictConfig, vocabulary: AudioVocabulary) -> Any:
    """Freeze ``model`` and give it adapters and trainable new rows; returns the causal LM (with peft's layers inside).

    Args:
        cfg: the group ``tuning`` of configs/lm_train.yaml.

    Raises:
        ModelError: ``targets`` that are not there.
    """
    from peft import LoraConfig, get_peft_model

    check_targets(model, cfg.targets)
    rows = list(range(vocabulary.text_size, vocabulary.size))
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    names = {id(module): name.rsplit(".", 1)[-1] for name, module in model.named_modules()}
    tables = {names[id(embedding)]: rows}
    if embedding.weight is not head.weight:
        tables[names[id(head)]] = rows
    config = LoraConfig(
        r=cfg.rank,
        lora_alpha=cfg.alpha,
        lora_dropout=cfg.dropout,
        target_modules=list(cfg.targets),
        trainable_token_indices=tables,
        task_type="CAUSAL_LM",
    )
    return get_peft_model(model, config)


def check_targets(model: nn.Module, targets: Sequence[str]) -> None:
    """Refuse names of linear layers that ``model`` does not have; peft would leave out all but the last of them.

    Raises:
        ModelError: naming them, and the layers that are there.
    """
    head = model.get_output_embeddings()  # type: ignore[operator]
    linear = (nn.Linear, Conv1D)
    there = [name for name, part in model.named_modules() if isinstance(part, linear) and part is not head]
    absent = [target for target in targets if not any(f".{name}".endswith(f".{target}") for name in there)]
    if absent or not targets:
        names = ", ".join(sorted({name.rsplit(".", 1)[-1] for name in there}))
        raise ModelError(
            f"tuning.targets: {type(model).__name__} has no linear layer {' or '.join(absent) or 'without a name'}; "
            f"choose from {names}."
        )


def save_adapter(model: Any, folder: Path) -> None:
    """Adapters and new rows of both tables, into ``folder/adapter``."""
    model.save_pretrained(Path(folder) / ADAPTER, save_embedding_layers=False)


def load_adapter(model: Any, folder: Path) -> None:
    """Read what `save_adapter` wrote into a model that `add_lora` made."""
    from peft import set_peft_model_state_dict

    state = load_file(Path(folder) / ADAPTER / "adapter_model.safetensors")
    result = set_peft_model_state_dict(model, state)
    if result.unexpected_keys:
        raise RuntimeError(f"{folder}/{ADAPTER} does not fit the model: {result.unexpected_keys[:3]}")


def merged(model: Any) -> Any:
    """A stock causal LM with the adapters and new rows in its weights; ``model`` stays as it is."""
    return copy.deepcopy(model).merge_and_unload()


def freeze_all_but_new_rows(model: nn.Module, text_size: int) -> None:
    """Drop every gradient but that of the new rows of both tables of ``model``: nothing else moves in this step.

    The optimisers here skip parameters without gradient and do not decay the tables, so that text rows stay bit for
    bit as they are as long as they have never had a gradient. Under LoRA the new rows are parameters of their own.
    """
    tables = (model.get_input_embeddings(), model.get_output_embeddings())  # type: ignore[operator]
    rows = {id(table.weight) for table in tables}
    for name, parameter in model.named_parameters():
        if "trainable_tokens" in name:
            continue
        if id(parameter) not in rows:
            parameter.grad = None
        elif parameter.grad is not None:
            with torch.no_grad():
                parameter.grad[:text_size] = 0
