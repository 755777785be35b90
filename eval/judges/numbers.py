"""Numbers and names that several evaluations have in their configuration, checked before any work."""

from __future__ import annotations

from omegaconf import DictConfig

from eval.metrics.wer import load_normaliser
from training.config import SEED, check_ranges, refusing

# the least value of keys that several evaluations have
LEAST: dict[str, float | tuple[float, float]] = {
    "limit": 0, "against_limit": 0, "batch_size": 1, "processes": 1, "max_seconds": 0.1, "max_tokens": 1, "seed": SEED,
    "runs": 1, "class_steps": 1, "ctc_steps": 0,
}  # fmt: skip


def check_numbers(cfg: DictConfig) -> None:
    """Refuse numbers and a normaliser of an evaluation's configuration that cannot work, before any work.

    Raises:
        ConfigError: naming the key.
    """
    check_ranges(cfg, {key: least for key, least in LEAST.items() if key in cfg}, ["max_seconds", "max_tokens"])
    with refusing(ValueError):
        if "normaliser" in cfg and cfg.normaliser != "whisper-english":  # its package may be absent: told in the report
            load_normaliser(cfg.normaliser)
