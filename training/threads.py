"""How many CPU threads a training process computes with (key ``threads``)."""

from __future__ import annotations

import os
from pathlib import Path

import torch


def cores(cpuinfo: Path = Path("/proc/cpuinfo")) -> int:
    """Physical cores this process may run on; logical ones where the machine does not tell them apart."""
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))
    found, place = set(), {}
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.is_file() else []
    for line in [*lines, ""]:
        name, _, value = line.partition(":")
        if name.strip():
            place[name.strip()] = value.strip()
        elif place:  # an empty line ends a processor
            if int(place.get("processor", -1)) in allowed and "core id" in place:
                found.add((place.get("physical id"), place["core id"]))
            place = {}
    return len(found) or len(allowed)


def set_threads(threads: int | None) -> int:
    """Let torch use ``threads``; returns how many it uses.

    None means the cores of the machine, divided by its processes, under `accelerate launch` (which by itself gives
    every process one thread on a machine without a GPU), and torch's own choice otherwise. An ``OMP_NUM_THREADS`` above
    1, set by hand or by ``--num_cpu_threads_per_process``, is left as it is.
    """
    environment = os.environ
    if threads is None and ("ACCELERATE_MIXED_PRECISION" in environment or "LOCAL_WORLD_SIZE" in environment):
        if environment.get("OMP_NUM_THREADS", "1") == "1":
            threads = max(1, cores() // int(environment.get("LOCAL_WORLD_SIZE", "1")))
    if threads:
        torch.set_num_threads(threads)
    return torch.get_num_threads()
