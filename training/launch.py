"""Where a program runs: the device, and what `accelerate launch` started: that the processes know of each other."""

from __future__ import annotations

import atexit
import gc
import os
from datetime import timedelta

import torch
from torch import distributed

from training.config import ConfigError

# How long a process waits for the others: one may encode, validate or write for hours. After that it ends.
LONGEST_WAIT = timedelta(hours=12)


def on_cpu(device: str = "auto") -> bool:
    """Whether ``device`` (auto or a name) is the CPU here.

    accelerate has to be told (``cpu=True``): by itself it connects several processes without GPUs to nothing, so that
    each of them believes to be the only one and does all the work.
    """
    return device == "cpu" or (device == "auto" and not torch.accelerator.is_available())


def pick_device(name: str) -> str:
    """``name``, where it is a device that is here; for ``auto`` CUDA where there is some, else the CPU.

    Raises:
        ConfigError: not a device, or a GPU that is not here.
    """
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ConfigError(f"device={name} is none that torch knows: say auto, cpu, cuda or cuda:1.") from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        found = torch.cuda.device_count()
        raise ConfigError(f"device={name}, but torch finds {found} GPUs here: leave device out, or say device=cpu.")
    return name


def check_processes(processes: int) -> None:
    """Exit in one sentence where the launcher started more processes than the ``processes`` that are connected."""
    started = int(os.environ.get("WORLD_SIZE", "1")) if "LOCAL_RANK" in os.environ else 1
    if started != processes:
        raise ConfigError(
            f"{started} processes were launched and this one is connected to {processes - 1} others, so that each "
            "would do all the work: on machines without CUDA GPUs say device=cpu."
        )


def leave() -> None:
    """Part from the other processes; nothing where there are none.

    gloo's process group waits, when it is freed, for its threads, and one of them may be waiting for Python's lock to
    free the tensor of a last barrier. Python frees the group without its lock; DDP's reducer, if it is the last to hold
    the group, frees it with the lock: the process then hangs for ever (one exit in seven, two processes on two cores,
    torch 2.13). So what trained goes first. A program that ends without any of this is aborted now and then
    (https://github.com/pytorch/pytorch/pull/179291).
    """
    if distributed.is_initialized():
        gc.collect()
        distributed.destroy_process_group()


def leave_at_exit() -> None:
    """Have `leave` called when the program ends and its functions, with all they held, are gone."""
    atexit.unregister(leave)
    atexit.register(leave)
