"""What a training reads, made ahead of it by processes of their own."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from typing import TypeVar

from torch.utils.data import DataLoader, Dataset

from training.failure import HelperEnded
from training.stopping import SIGNALS

T = TypeVar("T")
DYING = 3.0  # seconds from the end of what a process holds to its exit status


@contextmanager
def made_ahead(items: Dataset[T], numbers: range, workers: int) -> Iterator[Iterator[T]]:
    """``items[number]`` of each of ``numbers``, in their order, as each is; without ``workers`` as it is asked for.

    The ``with`` block ends the workers.

    Raises:
        HelperEnded: anywhere in the block: a worker was killed.
    """
    more = {"prefetch_factor": 4} if workers else {}
    loader = DataLoader(
        items,
        sampler=numbers,
        batch_size=None,
        num_workers=workers,
        collate_fn=as_it_is,
        worker_init_fn=ignore_signals,
        **more,  # type: ignore[arg-type]
    )
    helpers: list[BaseProcess] = []
    made: Generator[T, None, None] = each(loader, helpers)
    with closing(made):
        try:
            yield made
        except (RuntimeError, OSError, EOFError) as error:
            # torch's, raised as soon as one ends, wherever the training is then; or of what it was about to hand over
            if helpers:
                wait([helper.sentinel for helper in helpers], DYING)
            ended = [-status for helper in helpers if (status := helper.exitcode or 0) < 0]
            if not ended:
                raise
            why = ", as the system does where memory is full" if ended[0] == signal.SIGKILL else ""
            raise HelperEnded(
                f"a process that makes steps ahead was ended by {signal.Signals(ended[0]).name}{why}. The same command "
                "goes on from the last checkpoint; trainer.workers=0 makes the steps in the training itself."
            ) from error


def each(loader: DataLoader[T], helpers: list[BaseProcess]) -> Generator[T, None, None]:
    """What ``loader`` gives; its processes are added to ``helpers``."""
    made = iter(loader)
    helpers += multiprocessing.active_children()
    yield from made


def as_it_is(item: T) -> T:
    """Items are made as a whole."""
    return item


def ignore_signals(_: int = 0) -> None:
    """For helpers of a training: what is sent to all of its group (Ctrl-C, a terminal that closes, a cluster's end of
    a job) reaches them as well, and the training still needs them to save. It ends them itself, by what they read.
    """
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
