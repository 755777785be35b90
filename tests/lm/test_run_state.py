"""Which model is taken where none is named, and when a run may go on for longer than it was to."""

import json
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml

from lm.model import ModelError
from lm.run_state import (
    IN_ALL,
    SHIPPED,
    allowing_more_steps,
    computes_in_bf16,
    longest_texts,
    longest_texts_of,
    named_speakers,
    newest_model,
    speakers_of,
)
from tasks.base import make_task
from training.checkpoint import CheckpointError
from training.config import CONFIG_DIR, compose, group_options
from training.run_folder import check_recipe


def finished(folder: Path, task: str, age: int = 0) -> Path:
    folder.mkdir(parents=True)
    state = folder / "state.json"
    state.write_text(json.dumps({"task": task, "written": 1_000_000 - age}))
    os.utime(state, (1_000_000 + age, 1_000_000 + age))  # a copy of an old run is no new one
    return folder


def test_the_newest_finished_run_that_knows_the_task(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    asr = finished(runs / "a/final", "asr", age=30)
    both = finished(runs / "b/final", "asr+tts", age=20)
    every = finished(runs / "c/final", "all", age=10)
    (runs / "d/checkpoints").mkdir(parents=True)  # not finished
    assert newest_model("asr", runs, ()) == newest_model("text_to_music", runs, ()) == every
    (every / "state.json").unlink()
    assert newest_model("asr", runs, ()) == newest_model("tts", runs, ()) == both
    (both / "state.json").unlink()
    assert newest_model("asr", runs, ()) == asr


def test_else_the_first_that_ships_and_knows_it(tmp_path: Path) -> None:
    tts, every = finished(tmp_path / "tts", "tts"), finished(tmp_path / "all", "all")
    assert newest_model("tts", tmp_path / "runs", (tts, every)) == tts
    assert newest_model("asr", tmp_path / "runs", (tts, every)) == every
    for task in ("continuation", "asr"):  # not among the six; nothing ships
        with pytest.raises(ModelError, match=f"no finished run of task={task}"):
            newest_model(task, tmp_path / "runs", (tts, every) if task == "continuation" else ())


def test_all_is_what_its_configuration_holds() -> None:
    defaults = yaml.safe_load((CONFIG_DIR / "task/all.yaml").read_text())["defaults"]
    listed = [next(iter(entry)).partition("@")[0] for entry in defaults if isinstance(entry, dict)]
    listed += [entry.partition("@")[0] for entry in defaults if isinstance(entry, str) and "@" in entry]
    assert sorted(listed) == sorted(IN_ALL)


def test_every_task_has_a_model_that_ships() -> None:
    for task in (name for name in group_options("task") if name not in ("all", "mixture")):
        folder = newest_model(task, Path("no-such-folder"), SHIPPED)
        assert (folder / "model.safetensors").is_file()
        assert speakers_of(folder) == (["rms", "slt"] if "spoken" not in folder.name else None)


def test_the_longest_text_that_was_said_is_known_by_task(tmp_path: Path) -> None:
    rows = [SimpleNamespace(id=text, text=text, domain="speech", codes=[], speaker="a") for text in ("abc", "abcde")]
    both = make_task(compose("lm_train", ["task=[tts,asr]"]).task)
    assert longest_texts(both.select(rows), both, None) == {"tts": 5}
    for text, before in (('{"longest_texts": {"tts": 9, "other": "9"}}', {"tts": 9}), ('{"longest_texts": 3}', {})):
        (tmp_path / "state.json").write_text(text)
        assert longest_texts_of(tmp_path) == before
        assert longest_texts(both.select(rows), both, str(tmp_path)) == {"tts": before.get("tts", 5)}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("schedule", "step", "goes_on"),
    [
        ("constant", 5, True), ("constant", 100, True), ("cosine", 5, True), ("cosine", 50, False),
        ("cosine", 100, False), ("wsd", 5, True), ("wsd", 79, True), ("wsd", 81, False), ("wsd", 100, False),
    ],
)  # fmt: skip
def test_more_steps_where_the_rate_does_not_jump(schedule: str, step: int, goes_on: bool) -> None:
    """Ten steps of warm-up, a hundred in all, of which wsd falls in the last fifth (of those after the warm-up)."""
    keys = [f"trainer.schedule={schedule}", "trainer.warmup_steps=10", "trainer.decay_share=0.2222"]
    before, after = (compose("lm_train", [*keys, f"trainer.max_steps={steps}"]).trainer for steps in (100, 1000))
    stored, wanted = {"trainer": dict(before)}, {"trainer": dict(after)}
    allowed = allowing_more_steps(stored, after, step)
    if goes_on:
        check_recipe(allowed, wanted, Path("x"))
    else:
        with pytest.raises(CheckpointError, match="max_steps: 100 → 1000"):
            check_recipe(allowed, wanted, Path("x"))
    with pytest.raises(CheckpointError, match="seed: 1 → 2"):  # nothing else is allowed
        check_recipe(allowing_more_steps({**stored, "seed": 1}, after, 5), {**wanted, "seed": 2}, Path("x"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("vendor_id\t: GenuineIntel\nflags\t\t: avx512_bf16 amx_bf16 amx_tile\n", True),
        ("vendor_id\t: GenuineIntel\nflags\t\t: avx512f avx512_bf16\n", False),  # AMX hidden: slower than fp32
        ("vendor_id\t: AuthenticAMD\nflags\t\t: avx512f avx512_bf16\n", True),
        ("vendor_id\t: AuthenticAMD\nflags\t\t: avx2\n", False),
    ],
)
def test_which_processors_are_faster_in_bf16(text: str, expected: bool, tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(text)
    assert computes_in_bf16(torch.device("cpu"), cpuinfo) is expected
    assert not computes_in_bf16(torch.device("cpu"), tmp_path / "none")  # other systems
    assert not computes_in_bf16(torch.device("meta"), cpuinfo)


@pytest.mark.parametrize(("override", "named"), [("task=tts", ["anna"]), ("task.prompt='{text}'", [])])
def test_a_prompt_without_a_speaker_names_nobody(override: str, named: list[str]) -> None:
    task = make_task(compose("lm_train", ["task=tts", override]).task)
    row = SimpleNamespace(id="a", text="hello", speaker="anna", domain="speech", codes=None, captions=[])
    assert named_speakers([row], task, None) == named
