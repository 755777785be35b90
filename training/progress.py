"""Progress of long work: a bar on a terminal, a plain line every few seconds elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

from training.log import duration

T = TypeVar("T")


def progress(items: Iterable[T], total: int | None = None, desc: str = "", every: float = 10.0) -> Iterator[T]:
    """Iterate over ``items`` and show how far it is.

    Args:
        total: number of items; taken from ``len(items)`` when it has one.
        every: seconds between lines when the output is not a terminal.
    """
    if total is None and hasattr(items, "__len__"):
        total = len(items)  # type: ignore[arg-type]
    if sys.stderr.isatty():
        yield from tqdm(items, total=total, desc=desc, dynamic_ncols=True)
        return
    start = last = time.monotonic()
    done = 0
    for item in items:
        yield item
        done += 1
        now = time.monotonic()
        if now - last >= every:
            last = now
            share = f"{done}/{total}" if total else str(done)
            left = f", {duration((now - start) / done * (total - done))} left" if total else ""
            print(f"{desc}: {share} in {duration(now - start)}{left}", flush=True)
