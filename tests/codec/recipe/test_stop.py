"""How a codec training ends before its time: SIGTERM and numbers that are not finite, on one and two processes."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from json_files import read_json
from safetensors.torch import load_file
from tiny_training import TINY, assert_equal, launcher, train

from codec.train import main
from training.checkpoint import damage, list_checkpoints, save_folder
from training.config import REPOSITORY, compose

OPTIONS = ["name=run", "data.root=corpus", *TINY, "trainer.quantize_from=0", "trainer.init_batches=10"]
OPTIONS += ["trainer.save_every=2", "trainer.max_steps=6", "trainer.workers=0"]  # the driver stands in for what reads
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
        elif fault["kind"] == "launcher":
            os.kill(os.getppid(), fault["signal"])
        elif fault["kind"] == "group":
            os.killpg(0, fault["signal"])
        elif fault["kind"] == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        else:
            os.kill(os.getpid(), signal.SIGTERM)
    return wav, files

CropSampler.batch = batch
main()
"""


def run(processes: int, fault: dict, *more: str) -> tuple[int, str, str]:
    """Status, output and errors of a training with this fault."""
    Path("driver.py").write_text(DRIVER)
    command = [*(launcher(2) if processes > 1 else [sys.executable]), "driver.py", *OPTIONS, *more]
    environment = {**os.environ, "FAULT": json.dumps(fault)}
    result = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=200, start_new_session=True
    )
    return result.returncode, result.stdout, result.stderr


def go_on(capsys: pytest.CaptureFixture, step: int, processes: int) -> None:
    """One process goes on where they ended, with as many crops per step."""
    train("run", *OPTIONS, f"trainer.batch_size={2 * processes}")
    assert f"resumed from runs/run/checkpoints/step_{step:07}" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize(("processes", "rank"), [(1, 0), (2, 1)])
def test_a_loss_that_is_not_finite_names_the_files_and_spoils_nothing(
    place: Path, capsys: pytest.CaptureFixture, processes: int, rank: int
) -> None:
    status, _, errors = run(processes, {"kind": "nan", "step": 3, "rank": rank})
    assert status != 0
    (named,) = {line for line in errors.splitlines() if line.startswith("error: step 4 is not finite")}
    blamed = re.findall(r"(\w+\.wav)", named)  # the launcher may write behind them, on the same line
    assert set(blamed) == set(read_json("files.json"))
    assert "Traceback" not in errors.split("error: step 4")[0]

    (checkpoint,) = Path("runs/run/checkpoints").iterdir()
    assert checkpoint.name == "step_0000002"
    assert all(torch.isfinite(value).all() for value in load_file(checkpoint / "model.safetensors").values())
    go_on(capsys, 2, processes)


@pytest.mark.slow
def test_weights_that_explode_are_told_from_a_defect(place: Path, refusal: Callable[..., str]) -> None:
    """With tones and pulses, whose peaks and phases are no numbers then, before any loss is computed."""
    exploding = ["trainer.learning_rate=1e30", "trainer.clip_norm=1e30", "trainer.warmup_steps=0"]
    said = refusal(main.__wrapped__, compose("codec_train", [*OPTIONS, *exploding]))  # type: ignore[attr-defined]
    assert said.startswith("error: step ") and ".wav" in said


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_sigterm_to_one_process_saves_and_leaves(place: Path, capsys: pytest.CaptureFixture, processes: int) -> None:
    fault = {"kind": "sigterm", "step": 2, "rank": processes - 1}
    status, said, _ = run(processes, fault, "trainer.save_every=1000")
    assert status == 143 if processes == 1 else status != 0, "what was asked for is not done"
    assert re.search(r"(SIGTERM|a signal to another process): saved step 3; the same command continues", said)
    go_on(capsys, 3, processes)


@pytest.mark.slow
def test_a_launcher_that_is_hung_up_ends_when_its_processes_have_saved(place: Path) -> None:
    """As by a terminal that closes; the output ends when both processes have."""
    fault = {"kind": "launcher", "signal": signal.SIGHUP, "step": 2, "rank": 0}
    status, said, _ = run(2, fault, "trainer.save_every=1000", "trainer.max_steps=5000")
    assert status != 0, "what was asked for is not done"
    (saved,) = re.findall(r"(?:SIGHUP|a signal to another process): saved step (\d+); the same command continues", said)
    (checkpoint,) = list_checkpoints(Path("runs/run"))
    assert checkpoint.name == f"step_{int(saved):07}" and not damage(checkpoint)


@pytest.mark.slow
@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129)])
def test_a_signal_to_the_whole_group_leaves_the_reading_processes_alone(
    place: Path, number: signal.Signals, status: int
) -> None:
    """As a terminal that closes, a cluster's scheduler and Ctrl-C send it; here one of those that read does."""
    fault = {"kind": "group", "signal": number, "step": 4, "rank": 0}
    left, said, errors = run(1, fault, "trainer.save_every=1000", "trainer.max_steps=200", "trainer.workers=1")
    assert left == status and "Traceback" not in errors, errors
    assert re.search(rf"{number.name}: saved step \d+; the same command continues", said)


@pytest.mark.slow
def test_a_reading_process_that_the_system_kills_ends_it_in_one_sentence(
    place: Path, capsys: pytest.CaptureFixture
) -> None:
    more = ["trainer.max_steps=24", "trainer.workers=1"]
    status, _, errors = run(1, {"kind": "kill", "step": 20, "rank": 0}, *more)
    assert status == 2, errors
    assert errors.startswith("error: a process that makes steps ahead was ended by SIGKILL, as the")
    assert errors.count("\n") == 1
    goes_on = train("run", *OPTIONS, *more)
    assert "resumed from runs/run/checkpoints/step_000001" in capsys.readouterr().out
    assert_equal(goes_on, train("whole", *OPTIONS, *more, "name=whole"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "number", "status"),
    [("pipe", None, 141), ("pipe", signal.SIGINT, 130), ("terminal", signal.SIGHUP, 129)],
)
def test_output_that_nobody_takes_costs_no_step(
    place: Path, how: str, number: signal.Signals | None, status: int
) -> None:
    """``| head``, Ctrl-C on ``| tee log``, and a terminal that closes."""
    ours, theirs = os.openpty() if how == "terminal" else os.pipe()
    command = [sys.executable, str(REPOSITORY / "codec/train.py"), *OPTIONS, "trainer.max_steps=500"]
    command.append("trainer.save_every=1000")
    with subprocess.Popen(
        command, stdout=theirs, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as training:
        os.close(theirs)
        with os.fdopen(ours, encoding="utf-8", errors="replace") as reader:
            while not reader.readline().startswith("step 3/500"):
                assert training.poll() is None
        if number is not None:
            training.send_signal(number)
        _, errors = training.communicate(timeout=200)
    assert training.returncode == status and "Traceback" not in errors, errors
    named = "lost output" if number is None else number.name
    (saved,) = re.findall(rf"{named}: saved step (\d+); the same command continues\.", errors)
    (checkpoint,) = list_checkpoints(Path("runs/run"))
    assert checkpoint.name == f"step_{int(saved):07}" and not damage(checkpoint)


@pytest.mark.slow
def test_who_asks_while_the_final_folder_is_written_gets_it(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.getsignal(signal.SIGINT)

    def asked(path: Path, write: Callable[[Path], None]) -> Path:
        signal.raise_signal(signal.SIGINT)
        return save_folder(path, write)

    monkeypatch.setattr("codec.train.save_folder", asked)
    assert train("run", *OPTIONS)
    assert signal.getsignal(signal.SIGINT) is before  # another test may have left its own
