"""One writer per folder, and what frees it."""

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from training.lock import LockError, hold, release, try_lock

HOLDER = """
import os, sys, time
from training.lock import hold
hold(sys.argv[1])
if os.fork() == 0:  # a helper that outlives its parent, as a data worker does for seconds
    print("held", flush=True)
    time.sleep(60)
    os._exit(0)
time.sleep(60)
"""


def test_two_processes_never_write_one_folder_and_death_releases_it(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "link").symlink_to("run")
    command = [sys.executable, "-c", HOLDER, str(tmp_path / "run")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == b"held\n"
        for name in ("run", "link"):
            with pytest.raises(LockError, match=f"{name} is being written by process {holder.pid} on "):
                hold(tmp_path / name)
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        hold(tmp_path / "run")
        hold(tmp_path / "run")  # again in the same process
        release(tmp_path / "run")
        os.killpg(holder.pid, signal.SIGKILL)
    assert not list((tmp_path / "run").iterdir()), "no lock stays behind"


def test_waiting_says_for_whom_and_goes_on_when_it_is_free(tmp_path: Path) -> None:
    waiter = "import sys; from training.lock import hold; hold(sys.argv[1], wait=True)"
    hold(tmp_path / "run")
    command = [sys.executable, "-c", waiter + "; print('mine', flush=True)", str(tmp_path / "run")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert f"is being written by process {os.getpid()} on" in process.stdout.readline()
        time.sleep(0.3)
        assert process.poll() is None
        release(tmp_path / "run")
        assert process.stdout.readline() == "mine\n" and process.wait() == 0


def test_a_lock_that_was_removed_while_it_was_opened_locks_nobody_out(tmp_path: Path) -> None:
    path = tmp_path / ".run.lock"
    first = try_lock(path)
    assert isinstance(first, int)
    path.unlink()  # as its holder does when it is done
    second = try_lock(path)
    assert isinstance(second, int) and isinstance(try_lock(path), str)
    os.close(first)
    os.close(second)


@pytest.mark.slow
@pytest.mark.parametrize("place", ["/proc/x", "/proc/x/y", "file", "file/x", "n" * 300, "folder"])
@pytest.mark.parametrize("replaced", [False, True])
def test_a_place_that_nobody_can_write_is_named_with_its_key(place: str, replaced: bool, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    is_file = place == "folder"
    with pytest.raises(LockError, match=r"cannot be written \(.*\): give another out, or make room for it there\.$"):
        hold(tmp_path / place, "out", replaced=replaced, is_file=is_file)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "folder"]


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.ENOSPC])
def test_what_the_system_refuses_is_said(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(LockError, match=rf"out cannot be written \({os.strerror(number)}\): give another out"):
        hold(tmp_path / "out", "out")


def test_a_folder_that_is_replaced_is_locked_beside_it(tmp_path: Path) -> None:
    (tmp_path / "page").mkdir()
    hold(tmp_path / "page", replaced=True)
    assert sorted(path.name for path in tmp_path.rglob("*")) == [".page.lock", "page"]
    release(tmp_path / "page")
    assert [path.name for path in tmp_path.rglob("*")] == ["page"]
