"""Random kills, stops, full and read-only disks: a short form of scripts/kill_runs.py, which does twenty of each.

Two cells a day, by the date, so that all have their turn within two weeks; not those that have a test of their own.
"""

import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from scripts import kill_runs
from training.config import REPOSITORY

# tests/codec/test_train.py, test_stop.py and test_encode.py, tests/lm/test_train.py
ELSEWHERE = ("codec/SIGKILL", "codec/SIGTERM", "encode/SIGKILL", "lm/SIGKILL")
CELLS = [cell for cell in kill_runs.CELLS if cell not in ELSEWHERE]


@pytest.mark.slow
def test_the_same_command_ends_with_the_result_of_an_undisturbed_run() -> None:
    day = int(time.time() // 86_400)
    cells = {CELLS[(day + shift) % len(CELLS)] for shift in (0, len(CELLS) // 2)}
    command = [sys.executable, str(REPOSITORY / "scripts/kill_runs.py"), "--count=1", f"--seed={day}", "--only", *cells]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(re.findall(r" 1 of 1 ", done.stdout)) == len(cells), done.stdout


def test_another_result_and_what_stays_behind_are_found(tmp_path: Path) -> None:
    """The comparison itself: it sees one value, one byte and one file, and no clock."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out/results.json").write_text('{"finished": 1, "rows": {"wer": 0.5}}')
    (tmp_path / "out/a.wav").write_bytes(b"abc")
    expected, log = kill_runs.content(tmp_path, ["out"]), tmp_path / "log"
    changes = {
        "": lambda: (tmp_path / "out/results.json").write_text('{"finished": 2, "rows": {"wer": 0.5}}'),
        "another result: out/results.json": lambda: (tmp_path / "out/results.json").write_text(
            '{"rows": {"wer": 0.4}}'
        ),
        "another result: out/a.wav, out/results.json": lambda: (tmp_path / "out/a.wav").write_bytes(b"abd"),
    }
    for said, change in changes.items():
        change()
        assert kill_runs.attempt(lambda: 0, tmp_path, expected, ["out"], log) == said
    log.write_text("it cannot")
    assert "status 2: it cannot" in kill_runs.attempt(lambda: 2, tmp_path, expected, ["out"], log)
    (tmp_path / ".a.wav.tmp").touch()
    expected = kill_runs.content(tmp_path, ["out"])
    assert kill_runs.attempt(lambda: 0, tmp_path, expected, ["out"], log) == "left behind: .a.wav.tmp"
