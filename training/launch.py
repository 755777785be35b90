"""Where a program runs: the device, and what `accelerate launch` started: that the processes know of each other."""

from __future__ import annotations

import atexit
import gc
import os
from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import distributed

from training.config import ConfigError
from training.processes import several
from training.streams import unbroken

T = TypeVar("T")

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


# What `accelerate launch` can be told and no training here does: its variable, what may stand there, and the cure.
NOT_OURS = {
    "ACCELERATE_USE_DEEPSPEED": ("false", "launch without DeepSpeed; lm/train.py divides a model by FSDP2"),
    "ACCELERATE_USE_MEGATRON_LM": ("false", "launch without Megatron-LM; lm/train.py divides a model by FSDP2"),
    "ACCELERATE_DYNAMO_BACKEND": ("no", "launch with --dynamo_backend no, and say trainer.compile=true"),
    "ACCELERATE_GRADIENT_ACCUMULATION_STEPS": ("1", "leave it out: trainer's own keys say how large a step is"),
    **{
        f"PARALLELISM_CONFIG_{kind}_SIZE": ("1", "launch with processes that each see other data, or with FSDP2")
        for kind in ("TP", "CP", "SP")
    },
}


def check_launcher() -> None:
    """Exit in one sentence where the launcher was told to train in a way that no training here does: another would be
    done, or none. Before accelerate begins, which has a stack of calls for some of them.
    """
    for name, (legal, cure) in NOT_OURS.items():
        told = os.environ.get(name, "")
        if told and told.lower() != legal:
            raise ConfigError(f"the launcher says {name}={told}, which no training here does: {cure}.")


def check_sharding(sharded: bool) -> None:
    """Exit in one sentence where the launcher was told to divide the model (FSDP) and it is not ``sharded``."""
    if os.environ.get("ACCELERATE_USE_FSDP", "").lower() == "true" and not sharded:
        raise ConfigError(
            "the launcher was told to divide the model (FSDP), and every process would hold the whole of it: FSDP "
            "takes CUDA GPUs and lm/train.py; otherwise launch with configs/accelerate/ddp.yaml."
        )


def decide(choice: Callable[[], T]) -> T:
    """What ``choice`` returns in the first process, in all of them; what it raises there is raised in all.

    For what is read of a disk before work that the processes share: a file that one of them sees and another does not
    (written in between, on another machine, too fresh) would send them different ways, and they would wait for ever.
    """
    if not (distributed.is_available() and distributed.is_initialized()):
        return choice()
    told: list[Any] = [None, None]  # answer, error
    if distributed.get_rank() == 0:
        try:
            told[0] = choice()
        except Exception as error:
            told[1] = error
    distributed.broadcast_object_list(told, src=0)
    if told[1] is not None:
        raise told[1]
    return told[0]


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
    """Have `leave` called when the program ends and its functions, with all they held, are gone. Of several processes
    none ends before only because nobody takes what it prints: the others would wait for it.
    """
    atexit.unregister(leave)
    atexit.register(leave)
    if several():
        unbroken()
