"""What `accelerate launch` started: whether the processes share the CPU, and that they know of each other."""

from __future__ import annotations

import os

import torch

from training.config import ConfigError


def on_cpu(device: str = "auto") -> bool:
    """Whether ``device`` (auto or a name) is the CPU here.

    accelerate has to be told (``cpu=True``): by itself it connects several processes without GPUs to nothing, so that
    each of them believes to be the only one and does all the work.
    """
    return device == "cpu" or (device == "auto" and not torch.accelerator.is_available())


def check_processes(processes: int) -> None:
    """Exit in one sentence where the launcher started more processes than the ``processes`` that are connected."""
    started = int(os.environ.get("WORLD_SIZE", "1")) if "LOCAL_RANK" in os.environ else 1
    if started != processes:
        raise ConfigError(
            f"{started} processes were launched and this one is connected to {processes - 1} others, so that each "
            "would do all the work: on machines without CUDA GPUs say device=cpu."
        )
