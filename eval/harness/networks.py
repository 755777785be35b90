"""Public networks from a local folder or a hub id, through transformers; and the proof that nothing was made up.

A checkpoint that lacks a weight would be completed with random numbers and judge by them. So every key of the network
must come from the checkpoint, and a result records a hash of the weights as they were loaded, wherever they came from.
"""

from __future__ import annotations

import hashlib
import importlib.util
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from training import pretrained
from training.pretrained import ERRORS, PretrainedError, load_model


class NetworkError(RuntimeError):
    """A network that cannot be loaded, with the cure."""


def load_network(kind: Any, path: str, device: str = "cpu", what: str = "", **options: Any) -> Any:
    """A network of ``kind`` from ``path``, in eval mode and float32.

    Args:
        kind: a transformers class.
        path: folder or hub id, which ORG/NAME@REVISION pins.
        what: the setting in ``weights`` that names the path, for messages.

    Raises:
        NetworkError: not there, not of this kind, or some weights are missing.
    """
    where = f"weights.{what}={path}" if what else path
    try:
        model, info = load_model(kind, path, **options)
    except PretrainedError as error:
        raise NetworkError(f"{where} cannot be loaded as {kind.__name__}: {error}") from None
    if unset := [*info["missing_keys"], *info["mismatched_keys"]]:
        names = ", ".join(unset[:3])
        raise NetworkError(f"{where} lacks weights of {kind.__name__} ({names} …): it would judge by random numbers.")
    model.unused_keys = info["unexpected_keys"]
    return model.to(device).eval()


def load_part(kind: Any, path: str, what: str = "") -> Any:
    """A tokenizer, processor or feature extractor of ``kind`` from ``path``.

    Raises:
        NetworkError: its files are not there.
    """
    try:
        return pretrained.load_part(kind, path)
    except PretrainedError as error:
        raise NetworkError(f"weights.{what}={path} has no {kind.__name__} that can be loaded: {error}") from None


def inside_package(name: str, file: str) -> Path | None:
    """A file of an installed package, which is not imported; None where it is not there."""
    found = importlib.util.find_spec(name)
    path = Path(found.origin).parent / file if found is not None and found.origin else None
    return path if path is not None and path.is_file() else None


def path_or_installed(what: str, setting: str, inside: Path | None, cure: str) -> Path:
    """The file that the setting ``what`` of ``weights`` names; ``installed`` is that ``inside`` its package.

    Raises:
        NetworkError: the package is not installed, with the ``cure``.
    """
    path = inside if setting == "installed" else Path(setting)
    if path is None:
        raise NetworkError(f"weights.{what}=installed, but it is not: {cure}, or give {what}'s file of weights.")
    return path


@contextmanager
def reading_checkpoint(setting: str, path: Path, kind: str) -> Iterator[None]:
    """What a checkpoint of torch raises inside the block, damaged or of another kind, becomes a NetworkError.

    Args:
        setting: of ``weights``, that names it.
        kind: of checkpoint that is wanted.
    """
    try:
        yield
    except (*ERRORS, EOFError, pickle.UnpicklingError) as error:
        said = " ".join(str(error).split())[:200] or type(error).__name__
        raise NetworkError(f"weights.{setting}={path} is no {kind} checkpoint: {said}") from None


def weights_hash(model: nn.Module) -> str:
    """SHA-256 (hex) over names, shapes and values of all weights, in the order of their names."""
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        digest.update(f"{name} {tuple(value.shape)} {value.dtype}\n".encode())
        digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def describe_network(path: str, model: nn.Module) -> dict[str, Any]:
    """What a result records about a network; two copies of the same weights get the same record."""
    if not hasattr(model, "known_hash"):  # hashing a large network takes a second, and loaded weights do not change
        model.known_hash = weights_hash(model)
    return {
        "network": type(model).__name__,
        "id": Path(path).name if Path(path).exists() else path.partition("@")[0],
        "weights_sha256": model.known_hash,
        "unused_keys": getattr(model, "unused_keys", []),
        **({"revision": model.revision} if getattr(model, "revision", None) else {}),
    }
