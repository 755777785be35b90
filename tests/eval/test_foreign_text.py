"""Names and files that others made: no formula, no tag, no terminal's command, no credentials, no traceback."""

import csv
import io
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from codec.audio.part import AudioError
from eval.compare import read_evaluation
from eval.comparison.plan import Cell, Plan
from eval.comparison.sweep import Sweep
from eval.harness.report import Report
from eval.harness.tables import Table, csv_cell
from training.config import ConfigError, ending_plainly
from training.identity import printable
from training.log import PlainStream, RunLog
from training.run_folder import write_settings


@pytest.mark.parametrize("cell", ["=1+1", "@SUM(A1)", "+cmd|' /C calc'!A0", "-2+3+cmd|'x'!A0", "\t=1", "-x", "\r=1"])
def test_no_cell_is_a_formula(cell: str) -> None:
    rows = list(csv.reader(io.StringIO(Table(["a", cell], [[cell, "b"]]).csv(), newline="")))
    assert rows[0][1] == rows[1][0] == "'" + printable(cell)


@pytest.mark.parametrize("cell", ["-", "-0.123 [-0.2, 0.1] *", "+1.5 %", "-4.0 (3 failed)", "a-b", "", None, -1.5])
def test_numbers_stay_as_they_are(cell: object) -> None:
    assert csv_cell(cell) == cell


@pytest.mark.parametrize("name", ["\x1b[2J", "a\rb", "\x9b31m", "\u202egnp", "\x07"])
def test_nothing_reaches_the_terminal_raw(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConfigError), ending_plainly(), ending_plainly():  # as every program does, under Hydra
        assert isinstance(sys.stdout, PlainStream) and not isinstance(sys.stdout.stream, PlainStream)
        RunLog(tmp_path).line(f"left out: {name}")
        print(f"{name}\ud800: {name}", AudioError(f"{name}\n is no audio"), flush=True)
        raise ConfigError(f"{name} is damaged")
    print(Table(["a"], [[name]]).console())
    said = capsys.readouterr()
    assert all(letter == "\n" or letter.isprintable() for letter in said.out + said.err)
    assert (
        said.out.count(name.encode("unicode_escape").decode()) == 5
        and "\\ud800" in said.out
        and "\\n is no" in said.out
    )


def test_markdown_holds_no_tag_and_no_further_cell() -> None:
    line = Table(["a"], [["<img src=x>|b\\|c\nd"]]).markdown().splitlines()[2]
    assert "<" not in line and line.replace("\\\\", "").replace("\\|", "").count("|") == 2


URL = "https://me:secret@host.example/w"


def evaluate(folder: Path, say: Callable[[str], object]) -> None:
    report = Report({"weights": [URL, {"x": "s3://secret@b/c", URL: 1}]}, ["generated"])
    report.write(folder, [{"id": "a", "error": "ftp://u:secret@h/x failed"}])


def train(folder: Path, say: Callable[[str], object]) -> None:
    for number in (1, 2):
        write_settings(OmegaConf.create({"data": {"root": URL}, "number": number}), folder, number, say)


def compare(folder: Path, say: Callable[[str], object]) -> None:
    """One cell that works and one that fails, each given the URL."""
    (folder.parent / "fake.py").write_text("import sys; open(sys.argv[1], 'w'); sys.exit(sys.argv[3:] and sys.argv[2])")
    plan = Plan(folder, {"a": {}}, [])
    for name, more in (("works", []), ("fails", ["now"])):
        arguments = [str(folder / "cells" / name / "x"), URL, *more]
        script = str(folder.parent / "fake.py")
        plan.cells[name] = Cell(name, "lm", "a", script, None, (), lambda given=arguments: given, ("x",))
    sweep = Sweep(plan, say=say)
    sweep.run()
    say(str(sweep.failed))
    (folder / "cells/fails/log.txt").unlink()  # what the command itself said


@pytest.mark.parametrize("write", [evaluate, train, compare], ids=lambda write: write.__name__)
def test_no_credentials_are_published(write: Callable, tmp_path: Path) -> None:
    said: list[str] = []
    (tmp_path / "out").mkdir()
    write(tmp_path / "out", said.append)
    written = "".join([*said, *(path.read_text() for path in (tmp_path / "out").rglob("*") if path.is_file())])
    assert "secret" not in written and "https://host.example/w" in written


CELL = {"value": 1.0, "n": 12, "n_failed": 0, "low": 0.5, "high": 1.5, "failures": []}
CHANGES = [{"value": "1"}, {"n": 1.5}, {"n": None}, {"low": [1]}, {"low": None}, {"failures": 3}, {"failures": ["x"]},
           {"value": True}, {"n_failed": "0"}]  # fmt: skip


@pytest.mark.parametrize("program", ["compare", "page"])
@pytest.mark.parametrize(
    "results",
    [[], 5, {}, {"rows": []}, {"rows": {"x": 1}}, {"rows": {"x": {"wer/a": 0.5}}}, {"rows": {}, "how": 1},
     *({"rows": {"generated": {"wer/a": {**CELL, **change}}}} for change in CHANGES)],
)  # fmt: skip
def test_wrong_types_are_one_sentence(results: object, program: str, tmp_path: Path) -> None:
    from page.data import read_evaluation as read_for_page

    folder = tmp_path / "a" / "eval-tts"
    folder.mkdir(parents=True)
    (folder / "results.json").write_text(json.dumps(results))
    (folder / "items.jsonl").write_text('{"id": "a", "row": "generated"}\n')
    with pytest.raises(ConfigError) as found:
        read_evaluation(folder) if program == "compare" else read_for_page(folder)
    said = str(found.value)
    assert "results.json" in said and "run the evaluation again" in said and len(said.strip().splitlines()) == 1
