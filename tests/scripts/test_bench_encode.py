"""The measurement of a growing encoding: every clip is there, and the table says what was seen."""

from __future__ import annotations

import pytest
import soundfile

import bench_encode
from bench_encode import Watch, table


def test_the_highest_memory_up_to_each_mark() -> None:
    watched = [Watch(0, 0, 0, 100e6), Watch(900, 1, 1, 300e6), Watch(1_800, 2, 1.6, 200e6), Watch(2_000, 3, 2, 400e6)]
    lines = table(watched, 2_000).splitlines()[2:]
    assert lines[1:] == ["| 1,000 | 300 MB | 1 s | 1 s |", "| 2,000 | 400 MB | 3 s | 2 s |"]


def test_a_small_run(tmp_path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    assert bench_encode.main(["--clips", "30", "--batch-seconds", "1", "--workers", "1"]) == 0
    assert "clip is in them exactly once" in capsys.readouterr().out
    bench_encode.make_corpus(tmp_path, 3, 0.1)
    wavs = [soundfile.read(path)[0] for path in sorted(tmp_path.glob("0000/*.wav"))]
    assert [len(wav) for wav in wavs] == [1_600] * 3 and (wavs[0] != wavs[1]).any()
