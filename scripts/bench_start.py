"""How long one waits for a command that nothing has warmed up: for its help, and from its start to its first sound.

    python scripts/bench_start.py               # five rounds, in turns

`almkit speak` stands beside the program that it starts, lm/generate.py, and both speak the same sentence by the model
that ships, with --stream. Each runs in a process and a folder of its own; the first sound is there when the file holds
samples.
"""

from __future__ import annotations

import training.help  # noqa: F401

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from training.arguments import at_least
from training.config import ending_plainly
from training.places import REPOSITORY, environment

TEXT, HEADER = "peter carried the purple ladder", 44  # bytes of a WAV file without sound
ALMKIT = ["-m", "almkit.command"]
COMMANDS = {
    "almkit --help": [*ALMKIT, "--help"],
    "almkit speak": [*ALMKIT, "speak", TEXT, "--stream", "-o", "said.wav"],
    "lm/generate.py": [str(REPOSITORY / "lm/generate.py"), f"text={TEXT}", "stream=true", "out=said.wav"],
}


@dataclass(frozen=True)
class Started:
    """Seconds from the start of a process to its first sound (of one that makes none: its end), and of processors."""

    first: float
    processor: float


def started(arguments: list[str]) -> Started:
    """One process. Raises SystemExit where it fails."""
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile() as errors:
        sound, first, ended = Path(folder) / "said.wav", 0.0, 0
        start = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, *arguments], cwd=folder, env=environment(), stdout=subprocess.DEVNULL, stderr=errors
        )
        while not ended:
            time.sleep(0.005)
            ended, status, usage = os.wait4(process.pid, os.WNOHANG)
            if not first and (ended or (sound.is_file() and sound.stat().st_size > HEADER)):
                first = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            errors.seek(0)
            raise SystemExit(f"{' '.join(arguments)}: {errors.read().decode(errors='replace').strip()}")
        return Started(first, usage.ru_utime + usage.ru_stime)


@ending_plainly()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=at_least(1), default=5)
    options = parser.parse_args()
    found: dict[str, list[Started]] = {name: [] for name in COMMANDS}
    print(f"{os.cpu_count()} cores, load {' '.join(f'{load:.1f}' for load in os.getloadavg())}")
    for _ in range(options.rounds):
        for name, arguments in COMMANDS.items():
            found[name].append(started(arguments))
    print("| command | first sound or end, s: median (least to most) | processor s |\n|---|---|---|")
    for name, times in found.items():
        first = [one.first for one in times]
        processor = statistics.median(one.processor for one in times)
        spread = f"{statistics.median(first):.2f} ({min(first):.2f} to {max(first):.2f})"
        print(f"| {name} | {spread} | {processor:.2f} |")


if __name__ == "__main__":
    main()
