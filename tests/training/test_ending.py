"""How every program ends that a disk, a lock or a person stops: one sentence, no traceback, a status that tells."""

import os
import signal
import sys
from pathlib import Path

import pytest
from omegaconf import DictConfig

from training.checkpoint import CheckpointError
from training.config import REPOSITORY, ConfigError, ending_plainly, hydra_entry
from training.launch import leave_at_exit
from training.lock import LockError
from training.stopping import Stop

FULL = "Make room or give another folder; what was finished stays, and the same command goes on from it."
ENDS = {
    "full disk": (OSError(28, "No space left", "runs/x"), 2, f"error: runs/x: No space left on device. {FULL}"),
    "read-only": (OSError(30, "Read-only", "runs/x"), 2, f"error: runs/x: Read-only file system. {FULL}"),
    "no permission": (OSError(13, "Denied", "runs/x"), 2, f"error: runs/x: Permission denied. {FULL}"),
    "checkpoint": (CheckpointError("it is damaged"), 2, "error: it is damaged"),
    "lock": (LockError("another writes there"), 2, "error: another writes there"),
    "Ctrl-C": (KeyboardInterrupt(), 130, "interrupted; the same command goes on from what was finished."),
}


def run(error: BaseException, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that ends by ``error``."""

    @hydra_entry("eval_selftest")
    def main(cfg: DictConfig) -> None:
        raise error

    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["program.py"])
    main()


@pytest.mark.parametrize("how", ENDS)
def test_one_sentence_and_a_status(
    tmp_path: Path, how: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    error, status, sentence = ENDS[how]
    with pytest.raises(SystemExit) as ended:
        run(error, tmp_path, monkeypatch)
    assert ended.value.code == status and capsys.readouterr().err.strip() == sentence


def test_who_reads_no_further_gets_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    for lines in (1, 100_000):  # what stays in the buffer is lost at the end, and more than it holds at once
        with os.fdopen(os.dup(writer), "w") as stream, monkeypatch.context() as patched:
            patched.setattr(sys, "stdout", stream)
            with pytest.raises(SystemExit) as ended, ending_plainly():
                print("\n" * lines)
        assert ended.value.code == 141 and capsys.readouterr().err.startswith("nobody reads the output any more")
    os.close(writer)
    with pytest.raises(BrokenPipeError, match="a worker's"):
        run(BrokenPipeError("a worker's"), tmp_path, monkeypatch)


@pytest.mark.parametrize("unheard", ["unread", "full"])
@pytest.mark.parametrize("lines", [0, 1, 100_000])
def test_the_status_stays_where_nothing_can_be_printed(
    unheard: str, lines: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of ``2>&1 | head``, or of output to a full disk: Python, which ends the streams, finds nothing left."""
    reader, writer = os.pipe()
    os.close(reader)
    if unheard == "full":
        os.dup2(os.open("/dev/full", os.O_WRONLY), writer)
    with os.fdopen(os.dup(writer), "w") as stdout, os.fdopen(writer, "w", buffering=1) as stderr:
        with monkeypatch.context() as patched, pytest.raises(SystemExit) as ended:
            patched.setattr(sys, "stdout", stdout)
            patched.setattr(sys, "stderr", stderr)
            with ending_plainly():
                print("\n" * lines, end="")
                raise ConfigError("a key is wrong")
    assert ended.value.code == (141 if lines == 100_000 and unheard == "unread" else 2)


@pytest.mark.parametrize("lines", [1, 100_000])
def test_a_full_disk_is_named_where_it_is_the_output_s(
    lines: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with open("/dev/full", "w") as full, monkeypatch.context() as patched, pytest.raises(SystemExit) as ended:
        patched.setattr(sys, "stdout", full)
        with ending_plainly():
            print("\n" * lines)
    assert ended.value.code == 2 and capsys.readouterr().err == f"error: the output: No space left on device. {FULL}\n"


def test_the_status_stays_of_a_training_whose_terminal_has_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    full = "/dev/full"
    with open(full, "w") as stdout, open(full, "w", buffering=1) as stderr:  # closing them fails if they hold a rest
        with monkeypatch.context() as patched, pytest.raises(SystemExit) as ended:
            patched.setattr(sys, "stdout", stdout)
            patched.setattr(sys, "stderr", stderr)
            with ending_plainly():
                stop = Stop().listen()
                signal.raise_signal(signal.SIGHUP)
                print("step 1", flush=True)
                print("SIGHUP: saved", flush=True)
                stop.close()
                stop.leave()
    assert ended.value.code == 129


@pytest.mark.parametrize(("trains", "done"), [(True, ["begun", "asked"]), (False, ["begun", "finished"])])
def test_a_process_that_others_wait_for_ends_no_earlier_for_want_of_a_reader(
    trains: bool, done: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A training saves, anything else goes on to its end; then both tell."""
    reader, writer = os.pipe()
    os.close(reader)
    did: list[str] = []
    with os.fdopen(writer, "w") as output, monkeypatch.context() as patched, pytest.raises(SystemExit) as ended:
        patched.setattr(sys, "stdout", output)
        patched.setattr("training.launch.several", lambda: True)
        with ending_plainly():
            leave_at_exit()
            print("corpus", flush=True)
            did.append("begun")
            if trains:
                stop = Stop().listen()
                did += ["asked"] if stop.asked else []
                stop.close()
                stop.leave()
            did.append("finished")
    assert ended.value.code == 141 and did == done
    assert capsys.readouterr().err.startswith("nobody reads the output any more")


def test_every_program_ends_so() -> None:
    doors = [path for room in ("codec", "lm", "eval", "scripts") for path in (REPOSITORY / room).glob("*.py")]
    sources = {path.name: path.read_text(encoding="utf-8") for path in doors}
    programs = {name for name, source in sources.items() if '"__main__"' in source}
    others = {name for name in programs if "\n@ending_plainly()" not in sources[name]}
    others -= {name for name in programs if "\n@hydra_entry(" in sources[name]}
    assert len(programs) > 30 and others == {"bench_audio.py"}  # whose imports are in the memory that it measures


def test_no_program_depends_on_who_reads_its_errors() -> None:
    """`training.streams.say` prints there."""
    rooms = [REPOSITORY / room for room in ("almkit", "codec", "lm", "eval", "scripts", "tasks", "training")]
    sources = [path for room in rooms for path in room.rglob("*.py")]
    printing = {path.name for path in sources if "file=sys.stderr" in path.read_text(encoding="utf-8")}
    assert len(sources) > 200 and printing == {"streams.py"}


def test_a_defect_keeps_its_traceback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OSError, match="a defect"):
        run(OSError(9, "a defect"), tmp_path, monkeypatch)
