"""A run's folder: one writer, the newest whole checkpoint, nothing newer than the start in its way, settings kept."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import save_file

from training.checkpoint import CheckpointError, latest_checkpoint, list_checkpoints, rotate, save_folder, step_folder
from training.config import REPOSITORY, ConfigError
from training.run_folder import check_recipe, choose_checkpoint, hold, release, set_aside, write_settings
from training.stopping import Stop


def checkpoint(run: Path, step: int) -> Path:
    def write(folder: Path) -> None:
        save_file({"w": torch.arange(100.0) + step}, folder / "model.safetensors")
        torch.save({"moments": torch.ones(10)}, folder / "optimizer.pt")
        (folder / "state.json").write_text(json.dumps({"step": step}))

    return save_folder(step_folder(run, step), write)


def test_explicit_resume_never_starts_afresh(tmp_path: Path) -> None:
    assert choose_checkpoint(tmp_path, "auto", print) is None
    assert choose_checkpoint(tmp_path, "none", print) is None
    with pytest.raises(CheckpointError, match="not a checkpoint folder"):
        choose_checkpoint(tmp_path, str(tmp_path / "nothing"), print)


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.pt", "state.json"])
@pytest.mark.parametrize("how", ["cut", "emptied", "overwritten"])
def test_a_damaged_newest_checkpoint_is_left_for_the_one_before(tmp_path: Path, name: str, how: str) -> None:
    for step in (10, 20):
        checkpoint(tmp_path, step)
    damaged = step_folder(tmp_path, 20) / name
    size = damaged.stat().st_size
    damaged.write_bytes({"cut": damaged.read_bytes()[: size // 2], "emptied": b"", "overwritten": b"\x80" * size}[how])
    said: list[str] = []
    assert choose_checkpoint(tmp_path, "auto", said.append) == step_folder(tmp_path, 10)
    assert len(said) == 1 and name in said[0] and "step_0000020 is left out" in said[0]
    with pytest.raises(CheckpointError, match=name):
        choose_checkpoint(tmp_path, str(step_folder(tmp_path, 20)), said.append)


def test_a_run_without_a_whole_checkpoint_is_never_started_over_unasked(tmp_path: Path) -> None:
    (checkpoint(tmp_path, 10) / "state.json").unlink()
    with pytest.raises(CheckpointError, match="no checkpoint of .* is whole: give resume=none"):
        choose_checkpoint(tmp_path, "auto", print)


@pytest.mark.parametrize("start", [0, 10])
def test_what_is_newer_than_the_start_can_not_come_back(tmp_path: Path, start: int) -> None:
    """`resume=none`, or a checkpoint with newer ones beside it: the rotation keeps the new ones."""
    for step in (10, 20, 30):
        checkpoint(tmp_path, step)
    (tmp_path / "final").mkdir()
    (tmp_path / "log.jsonl").write_text("old")
    said: list[str] = []
    aside = set_aside(tmp_path, start, said.append)
    assert aside == tmp_path / "aside-1" and str(aside) in said[0]
    old = ["step_0000020", "step_0000030"] if start else ["step_0000010", "step_0000020", "step_0000030"]
    assert sorted(path.name for path in aside.iterdir()) == ["final", "log.jsonl", *old]
    checkpoint(tmp_path, 15)
    rotate(tmp_path, 1)
    assert list_checkpoints(tmp_path) == [step_folder(tmp_path, 15)] == [latest_checkpoint(tmp_path)]
    assert set_aside(tmp_path, 15, said.append) is None


def test_a_finished_run_that_goes_on_keeps_its_model_until_there_is_a_newer_one(tmp_path: Path) -> None:
    checkpoint(tmp_path, 10)
    (tmp_path / "final").mkdir()
    assert set_aside(tmp_path, 10, print) is None and (tmp_path / "final").is_dir()


HOLDER = """
import sys, time
from training.run_folder import hold
hold(sys.argv[1])
print("held", flush=True)
time.sleep(60)
"""


def test_two_processes_never_write_one_folder_and_death_releases_it(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLDER, str(tmp_path / "run")]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == b"held\n"
        with pytest.raises(ConfigError):
            hold(tmp_path / "run")
        second = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert second.returncode == 2
        assert f"is being written by process {holder.pid}" in second.stderr and "give another name" in second.stderr
        holder.send_signal(signal.SIGKILL)
    hold(tmp_path / "run")
    hold(tmp_path / "run")  # again in the same process
    release(tmp_path / "run")


def test_settings_keep_their_history_and_say_what_changed(tmp_path: Path) -> None:
    said: list[str] = []
    for rate in (1.0, 1.0, 2.0, 3.0):
        write_settings(OmegaConf.create({"name": "a", "trainer": {"lr": rate}}), tmp_path, said.append)
    assert [line.split(": ", 1)[1] for line in said] == ["trainer.lr: 1.0 → 2.0", "trainer.lr: 2.0 → 3.0"]
    history = [OmegaConf.load(tmp_path / name).trainer.lr for name in ("config-1.yaml", "config-2.yaml", "config.yaml")]
    assert history == [1.0, 2.0, 3.0]


def test_another_recipe_is_refused_with_what_differs() -> None:
    check_recipe({"a": {"b": 1}}, {"a": {"b": 1}}, Path("c"))
    with pytest.raises(CheckpointError, match=r"\(a.b: 1 → 2; d: None → 3\)"):
        check_recipe({"a": {"b": 1}}, {"a": {"b": 2}, "d": 3}, Path("c"))


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129)])
def test_a_signal_is_noted_and_told_by_the_exit_status(number: signal.Signals, status: int) -> None:
    before = signal.getsignal(number)
    stop = Stop().listen()
    assert not stop.asked
    signal.raise_signal(number)
    assert stop.asked and stop.name == number.name
    assert signal.getsignal(number) == before  # a second one ends the process
    with pytest.raises(SystemExit) as left:
        stop.leave()
    assert left.value.code == status
