"""Systems side by side: only what was made alike shares a column, and differences are paired."""

import csv
import io
from pathlib import Path

import numpy as np
import pytest
from json_files import read_json

from eval import compare
from eval.harness.intervals import paired_difference
from eval.harness.report import Report
from eval.harness.tables import Table
from training.config import ConfigError

HOW = {
    "corpus": {"name": "mini", "audio": "a1"},
    "normaliser": "plain",
    "model": {"sha256": "m1"},
    "seed": 0,
    "recognisers": {"ctc-mini": {"sha256": "r1"}, "whisper": {"sha256": "w1"}},
    "versions": {"torch": "2.13"},
}


def write(folder: Path, seed: int, how: dict | None = None, clips: int = 30) -> str:
    """An evaluation with one row: word errors of ``clips`` clips and an opinion score."""
    generator = np.random.default_rng(seed)
    report = Report(how or HOW, ["generated"])
    report.rate("generated", "wer/ctc-mini", {f"c{i}": (int(generator.integers(0, 3)), 6) for i in range(clips)})
    report.mean("generated", "dnsmos/p808", {f"c{i}": float(generator.normal(3, 0.2)) for i in range(clips)})
    report.write(folder, [])
    return str(folder)


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr("sys.argv", ["compare.py", *arguments])
    compare.main()


@pytest.fixture
def runs(tmp_path: Path) -> str:
    first = write(tmp_path / "first/eval-tts", 1)
    other = {**HOW, "model": {"sha256": "m2"}, "seed": 5, "versions": {"torch": "2.11"}}
    return f"runs=[{first},{write(tmp_path / 'second/eval-tts', 2, other, clips=28)}]"


def test_side_by_side(runs: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    run(monkeypatch, runs, f"out={tmp_path / 'out'}")
    printed = capsys.readouterr().out
    assert "first" in printed and "second − first" in printed and "torch: first 2.13, second 2.11" in printed
    record = read_json(tmp_path / "out/compare.json")
    part = next(p for p in record["differences"] if p["metric"] == "wer/ctc-mini")
    sides = [read_json(tmp_path / name / "eval-tts/clips.json") for name in ("second", "first")]
    sums = [np.array([s["generated"]["wer/ctc-mini"][f"c{i}"] for i in range(28)]).T for s in sides]
    expected = paired_difference((sums[0][0], sums[0][1]), (sums[1][0], sums[1][1]))
    assert (part["value"], part["low"]) == (expected.value, expected.low)
    assert part["n"] == 28 and part["n_one_side_only"] == 2
    for suffix, start in (("md", "| system"), ("csv", "system,"), ("tex", "\\begin{tabular}")):
        assert (tmp_path / f"out/scores.{suffix}").read_text().startswith(start)


@pytest.mark.slow
@pytest.mark.parametrize(
    "change",
    [
        {"normaliser": "whisper-english"},
        {"corpus": {"name": "mini", "audio": "other recordings"}},
        {"recognisers": {"ctc-mini": {"sha256": "r2"}}},
    ],
)
def test_other_protocols_are_refused(
    change: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys, refusal
) -> None:
    folders = [write(tmp_path / "a", 1), write(tmp_path / "b", 2, {**HOW, **change})]
    runs = f"runs=[{','.join(folders)}]"
    message = refusal(run, monkeypatch, runs, "metrics=[wer/ctc-mini]")
    assert "wer/ctc-mini of a and of b were not made alike" in message and "split=true" in message
    run(monkeypatch, runs, "metrics=[wer/ctc-mini]", "split=true")
    printed = capsys.readouterr().out
    assert "wer/ctc-mini (protocol 1)" in printed and "(protocol 2)" in printed and "−" not in printed


def test_another_judge_does_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    other = {**HOW, "recognisers": {**HOW["recognisers"], "whisper": {"sha256": "w2"}}}
    folders = [write(tmp_path / "a", 1), write(tmp_path / "b", 2, other)]
    run(monkeypatch, f"runs=[{','.join(folders)}]")
    assert "b − a" in capsys.readouterr().out


def test_fad_of_another_reference_is_another_protocol() -> None:
    how = {"embeddings": {"log-mel": {"x": 1}}}
    assert compare.protocol(how, "fad/log-mel", {"reference_frames": 5}) != compare.protocol(
        how, "fad/log-mel", {"reference_frames": 6}
    )


@pytest.mark.parametrize("metric", ["wer/w", "cer/w", "wer-original/w", "repeated-words/w"])
def test_what_a_recogniser_heard_is_of_its_protocol(metric: str) -> None:
    first, second = ({"recognisers": {"w": {"weights_sha256": digest}}} for digest in ("1", "2"))
    assert compare.protocol(first, metric) != compare.protocol(second, metric)


@pytest.mark.parametrize(("shift", "common"), [(0, 27), (20, 7), (40, 0)])
def test_a_difference_says_over_how_many_clips(
    shift: int, common: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    folders = []
    for name, first in (("a", 0), ("b", shift)):
        report = Report(HOW, ["generated"])
        parts = {f"c{i}": (float(i % 3), 6.0) for i in range(first, first + 28)}
        parts.pop(f"c{first}", None)
        failures = {f"c{first}": "ctc-mini: too slow"}
        report.rate("generated", "wer/ctc-mini", parts, failures, undelivered=3 if name == "b" else 0)
        report.write(tmp_path / name / "eval-tts", [])
        folders.append(str(tmp_path / name / "eval-tts"))
    run(monkeypatch, f"runs=[{','.join(folders)}]", f"out={tmp_path / 'out'}")
    printed = capsys.readouterr().out
    part = read_json(tmp_path / "out/compare.json")["differences"][0]
    assert (part["n"], part["n_one_side_only"]) == (common, 2 * (27 - common)) and "common clips" in printed
    with open(tmp_path / "out/differences.csv", newline="") as stream:
        line = next(csv.DictReader(stream))
    assert (line["common clips"], line["clips of one side only"]) == (str(common), str(2 * (27 - common)))
    assert (part["low"] is None) == (common < 10) and (part["value"] is None) == (common == 0)
    assert "a, generated: 0 not delivered, 1 failed (wer/ctc-mini)" in printed
    assert "b, generated: 3 not delivered, 1 failed (wer/ctc-mini)" in printed
    assert ("fewer than 10 common clips" in printed) == (common < 10)


def test_options(runs: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for arguments in (
        [runs, "format=html"],
        [runs, "rows=[x]"],
        [runs, "metrics=[x]"],
        ["runs=[nowhere]"],
    ):
        with pytest.raises(ConfigError):
            run(monkeypatch, *arguments)


def test_notations() -> None:
    table = Table(["system", "WER %"], [["a_b|c", "1.0 % [0, 2]"], ["d,e", "-"]])
    assert table.console().splitlines()[1] == "-" * len("system  WER %")
    assert table.markdown().splitlines()[2] == "| a_b\\|c | 1.0 % [0, 2] |"
    assert list(csv.reader(io.StringIO(table.csv()))) == [list(table.header), *map(list, table.body)]
    assert "a\\_b|c & 1.0 \\% [0, 2] \\\\" in table.latex()
