"""How fast audio files are read to their end, and how much memory a long one takes.

    python scripts/bench_audio.py                  # clips of 10 s and a file of two hours
    python scripts/bench_audio.py --hours 0.5 --rounds 3

Prints per format, of calls in random order: milliseconds of audio_info and read_audio per clip (medians); the same of a
crop of 3.2 s from anywhere in an hour at 44.1 kHz, and of the first one, which looks at the whole container; and, for
one long file each, the seconds of processor time and the highest memory of a process (Linux) that does nothing but
read_pieces or read_audio. Python and the libraries are in it.
"""

import training.help  # noqa: F401

import argparse
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile

from codec.audio.files import audio_info, length_at, read_audio, read_pieces, read_span
from training.arguments import at_least

RATE = 16_000
FORMATS = {"wav": "PCM_16", "flac": "PCM_16", "ogg": "VORBIS", "mp3": "MPEG_LAYER_III"}
READERS = {
    "read_pieces": lambda path: sum(len(piece) for piece in read_pieces(path, RATE)),
    "read_audio": lambda path: len(read_audio(path, RATE)),
}


def sound(seconds: float) -> np.ndarray:
    """Decaying harmonics with noise, int16 [samples]: neither silent nor white, so that it is coded like speech."""
    second = np.arange(RATE) / RATE
    voice = sum(np.sin(2 * np.pi * 140 * k * second) / k for k in range(1, 12)) * np.exp(-3 * second)
    noise = np.random.default_rng(0).normal(0, 0.02, RATE)
    return np.tile((6_000 * (voice + noise)).astype(np.int16), int(seconds))


def write(path: Path, seconds: int, rate: int = RATE) -> None:
    """A file of so many seconds, written minute by minute; at another rate the same samples, faster."""
    with soundfile.SoundFile(path, "w", rate, 1, subtype=FORMATS[path.suffix[1:]]) as file:
        for start in range(0, seconds * rate // RATE, 60):
            file.write(sound(min(60, seconds * rate // RATE - start)))


def milliseconds(paths: list[Path], rounds: int) -> dict[tuple[str, str], float]:
    """Median time of each call per format; the calls come in random order, so that other load meets all alike."""
    calls = {"audio_info": audio_info, "read_audio": lambda path: read_audio(path, RATE)}
    taken: dict[tuple[str, str], list[float]] = {}
    work = [(path, name) for path in paths for name in calls] * rounds
    random.Random(0).shuffle(work)
    for path, name in work:
        started = time.perf_counter()
        calls[name](path)
        taken.setdefault((path.suffix[1:], name), []).append(1000 * (time.perf_counter() - started))
    return {key: statistics.median(values) for key, values in taken.items()}


def measure(path: Path, reader: str) -> str:
    """Processor seconds of reading a file, and the highest memory of the process, which does nothing else."""
    started = time.process_time()
    samples = READERS[reader](path)
    taken = time.process_time() - started
    peak = re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())
    memory = f"{int(peak[1]) / 1024:7.0f} MB" if peak else "unknown memory"
    return f"{samples / RATE / 3600:.2f} h {taken:7.2f} s {memory}"


def crops(path: Path, rounds: int, seconds: float = 3.2, rate: int = 24_000) -> str:
    """Milliseconds of the first crop of a file, and median of those of the others."""
    random.seed(0)
    taken = []
    for _ in range(rounds + 1):
        started = time.perf_counter()
        start = random.randrange(length_at(path, rate) - int(seconds * rate))
        read_span(path, rate, start, int(seconds * rate))
        taken.append(1000 * (time.perf_counter() - started))
    return f"first {taken[0]:8.1f} ms, then {statistics.median(taken[1:]):8.1f} ms"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=at_least(1), default=50, help="calls per format and clip")
    parser.add_argument("--hours", type=float, default=2.0, help="length of the long files; 0: none")
    parser.add_argument("--measure", nargs=2, metavar=("FILE", "READER"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(measure(Path(options.measure[0]), options.measure[1]))
        return
    with tempfile.TemporaryDirectory() as folder:
        clips = [Path(folder) / f"clip.{kind}" for kind in FORMATS]
        for path in clips:
            write(path, 10)
        for (kind, name), value in sorted(milliseconds(clips, options.rounds).items()):
            print(f"{kind:<5} 10 s  {name:<12}{value:8.3f} ms")
        for kind in FORMATS if options.hours else ():
            path = Path(folder) / f"hour.{kind}"
            write(path, 3600, 44_100)
            print(f"{kind:<5} crop of an hour at 44.1 kHz  {crops(path, options.rounds)}")
            path.unlink()
            path = Path(folder) / f"long.{kind}"
            write(path, int(3600 * options.hours))
            for reader in READERS:
                command = [sys.executable, __file__, "--measure", str(path), reader]
                told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
                print(f"{kind:<5} {reader:<12} {told}", end="")
            path.unlink()


if __name__ == "__main__":
    main()
