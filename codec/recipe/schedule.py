"""What each training step draws and how fast it learns: functions of (seed, step) and the configuration alone."""

from __future__ import annotations

import math

import numpy as np
import torch
from omegaconf import DictConfig

from codec.network.architecture import MAX_WINDOW, MIN_WINDOW, ALMTokenizerConfig
from codec.objectives.losses import Resolution


def learning_rate(step: int, cfg: DictConfig) -> float:
    """Linear warm-up, then cosine decay to ``final_lr_share`` of the peak."""
    if step < cfg.warmup_steps:
        return cfg.learning_rate * (step + 1) / cfg.warmup_steps
    progress = (step - cfg.warmup_steps) / max(1, cfg.max_steps - cfg.warmup_steps)
    share = cfg.final_lr_share + (1 - cfg.final_lr_share) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
    return cfg.learning_rate * share


def parameter_groups(model: torch.nn.Module, weight_decay: float) -> list[dict]:
    """The trainable parameters; weight decay on matrices only."""
    matrices = [p for p in model.parameters() if p.requires_grad and p.ndim >= 2]
    others = [p for p in model.parameters() if p.requires_grad and p.ndim < 2]
    return [{"params": matrices, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]


def draw_step(step: int, cfg: DictConfig, codec: ALMTokenizerConfig) -> tuple[int, int | None, list[Resolution], int]:
    """What a step draws, from (seed, step) alone: window, levels (None = all), loss resolutions, noise offset."""
    rng = np.random.default_rng([cfg.seed, step, 1 << 20])
    train = cfg.trainer
    window = codec.window
    if rng.random() >= train.default_window_share and codec.bottleneck == "queries":
        window = int(rng.integers(MIN_WINDOW, MAX_WINDOW + 1))
    levels = None
    if rng.random() < train.level_dropout and len(codec.codebook_sizes) > 1:
        levels = int(rng.integers(1, len(codec.codebook_sizes)))
    chosen = rng.choice(len(cfg.loss.resolutions), size=cfg.loss.draw, replace=False)
    resolutions = [Resolution(*cfg.loss.resolutions[int(i)]) for i in sorted(chosen)]
    return window, levels, resolutions, int(rng.integers(1 << 17))


def draw_unquantised(step: int, cfg: DictConfig, first: int, count: int) -> torch.Tensor | None:
    """Which of the crops ``first`` … ``first + count − 1`` of a step pass without quantising, ``[count]`` bool."""
    if not (share := cfg.trainer.unquantised_share):
        return None
    draws = [np.random.default_rng([cfg.seed, step, item, 1 << 23]).random() for item in range(first, first + count)]
    return torch.tensor(draws) < share


def draw_masking(step: int, cfg: DictConfig) -> tuple[float, torch.Generator]:
    """The step's share of masked frames and the generator of their places, the same on all processes."""
    share = float(np.random.default_rng([cfg.seed, step, 1 << 22]).uniform(*cfg.mae.share))
    return share, torch.Generator().manual_seed(cfg.seed * 1_000_003 + step * 1009 + 500_009)
