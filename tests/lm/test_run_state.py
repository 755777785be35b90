"""Which model is taken where none is named."""

import json
import os
from pathlib import Path

import pytest
import yaml

from lm.run_state import IN_ALL, SHIPPED, newest_model
from training.config import CONFIG_DIR, ConfigError, group_options


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


def test_else_the_first_that_ships_and_knows_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tts, every = finished(tmp_path / "tts", "tts"), finished(tmp_path / "all", "all")
    assert newest_model("tts", tmp_path / "runs", (tts, every)) == tts
    assert newest_model("asr", tmp_path / "runs", (tts, every)) == every
    for task in ("continuation", "asr"):  # not among the six; nothing ships
        with pytest.raises(ConfigError):
            newest_model(task, tmp_path / "runs", (tts, every) if task == "continuation" else ())
        assert f"no finished run of task={task}" in capsys.readouterr().err


def test_all_is_what_its_configuration_holds() -> None:
    defaults = yaml.safe_load((CONFIG_DIR / "task/all.yaml").read_text())["defaults"]
    listed = [next(iter(entry)).partition("@")[0] for entry in defaults if isinstance(entry, dict)]
    listed += [entry.partition("@")[0] for entry in defaults if isinstance(entry, str) and "@" in entry]
    assert sorted(listed) == sorted(IN_ALL)


def test_every_task_has_a_model_that_ships() -> None:
    for task in (name for name in group_options("task") if name not in ("all", "mixture")):
        folder = newest_model(task, Path("no-such-folder"), [CONFIG_DIR.parent / path for path in SHIPPED])
        assert (folder / "model.safetensors").is_file()
