"""Processes that see different files go the same way, the first one's. Else one would wait for the other for ever."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from json_files import read_json

from codec.encode import encode_corpus
from eval.harness.score_cache import cache_name
from training.launch import decide

sys.path.insert(0, str(Path(__file__).parent))
from agreeing_worker import Loudness  # noqa: E402
from tiny_training import launcher


def test_one_process_decides_for_itself() -> None:
    assert decide(lambda: 7) == 7
    with pytest.raises(KeyError):
        decide(lambda: {}["missing"])


@pytest.mark.slow
def test_two_processes_that_see_different_files_agree(tmp_path: Path) -> None:
    (tmp_path / "corpus").mkdir()
    for number in range(3):
        wav = 0.1 * np.random.default_rng(number).standard_normal(8_000)
        soundfile.write(tmp_path / f"corpus/{number}.wav", wav, 16_000)
    encode_corpus(tmp_path / "corpus", Loudness(), tmp_path / "known", workers=1)
    for rank, steps in ((0, (2,)), (1, (2, 4))):  # rank 1 sees a newer checkpoint, and more scores
        for step in steps:
            folder = tmp_path / f"disk-{rank}/checkpoints/step_{step:07d}"
            folder.mkdir(parents=True)
            (folder / "state.json").write_text("{}")
        cache = tmp_path / f"disk-{rank}/cache"
        cache.mkdir()
        name = f"{cache_name('judge', {})}.jsonl"
        (cache / name).write_text("".join(json.dumps({"key": f"clip {s}", "value": 1.0}) + "\n" for s in steps))
    broken = tmp_path / "disk-0/damaged/checkpoints/step_0000001"
    broken.mkdir(parents=True)  # without a state
    command = [*launcher(2), str(Path(__file__).with_name("agreeing_worker.py")), str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stdout + result.stderr
    first, second = (read_json(tmp_path / f"rank-{rank}.json") for rank in (0, 1))
    assert first == second
    assert first["decided"] == "as 0 sees it" and "out of range" in first["refused"]
    assert first["checkpoint"].endswith("disk-0/checkpoints/step_0000002")
    assert "no checkpoint of" in first["damaged"]
    assert first["encoded"] == [3, 3]
    assert first["cached"] == ["clip 2", "clip 4"]
