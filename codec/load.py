"""Tokenizers by their folder, hub id or configuration.

codec = load("checkpoints/codec-mini")             # an ALMTokenizer
codec = load_tokenizer(cfg.tokenizer, "cuda")      # any that a `tokenizer/` configuration names
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from codec.interface import AudioTokenizer, TokenizerError
from codec.model import ALMTokenizer
from codec.network.flow import Sampling
from codec.pretrained import FILES, find_folder, holds_weights, load_whole
from training.config import ConfigError
from training.identity import first_line
from training.places import SHIPPED


def load(
    path: str | Path,
    device: str | torch.device = "cpu",
    window: int | None = None,
    levels: int | None = None,
    flow: Mapping[str, Any] | None = None,
) -> AudioTokenizer:
    """Load a saved ALMTokenizer.

    Args:
        path: folder that codec/train.py or save_pretrained wrote, or the hub id of such a one.
        window: frames per query (2…10) to use instead of the checkpoint's default.
        levels: so many of the checkpoint's levels, from the first; None: all.
        flow: how its flow decoder samples (:class:`codec.network.flow.Sampling`), if it has one.

    Raises:
        TokenizerError: the folder is missing, is no ALMTokenizer checkpoint, is damaged, or has no codebooks yet.
        ValueError: the codec cannot have that window, has fewer levels, or cannot sample so.
    """
    try:
        sampling = Sampling(**(flow or {}))
    except TypeError as error:
        raise ValueError(f"tokenizer.flow={dict(flow or {})}: {error}.") from error
    model = load_codec(path)
    if not model.quantizer.begun:
        raise TokenizerError(
            f"the codebooks of '{path}' are random: its training ended before they began (stage=1, or before "
            f"trainer.quantize_from); `accelerate launch codec/train.py stage=2 init={path}` goes on from it."
        )
    if window is not None:
        model.set_window(window)
    if levels is not None:
        model.set_levels(levels)
    if model.flow is not None:
        model.flow.choose(sampling)
    elif sampling != Sampling():
        raise ValueError(f"tokenizer.flow={dict(flow or {})}: the codec of '{path}' has no flow decoder to sample.")
    return model.to(device).eval()


def load_codec(path: str | Path) -> ALMTokenizer:
    """The saved ALMTokenizer, also one whose codebooks have not begun: it hears, but has no codes.

    Raises:
        TokenizerError: the folder is missing, is no ALMTokenizer checkpoint, or is damaged.
    """
    folder = find_folder(str(path), FILES)
    if folder is None or not (folder / "config.json").is_file() or not holds_weights(folder):
        raise TokenizerError(
            f"no codec checkpoint at '{path}': train one with `accelerate launch codec/train.py codec=mini`, "
            "or name the folder or the hub id of one."
        )
    return load_whole(ALMTokenizer, folder, exact=True)


def shipped_codec(fingerprint: str) -> str | None:
    """The codec that ships and whose codes have this fingerprint, as ``checkpoints/NAME``; None: no other is known."""
    for folder in sorted((SHIPPED / "checkpoints").glob("codec-*")):
        with suppress(TokenizerError):  # one that is damaged is nobody's
            if load_codec(folder).fingerprint == fingerprint:
                return f"checkpoints/{folder.name}"
    return None


def load_tokenizer(tokenizer: DictConfig, device: torch.device | str, **override: object) -> AudioTokenizer:
    """The tokenizer that a `tokenizer/` config names; exits in one sentence if it cannot be loaded.

    Args:
        override: values in place of the config's, which must have the keys; None: as it says.
    """
    if OmegaConf.is_missing(tokenizer, "_target_"):
        raise ConfigError("say which tokenizer: tokenizer._target_=my_module.MyCodec (see docs/tokenizers.md).")
    target = tokenizer._target_
    chosen = {key: value for key, value in override.items() if value is not None}
    for key, value in chosen.items():
        if key not in tokenizer:
            raise ConfigError(f"{key}={value}: {target} has no {key} to choose.")
    settings = cast(dict[str, object], OmegaConf.to_container(tokenizer, resolve=True, throw_on_missing=True))
    try:
        # what is null is left to the loader's default: one without that setting need not know of it
        kept = {key: value for key, value in settings.items() if value is not None}
        made = instantiate(kept, device=device, **chosen)
    except InstantiationException as error:
        cause = error.__cause__
        if isinstance(cause, TokenizerError | ValueError):
            raise ConfigError(str(cause)) from error
        if isinstance(cause, ImportError):
            reason = first_line(cause.__cause__ if isinstance(cause.__cause__, Exception) else cause)
            raise ConfigError(
                f"tokenizer._target_={target} cannot be imported ({reason}): put its module's folder on PYTHONPATH."
            ) from error
        if isinstance(cause, TypeError) and "argument" in str(cause):
            names = ", ".join(sorted({*map(str, tokenizer), "device"} - {"_target_"}))
            raise ConfigError(f"tokenizer._target_={target} does not take the arguments {names}: {cause}.") from error
        raise
    if not isinstance(made, AudioTokenizer):
        raise ConfigError(
            f"tokenizer._target_={target} gave a {type(made).__name__} and not an AudioTokenizer (codec/interface.py)."
        )
    return made
