"""Options of the training that cannot work together, refused before anything is loaded; the task of the options."""

from __future__ import annotations

from math import inf

import torch
from omegaconf import DictConfig, ListConfig

from lm.model import VARIANTS
from lm.network.attention import NAME
from lm.network.objective import HEADS, torch_has_it
from lm.recipe.tuning import METHODS
from lm.sequences.patterns import PATTERNS
from training.config import ABOVE_ZERO, BELOW_ONE, SEED, ConfigError, check_ranges, fits_number
from training.tracking import KINDS

CHOICES = {
    "schedule": ("cosine", "wsd", "constant"),
    "loss_on": ("target", "everything"),
    "loss_over": ("legal", "vocabulary"),
    "precision": ("auto", "fp32", "bf16"),
    "optimiser": ("adamw", "muon"),
    "head": HEADS,
    "attention": ("auto", NAME, "sdpa", "eager"),
}


SHARE = (0.0, 1.0)
RANGES = {
    "seed": SEED,
    "threads": (1, inf),
    "tuning.rank": (1, inf),
    "tuning.alpha": (ABOVE_ZERO, inf),
    "tuning.dropout": (0, BELOW_ONE),
    "tuning.warmup_new_rows": (0, inf),
    "trainer.max_steps": (1, inf),
    "trainer.row_length": (8, inf),
    "trainer.batch_rows": (1, inf),
    "trainer.micro_rows": (1, inf),
    "trainer.lr": (ABOVE_ZERO, inf),
    "trainer.muon_lr": (ABOVE_ZERO, inf),
    "trainer.min_lr": SHARE,
    "trainer.warmup_steps": (0, inf),
    "trainer.decay_share": (ABOVE_ZERO, 1),
    "trainer.betas": (0, BELOW_ONE),
    "trainer.weight_decay": (0, inf),
    "trainer.grad_clip": (ABOVE_ZERO, inf),
    "trainer.workers": (0, inf),
    "trainer.hide": SHARE,
    "trainer.drop_condition": SHARE,
    "trainer.curriculum_steps": (0, inf),
    "trainer.curriculum_share": (ABOVE_ZERO, 1),
    "trainer.log_every": (1, inf),
    "trainer.valid_every": (1, inf),
    "trainer.valid_clips": (0, inf),
    "trainer.valid_audio": (0, inf),
    "trainer.peak_tflops": (ABOVE_ZERO, inf),
    "trainer.save_every": (1, inf),
    "trainer.keep": (1, inf),
}


def check_options(cfg: DictConfig, world: int, sharded: bool = False) -> None:
    """Refuse options that cannot work together, before anything is loaded.

    Raises:
        ConfigError: naming the key and what it can be.
    """
    trainer = cfg.trainer
    for key, choices in CHOICES.items():
        if trainer[key] not in choices:
            raise ConfigError(f"trainer.{key}={trainer[key]} is unknown; choose one of {', '.join(choices)}.")
    if cfg.device not in ("auto", "cpu"):
        raise ConfigError(f"device={cfg.device} is unknown; choose auto or cpu.")
    if cfg.tracker is not None and cfg.tracker not in KINDS:
        raise ConfigError(f"tracker={cfg.tracker} is unknown; choose one of null, {', '.join(KINDS)}.")
    check_ranges(cfg, RANGES, optional=("threads", "trainer.peak_tflops"))
    level_weights(trainer.level_weights)
    if len(trainer.betas) != 2:
        raise ConfigError(f"trainer.betas={trainer.betas} must be two numbers.")
    if trainer.batch_rows % world:
        raise ConfigError(f"trainer.batch_rows={trainer.batch_rows} must be a multiple of the {world} processes.")
    if trainer.attention == NAME and trainer.compile:
        raise ConfigError(f"trainer.attention={NAME} has another shape in every step: take sdpa with trainer.compile.")
    if trainer.head == "torch" and not torch_has_it():
        raise ConfigError(f"trainer.head=torch needs torch 2.13 or newer, this is {torch.__version__}: take chunked.")
    if cfg.lm.pattern not in ("auto", *PATTERNS):
        raise ConfigError(f"lm.pattern={cfg.lm.pattern} is unknown; choose one of auto, {', '.join(PATTERNS)}.")
    if sharded and (trainer.optimiser != "adamw" or cfg.tuning.method != "full" or cfg.lm.variant != "flat"):
        raise ConfigError("FSDP needs trainer.optimiser=adamw, tuning.method=full and lm.variant=flat; DDP takes all.")
    if sharded and cfg.tuning.warmup_new_rows:
        raise ConfigError("FSDP needs tuning.warmup_new_rows=0: warm up with DDP, then continue with init=FOLDER.")
    if cfg.lm.variant not in VARIANTS:
        raise ConfigError(f"lm.variant={cfg.lm.variant} is unknown; choose one of {', '.join(VARIANTS)}.")
    method = cfg.tuning.method
    if method not in METHODS:
        raise ConfigError(f"tuning.method={method} is unknown; choose one of {', '.join(METHODS)}.")
    if method != "full" and not (cfg.init or cfg.lm.pretrained):
        raise ConfigError(f"tuning.method={method} needs trained weights: give init=FOLDER or lm.pretrained=FOLDER.")
    if method == "lora" and trainer.optimiser != "adamw":
        raise ConfigError("tuning.method=lora needs trainer.optimiser=adamw: muon is for whole matrices.")
    if method == "lora" and cfg.lm.variant == "depth":
        raise ConfigError("tuning.method=lora needs lm.variant=flat: a new depth transformer must train as a whole.")


def level_weights(given: list[float] | None, levels: int | None = None) -> list[float] | None:
    """``trainer.level_weights`` for ``levels`` levels: where it is shorter, its last value holds for the rest.

    Args:
        levels: None only checks the values.

    Raises:
        ConfigError: more values than levels, none, a negative one, or zeros alone.
    """
    if given is None:
        return None
    values = list(given) if isinstance(given, list | ListConfig) else []
    fits = all(fits_number(value) and value >= 0 for value in values) and any(value > 0 for value in values)
    if not fits or (levels is not None and len(values) > levels):
        count = "" if levels is None else f"1 to {levels} "
        raise ConfigError(
            f"trainer.level_weights={given} must be a list of {count}numbers of 0 or more, not all 0: one per level, "
            "the last one for all further levels."
        )
    values = [float(value) for value in values]
    return values + [values[-1]] * ((levels or 0) - len(values))
