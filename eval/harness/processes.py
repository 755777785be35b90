"""Several processes share the work of an evaluation.

    accelerate launch --num_processes 4 eval/tts.py

Each script calls ``join`` first. Every process then takes the same steps in the same order; what costs time
(generating, coding, recognising, embedding, scoring) is dealt out with ``share`` and put together again with
``gather``, so that all of them know everything and the first one writes. Work is dealt out in the batches that one
process would form, so the results are the same numbers. Without a launcher there is one process, and nothing here does
anything.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

import torch
from torch import distributed

from training.launch import decide, leave_at_exit
from training.lock import hold

T = TypeVar("T")
K = TypeVar("K")
V = TypeVar("V")


def join() -> None:
    """Meet the other processes of the launcher (accelerate launch, torchrun), and take one of the GPUs each.

    Only the first process goes on printing. Objects travel over gloo, also between GPUs: they are results, not tensors
    of a step, and a process may wait for hours for the slowest batch.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) < 2 or distributed.is_initialized():
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
    distributed.init_process_group("gloo", timeout=timedelta(days=1))
    leave_at_exit()
    if rank():
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115  (until the process ends)


def rank() -> int:
    """The number of this process; 0 writes the results."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def size() -> int:
    """How many processes there are."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def is_main() -> bool:
    """Whether this process writes files."""
    return rank() == 0


def hold_out(out: Path, root: str | Path) -> None:
    """Be the one evaluation that writes into ``out``, outside of the corpus ``root``. Raises LockError, in all
    processes.
    """
    decide(lambda: hold(out, "out", reads=[root]))


def share(items: Sequence[T]) -> list[T]:
    """This process' part of ``items``, every ``size()``-th of them."""
    return list(items[rank() :: size()])


def gather(found: Mapping[K, V], what: str) -> dict[K, V]:
    """What all processes found, together. All must call it with the same ``what``, in the same order.

    Raises:
        RuntimeError: the processes are at different places of the program.
    """
    if size() == 1:
        return dict(found)
    parts: list[tuple[str, dict[K, V]] | None] = [None] * size()
    distributed.all_gather_object(parts, (what, dict(found)))
    everything: dict[K, V] = {}
    for part in parts:
        assert part is not None
        if part[0] != what:
            raise RuntimeError(f"one process is at '{what}' and another at '{part[0]}': their inputs differ.")
        everything |= part[1]
    return everything


def wait(what: str) -> None:
    """Go on when all processes are here."""
    gather({}, what)
