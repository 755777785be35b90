"""Threads per process: cores divided by local processes under a launcher, never more than asked for."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from training import threads


@pytest.fixture(autouse=True)
def launched(monkeypatch: pytest.MonkeyPatch):
    """As `accelerate launch` starts a process on a machine of four cores."""
    before = torch.get_num_threads()
    monkeypatch.setattr(threads, "cores", lambda: 4)
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    yield
    torch.set_num_threads(before)


def test_one_process_gets_the_cores_and_several_share_them(monkeypatch: pytest.MonkeyPatch) -> None:
    assert threads.set_threads(None) == 4
    for processes, expected in ((2, 2), (4, 1), (8, 1)):
        monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))
        assert threads.set_threads(None) == expected


def test_what_was_asked_for_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    assert threads.set_threads(3) == 3
    torch.set_num_threads(2)
    monkeypatch.setenv("OMP_NUM_THREADS", "2")  # as --num_cpu_threads_per_process 2 leaves it
    assert threads.set_threads(None) == 2
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.delenv("ACCELERATE_MIXED_PRECISION")  # without a launcher torch has looked at it already
    assert threads.set_threads(None) == 2


def test_two_threads_of_one_core_count_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    processors = [(0, 0, 0), (1, 0, 1), (2, 0, 0), (3, 0, 1), (4, 1, 0)]  # processor, socket, core
    text = "".join(
        f"processor\t: {number}\nmodel name\t: x: y\nphysical id\t: {socket}\ncore id\t\t: {core}\n\n"
        for number, socket, core in processors
    )
    (tmp_path / "cpuinfo").write_text(text)
    monkeypatch.undo()  # the real `cores`
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3, 4}, raising=False)
    assert threads.cores(tmp_path / "cpuinfo") == 3
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 2}, raising=False)
    assert threads.cores(tmp_path / "cpuinfo") == 1
    assert threads.cores(tmp_path / "none") == 2
