"""Options of the training that cannot work together, refused before anything is loaded; the task of the options."""

from __future__ import annotations

from math import inf

import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, ListConfig

from lm.attention import NAME
from lm.model import VARIANTS
from lm.objective import HEADS, torch_has_it
from lm.patterns import PATTERNS
from lm.tuning import METHODS
from tasks.base import Task, TaskError
from training.config import ConfigError, check_ranges
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
    "seed": (0, inf),
    "threads": (1, inf),
    "tuning.rank": (1, inf),
    "tuning.alpha": (0, inf),
    "tuning.dropout": SHARE,
    "tuning.warmup_new_rows": (0, inf),
    "trainer.max_steps": (1, inf),
    "trainer.row_length": (8, inf),
    "trainer.batch_rows": (1, inf),
    "trainer.micro_rows": (1, inf),
    "trainer.lr": (0, inf),
    "trainer.muon_lr": (0, inf),
    "trainer.min_lr": SHARE,
    "trainer.warmup_steps": (0, inf),
    "trainer.decay_share": SHARE,
    "trainer.betas": SHARE,
    "trainer.weight_decay": (0, inf),
    "trainer.grad_clip": (0, inf),
    "trainer.workers": (0, inf),
    "trainer.hide": SHARE,
    "trainer.drop_condition": SHARE,
    "trainer.curriculum_steps": (0, inf),
    "trainer.curriculum_share": SHARE,
    "trainer.log_every": (1, inf),
    "trainer.valid_every": (1, inf),
    "trainer.valid_clips": (0, inf),
    "trainer.valid_audio": (0, inf),
    "trainer.peak_tflops": (0, inf),
    "trainer.save_every": (1, inf),
    "trainer.keep": (0, inf),
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


def level_weights(given: list[float] | None, levels: int) -> list[float] | None:
    """``trainer.level_weights`` for ``levels`` levels: where it is shorter, its last value holds for the rest.

    Raises:
        ConfigError: more values than levels, none, or a negative one.
    """
    if given is None:
        return None
    values = [float(value) for value in given] if isinstance(given, list | ListConfig) else []
    if not values or len(values) > levels or min(values) < 0:
        raise ConfigError(
            f"trainer.level_weights={given} must be a list of 1 to {levels} numbers of 0 or more: one per level, the "
            "last one for all further levels."
        )
    return values + [values[-1]] * (levels - len(values))


def make_task(config: DictConfig) -> Task:
    """The task, or the mixture of tasks, of ``cfg.task``.

    Raises:
        TaskError: options of a task that cannot work.
    """
    try:
        return instantiate(config)
    except InstantiationException as error:
        if isinstance(error.__cause__, TaskError):
            raise error.__cause__ from None
        raise
