"""What a training reads, made ahead of it by processes of their own."""

from __future__ import annotations

import signal
from typing import TypeVar

from torch.utils.data import DataLoader, Dataset

from training.stopping import SIGNALS

T = TypeVar("T")


def made_ahead(items: Dataset[T], numbers: range, workers: int) -> DataLoader[T]:
    """``items[number]`` of each of ``numbers``, in their order, as each is; without ``workers`` as it is asked for.

    Who holds an iterator of it lets go of it before the program ends: that ends the workers.
    """
    more = {"prefetch_factor": 4} if workers else {}
    return DataLoader(
        items,
        sampler=numbers,
        batch_size=None,
        num_workers=workers,
        collate_fn=as_it_is,
        worker_init_fn=ignore_signals,
        **more,  # type: ignore[arg-type]
    )


def as_it_is(item: T) -> T:
    """Items are made as a whole."""
    return item


def ignore_signals(_: int = 0) -> None:
    """For helpers of a training: what is sent to all of its group (Ctrl-C, a terminal that closes, a cluster's end of
    a job) reaches them as well, and the training still needs them to save. It ends them itself, by what they read.
    """
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
