"""The sweep: cells run once and in order, again when their inputs change, and go on after kill -9."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from json_files import read_json
from programs import TINY_CODEC, TINY_LM, run_command
from tiny_tones import write_corpus

from eval.comparison.plan import Cell, Plan
from eval.comparison.sweep import DONE, Sweep
from tests.eval.tiny_task import JUDGE
from training.config import REPOSITORY, ConfigError

# name, output, seconds, inputs …: notes that it ran, takes its time, writes what it was given
FAKE = """
import sys, time
from pathlib import Path
name, out, seconds, *inputs = sys.argv[1:]
with open(Path(__file__).parent / "ran.txt", "a") as stream:
    stream.write(f"{name} begins\\n")
if name == "bad":
    sys.exit("error: this one cannot work")
time.sleep(float(seconds))
Path(out).write_text(name + "(" + " ".join(Path(i).read_text() for i in inputs) + ")")
with open(Path(__file__).parent / "ran.txt", "a") as stream:
    stream.write(f"{name} ends\\n")
"""

# A codec for three rows, of which each has a chain of two cells.
DRIVER = """
import sys
from pathlib import Path
sys.path[:0] = [{here!r}, {tests!r}]
from test_sweep import chain
from eval.comparison.sweep import Sweep
plan = chain(Path({folder!r}), {seconds})
sweep = Sweep(plan, jobs=2, say=lambda line: print(line, flush=True))
sweep.run()
print("RAN", *sweep.ran, flush=True)
"""


def cell(
    folder: Path, name: str, needs: tuple[str, ...] = (), seconds: float = 0.0, row: str = "", kind: str = "lm"
) -> Cell:
    """A cell whose command is the fake."""
    (folder / "fake.py").write_text(FAKE)
    out = folder / "sweep/cells" / name / "result.txt"
    inputs = [str(folder / "sweep/cells" / need / "result.txt") for need in needs]
    arguments = [name, str(out), str(seconds), *inputs]
    return Cell(name, kind, row, str(folder / "fake.py"), None, needs, lambda: arguments, ("result.txt",))


def chain(folder: Path, seconds: float = 0.0) -> Plan:
    """One shared cell, then two per row."""
    plan = Plan(folder / "sweep", {name: {} for name in "abc"}, [])
    cells = [cell(folder, "shared", seconds=seconds, kind="codec")]
    for row in "abc":
        cells.append(cell(folder, f"{row}/lm", ("shared",), seconds, row))
        cells.append(cell(folder, f"{row}/task", (f"{row}/lm",), seconds, row, "task"))
    plan.cells = {c.name: c for c in cells}
    return plan


def ran(folder: Path, what: str = "begins") -> list[str]:
    """The cells whose commands began (ended), in order."""
    lines = (folder / "ran.txt").read_text().splitlines()
    return [line.split()[0] for line in lines if line.endswith(what)]


def results(folder: Path) -> dict[str, str]:
    return {p.parent.relative_to(folder).as_posix(): p.read_text() for p in sorted(folder.rglob("result.txt"))}


def test_each_cell_runs_once_after_what_it_needs(tmp_path: Path) -> None:
    said: list[str] = []
    Sweep(chain(tmp_path), jobs=3, say=said.append).run()
    assert sorted(ran(tmp_path)) == sorted(chain(tmp_path).cells)
    found = results(tmp_path / "sweep/cells")
    assert found["b/task"] == "b/task(b/lm(shared()))"
    record = read_json(tmp_path / "sweep/cells/b/task" / DONE)
    assert record["attempts"] == 1 and "fake.py b/task" in record["command"]
    assert (tmp_path / "sweep/cells/b/task/command.txt").read_text().strip() == record["command"]
    again = Sweep(chain(tmp_path), say=said.append)
    again.run()
    assert again.ran == [] and len(ran(tmp_path)) == 7
    assert [state for _, state in again.states()] == ["finished"] * 7


@pytest.mark.slow
def test_a_cell_runs_again_when_its_inputs_changed_or_its_result_was_deleted(tmp_path: Path) -> None:
    Sweep(chain(tmp_path), say=lambda _: None).run()
    (tmp_path / "sweep/cells/a/lm/leftover.txt").touch()
    changed = chain(tmp_path, 0.01)
    changed.cells = {n: c if n.startswith("a/") else chain(tmp_path).cells[n] for n, c in changed.cells.items()}
    sweep = Sweep(changed, say=lambda _: None)
    assert dict((c.name, s) for c, s in sweep.states())["a/task"] == "waiting"
    sweep.run()
    assert sorted(sweep.ran) == ["a/lm", "a/task"]
    assert not (tmp_path / "sweep/cells/a/lm/leftover.txt").exists()
    (tmp_path / "sweep/cells/c/task/result.txt").unlink()
    again = Sweep(changed, say=lambda _: None)
    again.run()
    assert again.ran == ["c/task"]


@pytest.mark.slow
def test_a_failure_stops_only_what_needs_it(tmp_path: Path) -> None:
    def impossible() -> list[str]:
        raise ConfigError("rows=[]: nothing to do.")

    plan = chain(tmp_path)
    plan.cells["bad"] = cell(tmp_path, "bad", ("shared",), row="b")
    plan.cells["odd"] = cell(tmp_path, "odd", row="b")
    plan.cells["odd"].arguments = impossible
    plan.cells["after"] = cell(tmp_path, "after", ("bad",), row="b", kind="task")
    said: list[str] = []
    sweep = Sweep(plan, jobs=2, say=said.append)
    sweep.run()
    assert sweep.failed == {
        "bad": "exit status 1: error: this one cannot work",
        "odd": "cannot be configured: rows=[]: nothing to do.",
        "after": "not run, because bad failed",
    }
    assert len(sweep.ran) == 7 and any("bad: FAILED" in line for line in said)
    assert not (tmp_path / "sweep/cells/bad" / DONE).exists()


def test_only_some_rows(tmp_path: Path) -> None:
    sweep = Sweep(chain(tmp_path), say=lambda _: None)
    sweep.run(["c"])
    assert sweep.ran == ["shared", "c/lm", "c/task"]


def start(folder: Path, seconds: float) -> subprocess.Popen:
    code = DRIVER.format(
        here=str(Path(__file__).parent), tests=str(REPOSITORY / "tests"), folder=str(folder), seconds=seconds
    )
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)


def wait_until(what, seconds: float = 60.0) -> None:
    until = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < until, "it never came so far"
        time.sleep(0.01)


@pytest.mark.slow
@pytest.mark.parametrize("with_commands", [False, True], ids=["sweep", "sweep and commands"])
def test_kill_and_start_again(tmp_path: Path, with_commands: bool) -> None:
    """kill -9 of the sweep, alone or with what it runs: the same results, and no finished cell repeated."""
    quiet, folder = tmp_path / "undisturbed", tmp_path / "killed"
    quiet.mkdir()
    folder.mkdir()
    Sweep(chain(quiet), say=lambda _: None).run()
    first = start(folder, 0.5)
    wait_until(lambda: (folder / "ran.txt").exists() and len(ran(folder, "ends")) >= 2 and len(ran(folder)) >= 3)
    first.kill()
    first.wait()
    if with_commands:
        for lock in (folder / "sweep/locks").iterdir():
            words = lock.read_text().split()
            try:
                os.kill(int(words[1]), signal.SIGKILL)
            except ProcessLookupError:
                continue
    finished = {path.parent.relative_to(folder / "sweep/cells").as_posix() for path in folder.rglob(DONE)}
    assert finished and "shared" in finished
    second = start(folder, 0.5)
    printed, _ = second.communicate(timeout=120)
    assert second.returncode == 0
    assert results(folder / "sweep/cells") == results(quiet / "sweep/cells")
    began = ran(folder)
    assert all(began.count(name) == 1 for name in finished)
    assert not set(printed.splitlines()[-1].split()[1:]) & finished
    # A command that outlived its sweep kept its lock: it never ran beside another one of the same cell.
    events = (folder / "ran.txt").read_text().splitlines()
    if not with_commands:
        for name in set(began) - finished:
            states = [line.split()[1] for line in events if line.split()[0] == name]
            assert states[:2] == ["begins", "ends"], f"{name} ran twice at a time"


@pytest.mark.slow
@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_an_interrupted_sweep_stops_its_commands(number: signal.Signals, status: int, tmp_path: Path) -> None:
    first = start(tmp_path, 30.0)
    wait_until(lambda: (tmp_path / "ran.txt").exists())
    first.send_signal(number)
    printed, _ = first.communicate(timeout=60)
    assert first.returncode == status and "the same command goes on" in printed
    (lock,) = (tmp_path / "sweep/locks").iterdir()
    with pytest.raises(ProcessLookupError):
        os.kill(int(lock.read_text().split()[1]), 0)
    assert not list(tmp_path.rglob(DONE))


@pytest.mark.slow
def test_processes_share_the_cells(tmp_path: Path) -> None:
    both = [start(tmp_path, 0.3), start(tmp_path, 0.3)]
    printed = [process.communicate(timeout=120)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert sorted(ran(tmp_path)) == sorted(chain(tmp_path).cells)  # each once
    shares = [text.splitlines()[-1].split()[1:] for text in printed]
    assert sorted(shares[0] + shares[1]) == sorted(chain(tmp_path).cells)


# ---- the real thing, tiny ------------------------------------------------------------------------------------------
SHAPE, TRAINING = ([key for key in TINY_CODEC if key.startswith("codec.") == of_shape] for of_shape in (True, False))


def tiny_comparison(folder: Path) -> Path:
    """A codec of three steps and the untrained control; text to speech."""
    write_corpus(folder / "corpus")
    settings = {
        "name": "tiny",
        "data": [f"data.root={folder / 'corpus'}", "data.name=tones"],
        "speech_hours": 0,
        "tasks": ["tts"],
        "rows": {
            "ours-w6": {"train": SHAPE}, "ours-w10": None, "conv": None,
            "untrained": {"untrained": SHAPE},
        },
        "codec_training": [*TRAINING, "trainer.quantize_from=1", "trainer.max_steps=3"],
        "lm": TINY_LM, "steps": 3, "batch_rows": 2, "context_seconds": 2.5,
        "evaluations": {
            "semantics": None,
            "likelihood": None,
            "reconstruction": ["metrics=[stoi]", "recognisers=[]", "concat=[]", "anchors=false", "sheets=false"],
            "tts": [*JUDGE, "recognisers=[ctc-mini]", "max_seconds=1.0"],
        },
    }  # fmt: skip
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


@pytest.mark.slow
def test_a_whole_comparison_survives_kill(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    tiny_comparison(tmp_path)
    out = tmp_path / "runs/comparison-tiny"
    command = ["eval/compare.py", "file=tiny.yaml", "jobs=2"]
    first = subprocess.Popen([sys.executable, str(REPOSITORY / command[0]), *command[1:]])
    wait_until(lambda: len(list(out.glob("cells/*/*/done.json"))) >= 3, 300)
    first.kill()
    first.wait()
    before = {path: path.stat().st_mtime_ns for path in out.glob("cells/*/*/done.json")}
    run_command(*command)
    printed = capsys.readouterr().out
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())
    for path in before:
        name = path.parent.relative_to(out / "cells").as_posix()
        assert f"{name}: finished" not in printed
    table = read_json(out / "comparison.json")
    assert {"ours-w6", "untrained"} <= set(table["rows"]) and table["controls"] == ["untrained"]
    sections = {line["section"] for line in table["lines"]}
    assert sections == {"tokenizer", "reconstruction", "language model", "tts"}
    assert any("all else is equal" in line for line in table["fairness"])
    for name in ("index.html", "comparison.md", "comparison.tex", "comparison.csv", "entries.csv"):
        assert (out / name).stat().st_size > 0
    for line in table["lines"]:
        for entry in line["entries"].values():
            assert (out / "cells" / entry["cell"] / entry["file"]).is_file()
    # Nothing is left to do, and the table is the same to the byte.
    run_command(*command)
    assert "finished in" not in capsys.readouterr().out
    assert read_json(out / "comparison.json") == table
