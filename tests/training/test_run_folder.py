"""A run's folder: the newest whole checkpoint, nothing newer than the start in its way, settings kept, signals."""

import json
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import save_file

from training.checkpoint import (
    CheckpointError,
    latest_checkpoint,
    list_checkpoints,
    rotate,
    save_checkpoint,
    step_folder,
)
from training.config import ending_plainly
from training.places import REPOSITORY
from training.run_folder import check_recipe, choose_checkpoint, set_aside, write_settings
from training.stopping import LAUNCHED, PATIENCE, Stop


def checkpoint(run: Path, step: int) -> Path:
    def write(folder: Path) -> None:
        save_file({"w": torch.arange(100.0) + step}, folder / "model.safetensors")
        torch.save({"moments": torch.ones(10)}, folder / "optimizer.pt")
        (folder / "state.json").write_text(json.dumps({"step": step}))

    return save_checkpoint(run, step, write, keep=0)


def test_explicit_resume_never_starts_afresh(tmp_path: Path) -> None:
    assert choose_checkpoint(tmp_path, "auto", print) is None
    assert choose_checkpoint(tmp_path, "none", print) is None
    with pytest.raises(CheckpointError, match="not a checkpoint folder"):
        choose_checkpoint(tmp_path, str(tmp_path / "nothing"), print)


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.pt", "state.json", "files.json"])
@pytest.mark.parametrize("how", ["cut", "emptied", "overwritten", "missing", "one bit"])
def test_a_damaged_newest_checkpoint_is_left_for_the_one_before(tmp_path: Path, name: str, how: str) -> None:
    for step in (10, 20):
        checkpoint(tmp_path, step)
    damaged = step_folder(tmp_path, 20) / name
    data, size = damaged.read_bytes(), damaged.stat().st_size
    flipped = data[: size // 2] + bytes([data[size // 2] ^ 1]) + data[size // 2 + 1 :]
    changed = {"cut": data[: size // 2], "emptied": b"", "overwritten": b"\x80" * size, "one bit": flipped}
    if how == "missing":
        damaged.unlink()
    else:
        damaged.write_bytes(changed[how])
    said: list[str] = []
    if (name, how) == ("files.json", "missing"):  # as in checkpoints from before there was such a list
        assert choose_checkpoint(tmp_path, "auto", said.append) == step_folder(tmp_path, 20)
        return
    assert choose_checkpoint(tmp_path, "auto", said.append) == step_folder(tmp_path, 10)
    assert len(said) == 1 and "step_0000020 is damaged" in said[0] and (name in said[0] or name == "files.json")
    with pytest.raises(CheckpointError, match="is damaged: .*; name another checkpoint"):
        choose_checkpoint(tmp_path, str(step_folder(tmp_path, 20)), said.append)


def test_a_run_without_a_whole_checkpoint_is_never_started_over_unasked(tmp_path: Path) -> None:
    (checkpoint(tmp_path, 10) / "state.json").unlink()
    assert list_checkpoints(tmp_path)
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
    began = step_folder(tmp_path, start) if start else None
    aside = set_aside(tmp_path, began, start, said.append)
    assert aside == tmp_path / "aside-1" and str(aside) in said[0]
    old = ["step_0000020", "step_0000030"] if start else ["step_0000010", "step_0000020", "step_0000030"]
    assert sorted(path.name for path in aside.iterdir()) == ["final", "log.jsonl", *old]
    checkpoint(tmp_path, 15)
    rotate(tmp_path, 1)
    assert list_checkpoints(tmp_path) == [step_folder(tmp_path, 15)] == [latest_checkpoint(tmp_path)]
    assert set_aside(tmp_path, step_folder(tmp_path, 15), 15, said.append) is None


def test_all_that_a_run_has_is_another_training_s_when_it_goes_on_from_a_run_elsewhere(tmp_path: Path) -> None:
    there = checkpoint(tmp_path / "there", 20)
    for step in (10, 30):
        checkpoint(tmp_path / "here", step)
    aside = set_aside(tmp_path / "here", there, 20, print)
    assert aside is not None and sorted(path.name for path in aside.iterdir()) == ["step_0000010", "step_0000030"]
    assert list_checkpoints(tmp_path / "there") == [there]


def test_a_finished_run_that_goes_on_keeps_its_model_until_there_is_a_newer_one(tmp_path: Path) -> None:
    checkpoint(tmp_path, 10)
    (tmp_path / "final").mkdir()
    assert set_aside(tmp_path, step_folder(tmp_path, 10), 10, print) is None and (tmp_path / "final").is_dir()


def test_settings_keep_their_history_and_say_what_changed(tmp_path: Path) -> None:
    said: list[str] = []
    for step, rate in ((0, 1.0), (5, 1.0), (7, 2.0), (7, 2.5), (9, 3.0)):
        write_settings(OmegaConf.create({"name": "a", "trainer": {"lr": rate}}), tmp_path, step, said.append)
    told = ["trainer.lr: 1.0 → 2.0", "trainer.lr: 2.0 → 2.5", "trainer.lr: 2.5 → 3.0"]
    assert [line.split("): ")[1] for line in said] == told
    history = {path.name: OmegaConf.load(path).trainer.lr for path in tmp_path.iterdir()}
    assert history == {"config-7.yaml": 1.0, "config-9.yaml": 2.5, "config.yaml": 3.0}, "in force until that step"


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
    signal.raise_signal(number)  # of the launcher, which passes on what the terminal sent to all
    assert stop.asked and stop.name == number.name
    stop.close()
    assert signal.getsignal(number) == before
    with pytest.raises(SystemExit) as left:
        stop.leave()
    assert left.value.code == status


TRAINING = """
import training.help
import pathlib, sys, time
from training.stopping import Stop, run_and_pass_on

if "--child" in sys.argv:
    stop = Stop().listen()
    pathlib.Path("started").touch()
    while not stop.asked:
        time.sleep(0.01)
    pathlib.Path("saved").write_text(stop.name)
    pathlib.Path("left").touch()
    stop.leave()
sys.exit(run_and_pass_on([sys.executable, __file__, "--child"]))
"""


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129), (signal.SIGKILL, -9)]
)
def test_a_training_that_a_program_started_saves_where_the_program_is_asked_to_stop(
    number: signal.Signals, status: int, tmp_path: Path
) -> None:
    (tmp_path / "program.py").write_text(TRAINING)
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    with subprocess.Popen([sys.executable, "program.py"], cwd=tmp_path, env=environment) as program:
        while not (tmp_path / "started").exists():
            assert program.poll() is None
            time.sleep(0.01)
        program.send_signal(number)  # to it alone, as `kill` does
        assert program.wait() == status
    while number == signal.SIGKILL and not (tmp_path / "left").exists():
        time.sleep(0.01)
    assert (tmp_path / "saved").read_text() == ("SIGTERM" if number == signal.SIGKILL else number.name)


