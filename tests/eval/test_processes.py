"""Metrics over two processes give what one process gives."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.eval.reducing_worker import results

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_two_processes_are_one(tmp_path: Path) -> None:
    """slow: starts two interpreters."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(ROOT / "tests/eval/reducing_worker.py")]
    workers = [
        subprocess.Popen(
            [*command, str(rank), str(tmp_path / "meeting")], stdout=subprocess.PIPE, text=True, env=environment
        )
        for rank in (0, 1)
    ]
    found = [json.loads(worker.communicate(timeout=120)[0]) for worker in workers]
    expected = results(slice(0, 4))
    assert expected["failed"] == 1
    for part in found:
        assert part == pytest.approx(expected, rel=1e-9)
