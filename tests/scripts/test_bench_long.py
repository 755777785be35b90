"""scripts/bench_long.py: pieces against one pass on a tiny codec, and what it prints."""

import multiprocessing.dummy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from tiny_models import tiny_codec

from bench_long import long_clip, main
from training.config import REPOSITORY


def test_a_clip_is_as_long_as_asked_for() -> None:
    wav = long_clip(str(REPOSITORY / "data/mini"), 0.05, 16_000)
    assert wav.shape == (48_000,) and np.abs(wav).max() > 0.05


@pytest.mark.slow
def test_both_ways_are_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In threads here: what a process of its own would add is the memory that it took."""
    monkeypatch.chdir(REPOSITORY)
    monkeypatch.setattr("bench_long.multiprocessing", SimpleNamespace(get_context=lambda _: multiprocessing.dummy))
    monkeypatch.setattr("torch.set_num_threads", lambda _: None)
    tiny_codec().save_pretrained(tmp_path / "codec")
    monkeypatch.setattr("sys.argv", ["bench_long.py", f"--tokenizer={tmp_path / 'codec'}", "--minutes=1.1"])
    assert main() == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines[:3]] == ["in pieces", "one pass", "file to file"]
    assert lines[3].startswith("0 codes differ; the waveforms agree to ")
    assert float(lines[3].split()[-2]) > 50
