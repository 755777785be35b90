"""Checkpoints are whole or absent; the log has each step once."""

import os
import subprocess
import sys
from pathlib import Path
from types import FrameType

import pytest
import torch
from json_files import read_lines
from safetensors.torch import save_file

import training.checkpoint
from training.checkpoint import (
    CheckpointError,
    latest_checkpoint,
    list_checkpoints,
    restore_folder,
    rotate,
    save_checkpoint,
    save_folder,
    step_folder,
    write_file,
)
from training.log import RunLog, duration
from training.run_folder import choose_checkpoint


def write(value: str):
    return lambda folder: (folder / "x").write_text(value)


def left(folder: Path) -> dict[str, str]:
    """What was written, of all that is in ``folder``."""
    return {path.name: (path / "x").read_text() for path in folder.iterdir()}


def test_a_failing_write_leaves_the_old_folder(tmp_path: Path) -> None:
    target = tmp_path / "final"
    save_folder(target, write("one"))

    def fail(folder: Path) -> None:
        (folder / "x").write_text("half")
        raise OSError("disk full")

    with pytest.raises(CheckpointError, match=r"final cannot be written \(disk full\)"):
        save_folder(target, fail)
    assert left(tmp_path) == {"final": "one"}
    save_folder(target, write("two"))
    assert left(tmp_path) == {"final": "two"}


class CtrlC:
    """Raises KeyboardInterrupt at the ``moment``-th line that is run of what writes a checkpoint, as a signal does."""

    def __init__(self, moment: int) -> None:
        self.left = moment

    def __call__(self, frame: FrameType, event: str, _: object) -> "CtrlC | None":
        if not frame.f_code.co_filename.endswith("training/checkpoint.py"):
            return None
        self.left -= event == "line"
        if self.left == 0:
            raise KeyboardInterrupt
        return self

    def __enter__(self) -> None:
        self.before = sys.gettrace()
        sys.settrace(self)

    def __exit__(self, *_: object) -> None:
        sys.settrace(self.before)


