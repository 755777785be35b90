"""Public weights: where they come from, what to say when they are absent, and loading that accounts for every key."""

from __future__ import annotations

import pickle
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from codec.interface import TokenizerError
from codec.pretrained import HUB_ID, find_folder, holds_weights, load_whole
from training.identity import first_line
from training.pretrained import PretrainedError, check_finite


@dataclass(frozen=True)
class PublicWeights:
    """A published checkpoint.

    Attributes:
        name: the tokenizer's name in messages.
        repository: Hugging Face hub id.
        files: what the adapter reads of it (names or glob patterns).
        size: of these files, in words.
        licence: of code and weights, in words.
    """

    name: str
    repository: str
    files: tuple[str, ...]
    size: str
    licence: str

    def folder(self, path: str) -> Path:
        """The local folder of ``path``: itself, or the hub's copy of the id ``path`` (fetched if it is not cached).

        Raises:
            TokenizerError: neither a folder nor a repository that can be reached or is cached.
        """
        folder = find_folder(path, self.files)
        if folder is None:
            raise TokenizerError(self.absent(path))
        return folder

    def absent(self, path: str) -> str:
        """The one sentence for weights that are not at ``path``."""
        files = " ".join(f"--include '{file}'" if "*" in file else file for file in self.files)
        local = f"models/{self.name}"
        repository = path if HUB_ID.fullmatch(path) else self.repository  # a variant, where one was asked for
        return (
            f"no {self.name} weights at '{path}': get {repository} ({self.size}; {self.licence}) with "
            f"`hf download {repository} {files} --local-dir {local}` and give tokenizer.path={local}."
        )

    def file(self, folder: Path, pattern: str) -> Path:
        """The one file of ``folder`` that matches ``pattern``."""
        found = sorted(folder.glob(pattern))
        if not found:
            raise TokenizerError(f"{folder} holds no {pattern}; {self.absent(str(folder))}")
        if len(found) > 1:
            names = ", ".join(file.name for file in found)
            raise TokenizerError(
                f"{folder} holds several files {pattern} ({names}): move the one to load into a folder of its own."
            )
        return found[0]


def load_transformers(kind: type[PreTrainedModel], source: PublicWeights, path: str) -> PreTrainedModel:
    """``kind.from_pretrained`` in float32, refusing a checkpoint that leaves a weight of the model unset."""
    folder = source.folder(path)
    if not (folder / "config.json").is_file() or not holds_weights(folder):
        raise TokenizerError(source.absent(path))
    return load_whole(kind, folder)


def read_weights(file: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, or of a ``torch.save`` one and its ``state_dict`` if it has one.

    The code that a pickle can hold is not run.

    Raises:
        TokenizerError: it is damaged, or holds something else.
    """
    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        content = torch.load(file, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, SafetensorError) as error:
        raise TokenizerError(f"{file} is not a plain checkpoint of tensors: {first_line(error)}") from error
    if not isinstance(content, dict):
        raise TokenizerError(f"{file} holds a {type(content).__name__} and not a dictionary of tensors.")
    values = content.get("state_dict", content)
    if not isinstance(values, dict):
        raise TokenizerError(f"{file}: 'state_dict' is no dictionary.")
    return {key: value for key, value in values.items() if isinstance(key, str) and isinstance(value, Tensor)}


def fold_weight_norm(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """``weight_g``, ``weight_v`` → ``weight = g · v / ‖v‖`` (Salimans and Kingma, 2016), norm over all axes but one.

    Published models are trained with it; for inference the product is all that matters.
    """
    folded = {}
    for key, value in state.items():
        if key.endswith(".weight_g"):
            stem = key.removesuffix("_g")
            if f"{stem}_v" not in state:
                raise TokenizerError(f"the checkpoint has {key} but no {stem}_v.")
            v = state[f"{stem}_v"]
            folded[stem] = v * (value / v.flatten(1).norm(dim=1).view(-1, *[1] * (v.ndim - 1)))
        elif not key.endswith(".weight_v"):
            folded[key] = value
    return folded


def load_every_key(model: nn.Module, state: dict[str, Tensor], unused: Iterable[str], file: Path) -> None:
    """Load ``state`` into ``model`` so that each key of either is accounted for.

    Args:
        unused: regular expressions of checkpoint keys that the model has no use for.

    Raises:
        TokenizerError: a weight of the model is not in the checkpoint, a key of the checkpoint is neither used nor
            declared unused, or a shape differs.
    """
    patterns = [re.compile(pattern) for pattern in unused]
    used = {key: value for key, value in state.items() if not any(pattern.match(key) for pattern in patterns)}
    expected = model.state_dict()
    problems = [f"no value for {key}" for key in sorted(expected.keys() - used.keys())]
    problems += [f"unknown key {key}" for key in sorted(used.keys() - expected.keys())]
    problems += [
        f"{key} has shape {tuple(used[key].shape)} and not {tuple(expected[key].shape)}"
        for key in sorted(expected.keys() & used.keys())
        if used[key].shape != expected[key].shape
    ]
    if problems:
        more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise TokenizerError(f"{file} does not fit its configuration: {'; '.join(problems[:3])}{more}.")
    model.load_state_dict(used)
    try:
        check_finite(model, file)
    except PretrainedError as error:
        raise TokenizerError(str(error)) from None
