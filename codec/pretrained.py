"""Weights of transformers models, in a folder or on the hub: loaded whole, or refused in one sentence."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import huggingface_hub
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from transformers import PreTrainedModel

from codec.interface import TokenizerError
from training.places import beside_code
from training.pretrained import WEIGHTS, PretrainedError, load_model

FILES = ("config.json", "*.safetensors", "*.safetensors.index.json")  # of a model that transformers saved
HUB_ID = re.compile(r"[\w\-.]+/[\w\-.]+")


def find_folder(path: str, files: Sequence[str]) -> Path | None:
    """The folder ``path``, what ships under that name, or the hub's copy of the repository ``path`` (fetched if it is
    not cached), which ``ORG/NAME@REVISION`` pins.

    Args:
        files: what is read of a repository (names or glob patterns).

    Returns:
        None: neither a folder nor a repository that can be reached or is cached.
    """
    if (folder := beside_code(path)).is_dir():
        return folder
    name, _, revision = path.partition("@")
    if HUB_ID.fullmatch(name):
        try:
            found = huggingface_hub.snapshot_download(name, revision=revision or None, allow_patterns=list(files))
        except (HfHubHTTPError, HFValidationError, OSError):
            return None
        return Path(found)
    return None


def holds_weights(folder: Path) -> bool:
    """Whether there is a file of weights, or the index of several."""
    return any((folder / (name + end)).is_file() for name in WEIGHTS for end in ("", ".index.json"))


def load_whole(kind: type[PreTrainedModel], folder: Path, exact: bool = False) -> Any:
    """``kind.from_pretrained`` in float32; none of the model's weights is left at random.

    Args:
        folder: with config.json and safetensors, in one file or several.
        exact: refuse weights that the model does not have, too.

    Raises:
        TokenizerError: another kind of model, weights that are missing, too many, damaged or of another size, or a
            configuration that cannot be read.
    """
    file = folder / "config.json"
    try:
        found = json.loads(file.read_text(encoding="utf-8")).get("model_type")
    except (OSError, ValueError, AttributeError) as error:
        raise TokenizerError(f"{file} cannot be read ({error}): copy the folder again.") from error
    if found != kind.config_class.model_type:
        raise TokenizerError(f"{folder} holds model type '{found}' and not '{kind.config_class.model_type}'.")
    try:
        model, info = load_model(kind, folder)
    except PretrainedError as error:
        raise TokenizerError(f"{error} Copy the folder again, or take another.") from error
    missing, unexpected = info["missing_keys"], info["unexpected_keys"]
    if missing:
        raise TokenizerError(
            f"the checkpoint in {folder} has no values for {len(missing)} weights of {kind.__name__} "
            f"({', '.join(missing[:3])} …): it is another model's."
        )
    if exact and unexpected:
        raise TokenizerError(
            f"the checkpoint in {folder} has {len(unexpected)} weights that the model of its config.json lacks "
            f"({', '.join(unexpected[:3])} …): it is another model's."
        )
    return model