@pytest.mark.slow
@pytest.mark.parametrize("at_once", [True, False])
@pytest.mark.parametrize("what", ["checkpoint", "final"])
def test_ctrl_c_at_any_moment_leaves_what_was_there_or_what_is_new(
    tmp_path: Path, what: str, at_once: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whole, and with no other error: "interrupted; the same command goes on from what was finished" is true."""
    monkeypatch.setattr("os.fsync", lambda _: None)  # what the test would wait for
    if not at_once:  # as on NFS
        monkeypatch.setattr(training.checkpoint, "_exchange", lambda *_: False)

    def save(value: int) -> None:
        def fill(folder: Path) -> None:
            (folder / "state.json").write_text(str(value))

        if what == "final":
            save_folder(tmp_path / "final", fill)
        else:
            save_checkpoint(tmp_path, value, fill, keep=1)

    save(1)
    for moment in range(1, 2000):
        value = moment + 1
        try:
            with CtrlC(moment):
                save(value)
        except KeyboardInterrupt:
            kept = choose_checkpoint(tmp_path, "auto", pytest.fail) if what == "checkpoint" else tmp_path / "final"
            assert kept is not None
            assert int((kept / "state.json").read_text()) in (value, value - 1)
            save(value)
        else:
            break
    assert 30 < moment < 2000, "it was interrupted at each of its lines"
    names = {path.name for path in [*tmp_path.iterdir(), *tmp_path.glob("checkpoints/*")]}
    assert names == ({"final"} if what == "final" else {"checkpoints", step_folder(tmp_path, value).name})


def test_an_error_that_is_not_the_disk_s_stays_what_it_is(tmp_path: Path) -> None:
    def fail(folder: Path) -> None:
        raise RuntimeError("a defect")

    with pytest.raises(RuntimeError, match="a defect"):
        save_folder(tmp_path / "final", fail)


def test_a_folder_whose_replacement_was_killed_comes_back(tmp_path: Path) -> None:
    target = tmp_path / "final"
    save_folder(target, write("one"))
    target.rename(tmp_path / ".final.old")  # between its two renames
    restore_folder(target)
    assert left(tmp_path) == {"final": "one"}
    target.rename(tmp_path / ".final.old")
    save_folder(target, write("two"))
    assert left(tmp_path) == {"final": "two"}


def test_a_folder_is_replaced_in_one_step_where_the_system_can(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "final"
    save_folder(target, write("one"))
    if not training.checkpoint._exchange(target, target):
        pytest.fail("renameat2 is what Linux offers on any local file system")

    def killed(*_: object) -> None:
        raise AssertionError("between two renames neither folder is there")

    monkeypatch.setattr(Path, "rename", killed)
    save_folder(target, write("two"))
    assert left(tmp_path) == {"final": "two"}


def test_where_it_cannot_a_kill_between_the_renames_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training.checkpoint, "_exchange", lambda *_: False)
    target = tmp_path / "final"
    save_folder(target, write("one"))
    real = Path.rename

    def rename(path: Path, to: Path) -> Path:
        if to == target:
            raise KeyboardInterrupt
        return real(path, to)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Path, "rename", rename)
        save_folder(target, write("two"))
    restore_folder(target)
    assert left(tmp_path) == {"final": "one"}
    save_folder(target, write("three"))
    assert left(tmp_path) == {"final": "three"}


def test_weights_can_be_read_by_whom_the_umask_lets(tmp_path: Path) -> None:
    """safetensors writes files that none but their owner may read."""

    def weights(folder: Path) -> None:
        save_file({"x": torch.zeros(1)}, folder / "model.safetensors")
        (folder / "program").write_text("")
        (folder / "program").chmod(0o755)

    before = os.umask(0o027)
    try:
        folder = save_folder(tmp_path / "final", weights)
    finally:
        os.umask(before)
    assert {file.name: oct(file.stat().st_mode & 0o777) for file in folder.iterdir()} == {
        "model.safetensors": "0o640",
        "program": "0o755",
    }


def test_a_link_to_the_folder_stays_a_link(tmp_path: Path) -> None:
    save_folder(tmp_path / "disk" / "page", write("one"))
    (tmp_path / "page").symlink_to("disk/page")
    save_folder(tmp_path / "page", write("two"))
    assert (tmp_path / "page").is_symlink() and left(tmp_path / "disk") == {"page": "two"}


FULL = """
import resource, sys
from pathlib import Path
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models
from training.checkpoint import CheckpointError, save_folder, write_file

resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
wide = torch.zeros(100_000)
writers = {
    "safetensors": lambda folder: save_file({"w": wide}, folder / "x"),
    "torch": lambda folder: torch.save({"w": wide}, folder / "x"),
    "torch, small ones": lambda folder: torch.save({str(i): torch.zeros(9) for i in range(999)}, folder / "x"),
    "tokenizers": lambda folder: Tokenizer(models.WordLevel({str(i): i for i in range(9999)})).save(str(folder / "x")),
    "text": lambda folder: (folder / "x").write_text("x" * 400_000),
}
for writer in writers.values():
    try:
        save_folder(Path("folder"), writer)
    except CheckpointError as error:
        print(error)
try:
    write_file(Path("folder/x"), "x" * 400_000)
except OSError as error:
    print(error)
"""


@pytest.mark.slow
def test_what_does_not_fit_is_refused_in_a_sentence_and_leaves_what_was_there(tmp_path: Path) -> None:
    """Each library has errors of its own for a disk that takes no more."""
    save_folder(tmp_path / "folder", write("one"))
    command = [sys.executable, "-c", FULL]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    said = result.stdout.splitlines()
    assert len(said) == 6 and said[5] == "[Errno 27] File too large: 'folder/x'", result.stderr
    assert all(line.startswith("folder cannot be written (") for line in said[:5])
    assert [p.name for p in tmp_path.rglob("*")] == ["folder", "x"] and (tmp_path / "folder/x").read_text() == "one"


def test_newest_is_by_number_and_temporary_folders_do_not_count(tmp_path: Path) -> None:
    for step in (5, 100, 20):
        save_folder(step_folder(tmp_path, step), write(str(step)))
    (tmp_path / "checkpoints" / ".step_0000999.tmp").mkdir()
    assert latest_checkpoint(tmp_path) == step_folder(tmp_path, 100)
    rotate(tmp_path, 2)
    assert not (tmp_path / "checkpoints" / ".step_0000999.tmp").exists()
    assert [p.name for p in list_checkpoints(tmp_path)] == ["step_0000020", "step_0000100"]


def test_log_rewinds_to_the_resumed_step(tmp_path: Path) -> None:
    log = RunLog(tmp_path)
    for step in range(1, 6):
        log.log(step, {"loss": float(step), "bad": float("nan")})
    with open(log.path, "a") as stream:
        stream.write('{"step": 6, "lo')  # killed in the middle of a line
    log.rewind(3)
    lines = read_lines(log.path)
    assert [line["step"] for line in lines] == [1, 2, 3] and lines[0]["bad"] is None


def test_a_log_that_the_disk_has_no_room_for_is_named(tmp_path: Path) -> None:
    log = RunLog(tmp_path)
    log.path.symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left on device") as refused:
        log.log(1, {})
    assert refused.value.filename == str(log.path)


def test_write_file_replaces(tmp_path: Path) -> None:
    write_file(tmp_path / "a" / "b.json", "1")
    write_file(tmp_path / "a" / "b.json", b"2")
    assert (tmp_path / "a" / "b.json").read_text() == "2"
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["b.json"]


def test_duration() -> None:
    assert [duration(s) for s in (0, 75, 3700)] == ["0:00", "1:15", "1:01:40"]
