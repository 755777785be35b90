"""scripts/bench_long.py: pieces against one pass on a tiny codec, and what it prints."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tiny_models import tiny_codec

from bench_long import long_clip

ROOT = Path(__file__).resolve().parents[2]


def test_a_clip_is_as_long_as_asked_for() -> None:
    wav = long_clip(str(ROOT / "data/mini"), 0.05, 16_000)
    assert wav.shape == (48_000,) and np.abs(wav).max() > 0.05


@pytest.mark.slow
def test_both_ways_are_compared(tmp_path: Path) -> None:
    tiny_codec().save_pretrained(tmp_path / "codec")
    command = [sys.executable, str(ROOT / "scripts/bench_long.py"), "--tokenizer", str(tmp_path / "codec")]
    done = subprocess.run([*command, "--minutes", "1.5"], cwd=ROOT, capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert [line.split(":")[0] for line in lines[:3]] == ["in pieces", "one pass", "file to file"]
    assert lines[3].startswith("0 codes differ; the waveforms agree to ")
    assert float(lines[3].split()[-2]) > 50
