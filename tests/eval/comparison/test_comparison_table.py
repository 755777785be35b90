"""The table of a comparison: every entry with its source, the control tested, what is unequal named."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from json_files import read_json, write_lines
from omegaconf import DictConfig, OmegaConf
from safetensors.torch import save_file

from eval.comparison.budget import flops, row_length
from eval.comparison.collect import DOWN, UP, Entry, Line, mark_control
from eval.comparison.page import write_comparison
from eval.comparison.plan import Plan, make_plan
from eval.comparison.published import read_published
from eval.comparison.sweep import DONE
from eval.comparison.table_rows import collect
from eval.comparison.weights import INSIDE, weights_needed
from eval.harness.report import Report
from training.config import compose

RATES = {"good": 12.5, "low": 7.5, "untrained": 12.5}
HOSTILE = "python <script>alert('x')</script> & more"


def settings(**changes: object) -> DictConfig:
    c = compose("eval_compare", []).comparison
    rows = {"good": {"tokenizer": "almtokenizer"}, "low": {"tokenizer": "almtokenizer", "options": {"window": 10}},
            "untrained": {"tokenizer": "almtokenizer", "control": True}}  # fmt: skip
    plain = OmegaConf.to_container(c, resolve=True)
    assert isinstance(plain, dict)
    plain |= {
        "rows": rows,
        "tasks": ["tts"],
        "speech_hours": 0,
        "evaluations": {"tts": [], "semantics": None, "likelihood": None},
        **changes,
    }
    return OmegaConf.create(plain)


def write(path: Path, record: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record))


def encode(plan: Plan, row: str) -> None:
    """What codec/encode.py records of a tokenizer of three levels."""
    tokenizer = {"name": row, "frame_rate": RATES[row], "levels": 3, "codebook_sizes": [2048] * 3}
    write(plan.folder(f"{row}/tokens-corpus") / "tokens.json", {"tokenizer": tokenizer})


def finish(plan: Plan, c: DictConfig, wer: dict[str, float], stoi: dict[str, float]) -> None:
    """The folders of a finished sweep with these scores."""
    for name, cell in plan.cells.items():
        folder, row = plan.folder(name), cell.row
        length = row_length(c, RATES[row] * 3)
        if cell.kind == "tokens":
            tokenizer = {"parameters": 3_190_000, "bitrate": RATES[row] * 33, "frame_rate": RATES[row], "levels": 3,
                         "codebook_sizes": [2048] * 3, "fingerprint": row * 8}  # fmt: skip
            write(folder / "tokens.json", {"tokenizer": tokenizer, "encoded_hours": 1.0, "seconds": 60.0, "totals": {}})
        elif cell.kind == "lm":
            config = compose(
                "lm_train", [*c.lm, f"trainer.row_length={length}", f"name={row}", "trainer.max_steps=250"]
            )
            folder.mkdir(parents=True)
            (folder / "config.yaml").write_text(OmegaConf.to_yaml(config, resolve=True))
            write(folder / "run/final/audio_vocabulary.json", {"size": 100})
            write(
                folder / "run/final/config.json",
                {"hidden_size": 4, "num_hidden_layers": 2, "tie_word_embeddings": True},
            )
            save_file({"table": torch.zeros(100, 4), "block": torch.zeros(50)}, folder / "run/final/model.safetensors")
            lines = [{"step": 1, "audio_seconds_per_second": 40.0}, {"step": 250, "valid_bits_per_second": 160.0,
                     "valid_gap": 0.5}]  # fmt: skip
            write_lines(folder / "run/log.jsonl", lines)
        elif cell.kind != "semantics":
            random = np.random.default_rng(0)
            how = {"corpus": "c", "recognisers": {"ctc-mini": {"sha256": "r"}}, "comparison": {"rate": 1}}
            if cell.kind == "task":
                report = Report(how, ["reference", "resynthesis", "generated", "generated-shuffled"])
                for source, share in (("reference", 0.05), ("generated", wer[row])):
                    parts = {f"c{i}": (float(random.binomial(8, share)), 8.0) for i in range(40)}
                    report.rate(source, "wer/ctc-mini", parts)
            else:
                report = Report(how, ["reference", "resynthesis"])
                report.mean("resynthesis", "stoi", {f"c{i}": stoi[row] + random.normal(0, 0.03) for i in range(40)})
            report.write(folder, [])
        write(folder / DONE, {"cell": name, "key": "k", "command": HOSTILE, "seed": 0, "seconds": 1.5, "attempts": 1,
                              "results": list(cell.results)})  # fmt: skip


@pytest.fixture
def finished(tmp_path: Path) -> tuple[Plan, DictConfig]:
    c = settings()
    plan = make_plan(c, tmp_path / "out")
    # the codec of `good` keeps most; no model speaks better than the control's
    finish(plan, c, {"good": 0.95, "low": 0.95, "untrained": 0.95}, {"good": 0.8, "low": 0.5, "untrained": 0.5})
    return plan, c


@pytest.mark.slow
def test_the_control_is_tested(finished: tuple[Plan, DictConfig]) -> None:
    plan, c = finished
    comparison = collect(plan, c, {})
    lines = {line.title: line for line in comparison.lines}
    stoi = lines["STOI (N = 40)"]
    assert stoi.entries["good"].marks == "" and stoi.entries["low"].marks == " °" and stoi.marks == ""
    wer = lines["WER, ctc-mini (N = 40)"]
    assert wer.marks == "‡" and all(wer.entries[row].marks == " °" for row in ("good", "low"))
    assert wer.entries["recordings"].value is not None and wer.entries["untrained"].marks == ""
    assert lines["bit/s that the model needs (valid)"].marks == ""  # codes that say nothing are cheap: no test
    assert any(text.startswith("‡") for text in comparison.legend)


@pytest.mark.slow
def test_characters_are_compared_where_words_are_not_set_apart(finished: tuple[Plan, DictConfig]) -> None:
    plan, c = finished
    for row in RATES:
        for name in ("results.json", "clips.json"):
            path = plan.folder(f"{row}/tts") / name
            record = json.loads(path.read_text().replace("wer/", "cer/"))
            if name == "results.json":
                record["how"]["headline"] = "cer"
            path.write_text(json.dumps(record))
    lines = {line.title: line for line in collect(plan, c, {}).lines}
    assert lines["CER, ctc-mini (N = 40)"].marks == "‡" and not any(title.startswith("WER") for title in lines)


def test_what_is_equal_is_read_from_the_configurations(finished: tuple[Plan, DictConfig]) -> None:
    plan, c = finished
    assert any("all else is equal" in line for line in collect(plan, c, {}).fairness)
    path = plan.folder("low/lm-tts") / "config.yaml"
    config = yaml.safe_load(path.read_text())
    config["trainer"]["lr"] = 0.5
    path.write_text(yaml.safe_dump(config))
    assert any("NOT EQUAL although they should be: trainer.lr" in line for line in collect(plan, c, {}).fairness)


def test_scores_that_were_made_differently_are_marked(finished: tuple[Plan, DictConfig]) -> None:
    plan, c = finished
    path = plan.folder("low/tts") / "results.json"
    results = read_json(path)
    results["how"]["corpus"] = "other"
    path.write_text(json.dumps(results))
    comparison = collect(plan, c, {})
    wer = next(line for line in comparison.lines if line.title.startswith("WER"))
    assert "§ (corpus)" in wer.entries["low"].marks


def test_budget(finished: tuple[Plan, DictConfig]) -> None:
    plan, c = finished
    lines = {line.title: line.entries for line in collect(plan, c, {}).lines}
    length = row_length(c, 37.5)
    assert length == 256 and lines["context, ids"]["low"].value == row_length(c, 22.5) == 176
    assert lines["training FLOPs"]["good"].value == 250 * 8 * length * flops(450, 2, 4, length)
    assert lines["parameters of the blocks, M"]["good"].value == 50


@pytest.mark.slow
def test_everything_is_written(finished: tuple[Plan, DictConfig]) -> None:
    plan, c = finished
    comparison = collect(plan, c, {})
    write_comparison(comparison, plan.out)
    rows = list(csv.DictReader(io.StringIO((plan.out / "entries.csv").read_text())))
    assert {row["row"] for row in rows} == {"recordings", *plan.rows}
    for row in rows:
        assert (plan.out / row["json"]).is_file() and row["command"] == HOSTILE and row["seed"] == "0"
    page = (plan.out / "index.html").read_text()
    assert "<script" not in page and "&lt;script&gt;" in page
    links = re.findall(r'href="([^"]+)"', page)
    assert len(links) > 50 and not [link for link in links if "://" in link]
    ids = set(re.findall(r'id="(cell-[^"]+)"', page))
    assert {link[1:] for link in links if link.startswith("#")} <= ids
    assert page.count('src="data:image/svg+xml') == len(list((plan.out / "plots").glob("*.svg"))) == 4
    assert "| **" not in (plan.out / "comparison.md").read_text()
    before = {path.name: path.read_bytes() for path in (plan.out / "plots").iterdir()}
    write_comparison(collect(plan, c, {}), plan.out)
    assert before == {path.name: path.read_bytes() for path in (plan.out / "plots").iterdir()}


@pytest.mark.slow
def test_the_probe_of_all_levels_is_that_of_the_most(tmp_path: Path) -> None:
    c = settings(evaluations={"tts": None, "reconstruction": None, "semantics": [], "likelihood": None})
    plan = make_plan(c, tmp_path / "out")
    finish(plan, c, {}, {})
    for row in plan.rows:
        report = Report({}, ["levels-1", "levels-1-2", "levels-1-10"])
        for share, name in ((0.2, "levels-1"), (0.4, "levels-1-2"), (0.8, "levels-1-10")):
            report.mean(name, "accuracy/speaker", {f"c{i}": float(i < 10 * share) for i in range(10)})
        report.write(plan.folder(f"{row}/semantics"), [])
    values = {
        line.title: line.entries["good"].value for line in collect(plan, c, {}).lines if line.section == "semantics"
    }
    assert list(values.values()) == [0.8, 0.2]


@pytest.mark.slow
def test_unfinished_and_failed_cells(tmp_path: Path) -> None:
    c = settings()
    plan = make_plan(c, tmp_path / "out")
    finish(plan, c, dict.fromkeys(RATES, 0.5), dict.fromkeys(RATES, 0.5))
    for cell in ("low/tts", "untrained/lm-tts"):
        (plan.folder(cell) / DONE).unlink()
    comparison = collect(plan, c, {"low/tts": "exit status 1"})
    assert comparison.cells["low/tts"]["failed"] == "exit status 1"
    wer = next(line for line in comparison.lines if line.title.startswith("WER"))
    assert wer.entries["low"].text == "failed"
    assert "untrained" not in next(line for line in comparison.lines if line.title == "optimiser steps").entries
    write_comparison(comparison, plan.out)


def clips(numbers: range, value: float) -> dict[str, list[float]]:
    return {f"c{n}": [value + n % 3 / 100, 1.0] for n in numbers}


CLIPS = clips(range(40), 0.9)


@pytest.mark.parametrize("better", [UP, DOWN])
@pytest.mark.parametrize(
    ("own", "control", "how", "mark"),
    [  # value, low, high, clips of the row and of the control; what a system that is better by far gets
        ((39.30, None, None, {}), (39.31, None, None, {}), "same", " ?"),  # no interval
        ((0.9, 0.8, 1.0, {}), (0.5, None, None, {}), "same", " ?"),  # one interval
        ((0.9, 0.8, 1.0, {}), (0.5, 0.4, 0.6, {}), "same", ""),  # two, apart
        ((0.9, 0.5, 1.0, {}), (0.5, 0.4, 0.6, {}), "same", " °"),  # two that overlap
        ((0.9, 0.8, 1.0, CLIPS), (0.5, 0.4, 0.6, clips(range(40), 0.5)), "same", ""),
        ((0.9, 0.8, 1.0, CLIPS), (0.5, 0.4, 0.6, clips(range(10, 50), 0.5)), "same", " (tested over 30)"),
        ((0.9, 0.8, 1.0, CLIPS), (0.5, 0.4, 0.6, clips(range(31, 71), 0.5)), "same", " ?"),  # 9 common
        ((0.9, 0.8, 1.0, CLIPS), (0.5, 0.4, 0.6, clips(range(50, 90), 0.5)), "same", " ?"),  # none
        ((0.9, 0.8, 1.0, CLIPS), (0.5, 0.4, 0.6, clips(range(40), 0.5)), "other", " ?"),
        ((0.5, 0.4, 0.6, clips(range(40), 0.5)), (0.5, 0.4, 0.6, clips(range(40), 0.5)), "same", " °"),
    ],
)  # fmt: skip
def test_no_test_no_verdict(own: tuple, control: tuple, how: str, mark: str, better: int) -> None:
    line = Line("s", "t", better, score=True)
    for row, (value, low, high, parts) in (("a", own), ("control", control)):
        if better == DOWN:
            value, low, high = -value, high and -high, low and -low
            parts = {clip: [-top, bottom] for clip, (top, bottom) in parts.items()}
        line.entries[row] = Entry("", "c", "f", value, low, high, len(parts) or 40)
        line.how[row] = ({"judge": how if row == "a" else "same"}, parts)
    mark_control(line, ["control"])
    assert line.entries["a"].marks == mark and line.marks == ("‡" if mark == " °" else "")


def test_matched_compute(tmp_path: Path) -> None:
    c = settings(match="flops", flops=1e12)
    plan = make_plan(c, tmp_path / "out")
    steps = {}
    for row in ("good", "low"):
        encode(plan, row)
        arguments = plan.cells[f"{row}/lm-tts"].arguments()
        steps[row] = int(next(a for a in arguments if a.startswith("trainer.max_steps=")).partition("=")[2])
    assert 1.3 < steps["low"] / steps["good"] < 1.7


@pytest.mark.slow
@pytest.mark.parametrize("tasks", [["tts", "asr"], ["asr", "tts"], ["asr"]])
def test_a_model_begins_with_that_of_another_task(tasks: list[str], tmp_path: Path) -> None:
    evaluations = {"tts": [], "asr": [], "semantics": None, "likelihood": None}
    c = settings(tasks=tasks, after={"asr": "tts"}, evaluations=evaluations)
    plan = make_plan(c, tmp_path / "out")
    cells = plan.cells["low/lm-asr"], plan.cells["low/lm-tts"]
    assert cells[0].needs == ("low/tokens-corpus", "low/lm-tts") and cells[1].needs == ("low/tokens-corpus",)
    encode(plan, "low")
    starts = [[a for a in cell.arguments() if a.startswith("init=")] for cell in cells]
    assert starts == [[f"init={plan.folder('low/lm-tts') / 'run/final'}"], []]
    assert "low/asr" in plan.cells
    assert ("low/tts" in plan.cells) == ("tts" in tasks)  # scored only where it was asked for
    assert any("asr after tts" in note for note in plan.notes)


def test_without_it_all_begin_from_scratch(tmp_path: Path) -> None:
    for after in ({}, {"asr": None}):
        plan = make_plan(settings(tasks=["asr"], after=after, evaluations={"asr": []}), tmp_path / "out")
        assert "low/lm-tts" not in plan.cells and not any("begin with" in note for note in plan.notes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rows": {}}, "rows is empty"),
        ({"rows": {"a/b": {"tokenizer": "mimi"}}}, "names a folder"),
        ({"rows": {"a": {"tokeniser": "mimi"}}}, "Did you mean 'tokenizer'"),
        ({"rows": {"a": {"tokenizer": "nimi"}}}, "choose one of"),
        ({"rows": {"a": {"tokenizer": "almtokenizer", "train": ["x"], "untrained": ["x"]}}}, "leave one out"),
        ({"tasks": ["sing"]}, "there is no 'sing'"),
        ({"match": "flops"}, "needs comparison.flops"),
        ({"after": {"asr": "tss"}}, "comparison.after.asr=tss: the model of a task may begin with that of another one"),
        ({"after": {"asr": "asr"}}, "comparison.after.asr=asr"),
        ({"after": {"asr": "tts", "tts": "asr"}}, "which itself begins from scratch"),
        ({"lm": ["lm=nano", "trainer.learningrate=1"]}, "comparison.lm: Could not override 'trainer.learningrate'"),
        ({"evaluations": {"tts": ["row=[a]"]}}, "comparison.evaluations.tts: "),
        ({"judges": ["weights.wisper=x"]}, "comparison.judges, in tts: Could not override 'weights.wisper'"),
        ({"rows": {"a": {"classical": "opus"}}}, "which have no tokens for a language model"),
        (
            {"rows": {"a": {"classical": "mp3"}}, "tasks": []},
            "rows.a: classical is one of opus, codec2-700C",
        ),
        ({"rows": {"a": {"tokenizer": "mimi", "each": {"levels": 3}}}}, "rows.a.each must give options lists"),
    ],
)
def test_refusals(changes: dict, message: str, tmp_path: Path, refusal: Callable[..., str]) -> None:
    assert message in refusal(make_plan, settings(**changes), tmp_path)


@pytest.mark.slow
def test_a_row_stands_for_every_combination_of_its_options(tmp_path: Path) -> None:
    rows = {"ours": {"tokenizer": "almtokenizer", "options": {"levels": 2}, "each": {"window": [3, 10]}}, "low": None}
    plan = make_plan(settings(rows=rows, tasks=[]), tmp_path)
    assert list(plan.rows) == ["ours-window3", "ours-window10"]
    arguments = plan.cells["ours-window10/reconstruction"].arguments()
    assert {"tokenizer.window=10", "tokenizer.levels=2"} <= set(arguments)
    assert {row["family"] for row in plan.rows.values()} == {"ours"}


@pytest.mark.slow
def test_decoders_are_compared_on_the_same_codes_alone(tmp_path: Path, refusal: Callable[..., str]) -> None:
    c = compose("eval_compare", ["comparison=decoders", "comparison.rows.flow.options.path=F"]).comparison
    plan = make_plan(c, tmp_path / "out")
    assert set(plan.cells) == {f"{row}/reconstruction" for row in plan.rows} and len(plan.rows) == 9
    arguments = plan.cells["regression/reconstruction"].arguments()
    assert {"tokenizer.path=F", "tokenizer.flow.solver=regression"} <= set(arguments)

    def score(row: str, codes: str) -> None:
        found = re.search(r"steps(\d+)", row)
        how = {"steps": int(found[1]) if found else 8, "solver": "regression" if row == "regression" else "midpoint"}
        tokenizer = {"bitrate": 412.5, "frame_rate": 12.5, "levels": 3, "codebook_sizes": [2048] * 3, "codes": codes,
                     "fingerprint": "f" * 64, "flow": None if row == "shipped" else how}  # fmt: skip
        report = Report({"tokenizer": tokenizer}, ["reference", "resynthesis", "true-target"])
        for of in ("resynthesis", "true-target"):
            report.mean(of, "mel-distance", {f"c{i}": 1.0 + i / 100 for i in range(20)})
        report.write(plan.folder(f"{row}/reconstruction"), [])
        done = {"cell": row, "key": "k", "command": "", "seed": 0, "seconds": 1.0, "attempts": 1, "results": []}
        write(plan.folder(f"{row}/reconstruction") / DONE, done)

    for row in plan.rows:
        score(row, "a" * 64)
    comparison = collect(plan, c, {})
    lines = {line.title: line for line in comparison.lines}
    steps = {row: entry.value for row, entry in lines["evaluations of the flow"].entries.items()}
    assert steps | {"shipped": 0, "regression": 0, "flow-flow.steps16": 16, "seed-flow.seed2": 8} == steps
    assert {entry.text for entry in lines["codes of the test clips"].entries.values()} == {"a" * 12}
    assert "mel distance, of the true target (N = 20)" in lines
    write_comparison(comparison, plan.out)
    plots = [path.read_text() for path in (plan.out / "plots").glob("*mel-distance.svg")]
    assert len(plots) == 1 and "evaluations of the flow" in plots[0].replace("<!-- ", "")
    score("seed-flow.seed2", "b" * 64)
    said = refusal(collect, plan, c, {})
    assert "comparison.same_codes: shipped and seed-flow.seed2 have other codes of the test clips" in said


@pytest.mark.parametrize("installed", [True, False])
def test_a_codec_without_a_network_is_a_row_of_reconstructions(
    installed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("eval.comparison.plan.can_run", lambda name: installed or name == "opus")
    rows = {"good": {"tokenizer": "almtokenizer"}, "opus": {"classical": "opus"}, "c2": {"classical": "codec2-1200"}}
    judges = ["weights.distillmos=installed"]
    plan = make_plan(settings(rows=rows, tasks=[], judges=judges), tmp_path)
    assert ("c2" in plan.rows) == installed and bool(plan.notes) != installed
    cell = plan.cells["opus/reconstruction"]
    assert cell.needs == ("codecs/opus",) and "opus/semantics" not in plan.cells
    assert f"resynthesis={tmp_path}/cells/codecs/opus/clips" in cell.arguments()
    assert not any(argument.startswith("tokenizer") for argument in cell.arguments())
    made = plan.cells["codecs/opus"]
    assert f"out={tmp_path}/cells/codecs/opus/clips" in made.arguments() and "kind=opus" in made.arguments()
    compose("codec_classical", made.arguments())
    for row in ("good", "opus"):  # where nothing is trained the results say what the tokenizer is, and all are judged
        assert judges[0] in plan.cells[f"{row}/reconstruction"].arguments()


@pytest.mark.slow
def test_what_others_published_stands_in_tables_of_its_own(tmp_path: Path, refusal: Callable[..., str]) -> None:
    tables = read_published("eval/comparison/published.yaml")
    assert len(tables) == 5 and all(len({len(line) for line in of.table.body}) == 1 for of in tables)
    assert all(of.title.startswith("Published, not measured here: ") and "arXiv" in of.title for of in tables[:4])
    c = settings(published="eval/comparison/published.yaml")
    plan = make_plan(c, tmp_path / "out")
    finish(plan, c, dict.fromkeys(RATES, 0.5), {"good": 0.8, "low": 0.5, "untrained": 0.5})
    comparison = collect(plan, c, {})
    write_comparison(comparison, plan.out)
    for name in ("index.html", "comparison.md"):
        text = (plan.out / name).read_text()
        assert "not measured here: FocalCodec" in text and "0.33" in text
    assert not {"SAC at 525 bit/s", "BigCodec"} & set(comparison.rows)
    path = tmp_path / "mine.yaml"
    good = {"source": "s", "how": "h", "columns": ["kbit/s", "WER"], "rows": {"a": [1, None]}}
    assert read_published(None) == []
    for wrong, said in (
        ("- a", "must name tables"), ({"t": {**good, "rows": {"a": [1]}}}, "'a' in 't' must have 2 numbers"),
        ({"t": {**good, "rows": {"a": [1, "x"]}}}, "must have 2 numbers"), ({"t": [1]}, "the table 't' must"),
        ({"t": {"rows": {}}}, "the table 't' must have source, how"), ("a: [", "cannot be read"),
    ):  # fmt: skip
        path.write_text(wrong if isinstance(wrong, str) else yaml.safe_dump(wrong))
        assert said in refusal(read_published, str(path))
    assert "cannot be read" in refusal(read_published, str(tmp_path / "gone.yaml"))


def test_the_weights_that_are_needed_are_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "whisper").mkdir()
    (tmp_path / "whisper/model.bin").write_bytes(b"12345")
    rows = {"good": {"tokenizer": "mimi", "options": {"path": f"{tmp_path}/mimi"}}, "own": {"classical": "opus"},
            "untrained": {"tokenizer": "almtokenizer", "untrained": ["codec=mini"]}}  # fmt: skip
    c = settings(rows=rows, tasks=[], judges=[f"weights.whisper={tmp_path}/whisper", "weights.resemblyzer=installed"])
    lines = {line[0]: line for line in weights_needed(make_plan(c, tmp_path / "out"), c).body}
    assert list(lines) == ["good", "judge whisper", "judge resemblyzer"]
    assert lines["good"][2] == "not here" and "about 385 MB" in lines["good"][3]
    assert lines["judge whisper"][2] == "0.0" and re.fullmatch("[0-9a-f]{64}", lines["judge whisper"][3])
    for inside, said in ((None, ["installed", "not here", "pip install --no-deps resemblyzer"]),
                         (tmp_path / "whisper/model.bin", [f"{tmp_path}/whisper/model.bin", "0.0"])):  # fmt: skip
        monkeypatch.setitem(INSIDE, "resemblyzer", lambda inside=inside: inside)
        line = next(line for line in weights_needed(make_plan(c, tmp_path / "out"), c).body if "resembl" in line[0])
        assert line[1:][: len(said)] == said


@pytest.mark.slow
def test_a_tokenizer_of_ones_own_is_a_row_like_any_other(tmp_path: Path) -> None:
    row = {"tokenizer": "custom", "options": {"_target_": "tone_codec.ToneCodec", "tones": 64}, "pattern": "delay"}
    tasks = ["tts", "asr", "text_to_sound", "text_to_music", "audio_captioning", "music_captioning"]
    evaluations = compose("eval_compare", []).comparison.evaluations
    c = settings(rows={"tones": row}, tasks=tasks, evaluations=evaluations)
    plan = make_plan(c, tmp_path / "out")
    record = {"tokenizer": {"name": "tones", "frame_rate": 12.5, "levels": 2, "codebook_sizes": [64, 32]}}
    write(plan.folder("tones/tokens-corpus") / "tokens.json", {**record, "folder": "runs/tokens/tones"})
    assert len(plan.cells) == 1 + 3 * len(tasks) + 2
    for cell in plan.cells.values():  # every command is one that its script takes
        config = compose(cell.config, cell.arguments())
        assert config.tokenizer == {"_target_": "tone_codec.ToneCodec", "tones": 64}
        if cell.kind == "lm":
            assert config.lm.pattern == "delay" and config.trainer.row_length == row_length(c, 25.0)


def test_a_context_that_the_model_cannot_have(tmp_path: Path, refusal: Callable[..., str]) -> None:
    c = settings(context_seconds=60)
    plan = make_plan(c, tmp_path / "out")
    encode(plan, "good")
    assert "60 s are 2672 ids for good" in refusal(plan.cells["good/lm-tts"].arguments)
