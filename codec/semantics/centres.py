"""Semantic centres as a training finds them: what codec/semantic_prior.py wrote, checked before any work."""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from training.config import ConfigError


def read_centres(cfg: DictConfig) -> dict[str, Tensor] | None:
    """The tensors of ``semantic_centres`` (see ``SemanticCodebook.set_centres``), or None where none are needed.

    ``centres [codes, codec.semantic_dim]``; with a fitted map also ``weight [codec.code_dim, codec.semantic_dim]`` and
    ``bias [codec.code_dim]``.

    Raises:
        ConfigError: centres are missing, unreadable, of another shape, or given to a codec without a prior.
    """
    wanted, path = int(cfg.codec.semantic_dim), cfg.semantic_centres
    if path is None:
        # stage 1 trains no codebooks, and a warm start without a stage brings its own
        if wanted and cfg.stage != 1 and (cfg.init is None or cfg.stage == 2):
            raise ConfigError(
                f"codec.semantic_dim={wanted} wants centres: semantic_centres=FILE, which "
                "`python codec/semantic_prior.py` writes, or codec.semantic_dim=0."
            )
        return None
    if not Path(path).is_file():
        raise ConfigError(
            f"semantic_centres={path}: there is no such file; `python codec/semantic_prior.py` writes one."
        )
    try:
        tensors = load_file(path)
    except SafetensorError as error:
        raise ConfigError(
            f"semantic_centres={path} is not a whole safetensors file ({error}); fit it again."
        ) from error
    shapes = {
        "centres": [int(cfg.codec.codebook_sizes[0]), wanted],
        "weight": [int(cfg.codec.code_dim), wanted],
        "bias": [int(cfg.codec.code_dim)],
    }
    found = {key: tensors[key] for key in shapes if key in tensors}
    if "centres" not in found:
        raise ConfigError(
            f"semantic_centres={path} holds no centres; name a file that `python codec/semantic_prior.py` wrote."
        )
    for key, other in (("weight", "bias"), ("bias", "weight")):
        if key in found and other not in found:
            raise ConfigError(f"semantic_centres={path} has a {key} and no {other}: fit it again.")
    for key, value in found.items():
        if list(value.shape) != shapes[key]:
            raise ConfigError(
                f"semantic_centres={path}: its {key} are {list(value.shape)} and not {shapes[key]}, as the codec wants "
                "them: give the codec.codebook_sizes, codec.semantic_dim and codec.code_dim that they were fitted for."
            )
        if not bool(value.isfinite().all()):
            raise ConfigError(f"semantic_centres={path}: its {key} hold values that are NaN or infinite; fit it again.")
    return found
