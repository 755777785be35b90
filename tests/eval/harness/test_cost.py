"""What a judge costs is printed: how much audio, how long, and the memory that it held."""

import re
import subprocess
import sys
import time

import numpy as np
import pytest

from eval.harness.cost import measured, resident
from eval.harness.scored import ScoredClip

HUNGRY = "import time; held = bytearray(b'x') * 200_000_000; print(len(held), flush=True); time.sleep(60)"


def clip(seconds: float) -> ScoredClip:
    return ScoredClip("a", "reference", "", np.zeros(int(16_000 * seconds), np.float32), 16_000)


def test_time_and_memory_of_workers_too(capsys: pytest.CaptureFixture[str]) -> None:
    before = resident()
    with measured("slow", [clip(1.0), clip(0.5)]):
        held = bytearray(300_000_000)
        held[::4096] = b"x" * len(held[::4096])  # touched, so that it is there
        with subprocess.Popen([sys.executable, "-c", HUNGRY], stdout=subprocess.PIPE) as worker:
            assert worker.stdout.readline().strip() == b"200000000"
            time.sleep(0.5)
            worker.kill()
        del held
    said = capsys.readouterr().out
    found = re.fullmatch(
        r"slow: 2 clips, 1\.5 s of audio in ([\d.]+) s \(([\d.]+) × real time\), ([\d,]+) MB at most\n", said
    )
    assert found, said
    seconds, factor, megabytes = (float(text.replace(",", "")) for text in found.groups())
    assert seconds >= 0.5 and factor == pytest.approx(seconds / 1.5, abs=0.05)
    assert megabytes > before / 1e6 + 450


def test_what_is_known_costs_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with measured("fast", []):
        pass
    assert capsys.readouterr().out == ""
