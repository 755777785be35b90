"""Recordings get their text and their pitch, whatever fits into memory at once, and no score is computed again."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
from json_files import read_lines, write_lines
from programs import run_program

from eval import label
from eval.judges import judging

PITCHES = {"a": 110.0, "b": 220.0, "c": 165.0}


@pytest.mark.slow
def test_each_cache_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("said").mkdir()
    for name, pitch in PITCHES.items():
        phase = 2 * np.pi * pitch * np.arange(16_000) / 16_000
        soundfile.write(f"said/{name}.wav", 0.1 * sum(np.sin(k * phase) / k for k in range(1, 6)), 16_000)
    write_lines(tmp_path / "said/metadata.jsonl", [{"file_name": f"{name}.wav", "split": "train"} for name in PITCHES])
    read: list[str] = []
    real = judging.ScoreCache
    monkeypatch.setattr(judging, "ScoreCache", lambda folder, kind, how: read.append(kind) or real(folder, kind, how))
    monkeypatch.setattr(label, "AT_ONCE", 1)
    found = []
    for _ in range(2):
        run_program("eval_label", "data.root=said", "out=out", "recogniser=ctc-mini", "dnsmos=false", "device=cpu")
        found.append(read_lines(Path("out/labels.jsonl")))
        monkeypatch.setattr(label, "median_pitch", None)  # nothing is left to score
    assert sorted(read) == 2 * ["ctc-mini"] + 2 * ["pitch"]
    assert found[0] == found[1]
    assert {line["id"]: line["pitch"] for line in found[0]} == pytest.approx(PITCHES, rel=0.01)
    assert all("text" in line for line in found[0])
