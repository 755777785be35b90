"""What a judge costs: seconds per second of audio, and the most memory that the program and its workers held meanwhile.

    with measured("whisper", clips):        # those that it has yet to judge
        …

prints ``whisper: 24 clips, 97.1 s of audio in 61.4 s (0.63 × real time), 1,214 MB at most``. Memory is that of the
processes (resident), not of a GPU, and is looked at five times a second.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import psutil

from eval.harness.scored import ScoredClip

POLL = 0.2  # s


def resident() -> int:
    """Bytes that this process and its children hold."""
    here = psutil.Process()
    total = 0
    for process in (here, *here.children(recursive=True)):
        try:
            total += process.memory_info().rss
        except psutil.NoSuchProcess:  # it has just ended
            continue
    return total


@contextmanager
def measured(name: str, clips: Sequence[ScoredClip]) -> Iterator[None]:
    """Print what the ``with`` block, in which ``name`` judges ``clips``, cost; nothing where there are none."""
    if not clips:
        yield
        return
    most, done = resident(), threading.Event()

    def look() -> None:
        nonlocal most
        while not done.wait(POLL):
            most = max(most, resident())

    watcher = threading.Thread(target=look, daemon=True)
    watcher.start()
    start = time.perf_counter()
    try:
        yield
    finally:
        done.set()
        watcher.join()
    taken = time.perf_counter() - start
    audio = sum(clip.seconds for clip in clips)
    print(
        f"{name}: {len(clips)} clips, {audio:.1f} s of audio in {taken:.1f} s ({taken / audio:.2f} × real time), "
        f"{max(most, resident()) / 1e6:,.0f} MB at most",
        flush=True,
    )
