"""Options of the training that cannot work together, refused before anything is loaded."""

from __future__ import annotations

import torch
from omegaconf import DictConfig

from lm.network.attention import NAME
from lm.network.objective import torch_has_it
from training.config import ConfigError


def check_options(cfg: DictConfig, world: int, sharded: bool = False) -> None:
    """Refuse options that cannot work together, before anything is loaded.

    Raises:
        ConfigError: naming the key and what it can be.
    """
    trainer = cfg.trainer
    level_weights(trainer.level_weights)
    if trainer.batch_rows % world:
        raise ConfigError(f"trainer.batch_rows={trainer.batch_rows} must be a multiple of the {world} processes.")
    if trainer.attention == NAME and trainer.compile:
        raise ConfigError(f"trainer.attention={NAME} has another shape in every step: take sdpa with trainer.compile.")
    if trainer.head == "torch" and not torch_has_it():
        raise ConfigError(f"trainer.head=torch needs torch 2.13 or newer, this is {torch.__version__}: take chunked.")
    if sharded and (trainer.optimiser != "adamw" or cfg.tuning.method != "full" or cfg.lm.variant != "flat"):
        raise ConfigError("FSDP needs trainer.optimiser=adamw, tuning.method=full and lm.variant=flat; DDP takes all.")
    if sharded and cfg.tuning.warmup_new_rows:
        raise ConfigError("FSDP needs tuning.warmup_new_rows=0: warm up with DDP, then continue with init=FOLDER.")
    method = cfg.tuning.method
    if method != "full" and not (cfg.init or cfg.lm.pretrained):
        raise ConfigError(f"tuning.method={method} needs trained weights: give init=FOLDER or lm.pretrained=FOLDER.")
    if method == "lora" and trainer.optimiser != "adamw":
        raise ConfigError(
            "tuning.method=lora needs trainer.optimiser=adamw, which tuning=lora brings: muon is for whole matrices."
        )
    if method == "lora" and cfg.lm.variant == "depth":
        raise ConfigError("tuning.method=lora needs lm.variant=flat: a new depth transformer must train as a whole.")


def level_weights(given: list[float] | None, levels: int | None = None) -> list[float] | None:
    """``trainer.level_weights`` for ``levels`` levels: where it is shorter, its last value holds for the rest.

    Args:
        levels: None only checks the values.

    Raises:
        ConfigError: more values than levels, none, or zeros alone.
    """
    if given is None:
        return None
    values = [float(value) for value in given]
    if not any(values) or (levels is not None and len(values) > levels):
        count = "" if levels is None else f"1 to {levels} "
        raise ConfigError(
            f"trainer.level_weights={given} must be a list of {count}numbers, not all 0: one per level, the last one "
            "for all further levels."
        )
    return values + [values[-1]] * ((levels or 0) - len(values))
