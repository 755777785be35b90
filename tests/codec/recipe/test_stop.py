"""How a codec training ends before its time: SIGTERM and numbers that are not finite, on one and two processes."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

sys.path.insert(0, str(Path(__file__).parents[1]))
from test_train import REPOSITORY, TINY, launcher, start, write_corpus  # noqa: E402

# codec/train.py in a process whose crops of one step are not numbers, or that is told to stop, as the environment says.
DRIVER = """
import json, os, signal
import torch
from codec.recipe.crops import CropSampler
from codec.train import main

fault, rank = json.loads(os.environ["FAULT"]), int(os.environ.get("RANK", "0"))
honest = CropSampler.batch

def batch(self, step, first, size, samples):
    wav, files = honest(self, step, first, size, samples)
    if step == fault["step"] and rank == fault["rank"]:
        with open("files.json", "w") as stream:  # not on the console: the lines of two processes may run together
            json.dump([path.name for path in files], stream)
        if fault["kind"] == "nan":
            wav[0, 100] = torch.nan
        else:
            os.kill(os.getpid(), signal.SIGTERM)
    return wav, files

CropSampler.batch = batch
main()
"""


def run(cwd: Path, processes: int, fault: dict, *more: str) -> subprocess.CompletedProcess:
    (cwd / "driver.py").write_text(DRIVER)
    command = [*launcher(processes), str(cwd / "driver.py"), "name=run", f"data.root={cwd / 'corpus'}", *TINY]
    command += [
        "trainer.quantize_from=0",
        "trainer.init_batches=10",
        "trainer.save_every=2",
        "trainer.max_steps=6",
        *more,
    ]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1", "FAULT": json.dumps(fault)}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=200)


@pytest.mark.slow
@pytest.mark.parametrize(("processes", "rank"), [(1, 0), (2, 1)])
def test_a_loss_that_is_not_finite_names_the_files_and_spoils_nothing(
    tmp_path: Path, processes: int, rank: int
) -> None:
    write_corpus(tmp_path / "corpus")
    result = run(tmp_path, processes, {"kind": "nan", "step": 3, "rank": rank})
    assert result.returncode != 0
    (named,) = {line for line in result.stderr.splitlines() if line.startswith("error: step 4 is not finite")}
    blamed = re.findall(r"(\w+\.wav)", named)  # the launcher may write behind them, on the same line
    files = json.loads((tmp_path / "files.json").read_text())
    assert set(blamed) == set(files)
    assert "Traceback" not in result.stderr.split("error: step 4")[0]

    (checkpoint,) = (tmp_path / "runs/run/checkpoints").iterdir()
    assert checkpoint.name == "step_0000002"
    assert all(torch.isfinite(value).all() for value in load_file(checkpoint / "model.safetensors").values())
    again = run(tmp_path, processes, {"kind": "none", "step": -1, "rank": 0})
    assert again.returncode == 0, again.stdout + again.stderr
    assert "resumed from runs/run/checkpoints/step_0000002" in again.stdout


@pytest.mark.slow
def test_weights_that_explode_are_told_from_a_defect(tmp_path: Path) -> None:
    """With tones and pulses, whose peaks and phases are no numbers then, before any loss is computed."""
    write_corpus(tmp_path / "corpus")
    exploding = ["trainer.learning_rate=1e30", "trainer.clip_norm=1e30", "trainer.warmup_steps=0"]
    result = run(tmp_path, 1, {"kind": "none", "step": -1, "rank": 0}, *exploding)
    assert result.returncode != 0
    assert any(line.startswith("error: step ") and ".wav" in line for line in result.stderr.splitlines()), result.stderr


@pytest.mark.slow
def test_sigterm_to_one_of_two_processes_saves_and_leaves(tmp_path: Path) -> None:
    write_corpus(tmp_path / "corpus")
    result = run(tmp_path, 2, {"kind": "sigterm", "step": 2, "rank": 1}, "trainer.save_every=1000")
    assert result.returncode != 0, "what was asked for is not done"
    assert re.search(r"(SIGTERM|a signal to another process): saved step 3; the same command continues", result.stdout)
    again = run(tmp_path, 2, {"kind": "none", "step": -1, "rank": 0}, "trainer.save_every=1000")
    assert again.returncode == 0 and "resumed from runs/run/checkpoints/step_0000003" in again.stdout


@pytest.mark.slow
def test_sigterm_saves_and_leaves(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "corpus")
    process = start(tmp_path, corpus, "stopped", 100_000)
    log = tmp_path / "runs/stopped/log.jsonl"
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline and not (log.exists() and len(log.read_text().splitlines()) >= 2):
        time.sleep(0.05)
    process.terminate()
    output, _ = process.communicate(timeout=100)
    assert process.returncode == 143 and "SIGTERM: saved step" in output