LAUNCHER = """
import subprocess, sys, time
child = "import training.help, time; print('begun', flush=True); time.sleep(100)"
subprocess.Popen([sys.executable, "-c", child])
time.sleep(100)
"""


@pytest.mark.parametrize("name", [*LAUNCHED, "OTHER"])
def test_a_program_ends_with_its_launcher(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for launched in LAUNCHED:
        monkeypatch.delenv(launched, raising=False)
    monkeypatch.setenv(name, "0")
    command = [sys.executable, "-c", LAUNCHER]
    with subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True) as launcher:
        assert launcher.stdout is not None and launcher.stdout.readline() == b"begun\n"
        launcher.kill()  # so that it can pass nothing on
        launcher.wait()
        ended = bool(select.select([launcher.stdout], [], [], 60 if name in LAUNCHED else 0.5)[0])
        if not ended:
            os.killpg(launcher.pid, signal.SIGKILL)
    assert ended == (name in LAUNCHED)


def test_ctrl_c_again_does_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    Stop().listen()
    signal.raise_signal(signal.SIGINT)
    later = time.monotonic() + PATIENCE + 1
    monkeypatch.setattr(time, "monotonic", lambda: later)
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def test_nohup_stays_in_force() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    stop = Stop().listen()
    os.kill(os.getpid(), signal.SIGHUP)
    assert not stop.asked
    stop.close()
    signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize(("number", "status"), [(None, 141), (signal.SIGINT, 130)])
def test_who_prints_for_nobody_saves_first(
    number: signal.Signals | None, status: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As of ``training | tee log``, whose reader Ctrl-C ends at once."""
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as output, monkeypatch.context() as patched, pytest.raises(SystemExit) as left:
        patched.setattr(sys, "stdout", output)
        with ending_plainly():
            stop = Stop().listen()
            if number is not None:
                signal.raise_signal(number)
            print("step 1", flush=True)
            assert stop.asked
            print(f"{stop.name}: saved", flush=True)
            stop.close()
            stop.leave()
    assert left.value.code == status
    said = [f"{'lost output' if number is None else 'SIGINT'}: saved"]
    said += ["nobody reads the output any more; the same command goes on from what was finished."][: number is None]
    assert capsys.readouterr().err.splitlines() == said
