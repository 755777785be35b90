"""Every tutorial does what it says, on tiny models and short recordings; *voice* is followed by test_finetune.py."""

import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from json_files import read_json
from tiny_models import tiny_codec
from tutorial_pages import follow, pages

from training.config import REPOSITORY


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with ``me.wav``, ``recordings/`` and two tiny codecs under the names of those that ship."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(REPOSITORY / "scripts"), *sys.path])
    random = np.random.default_rng(0)
    Path("recordings").mkdir()
    for path in ("me.wav", *(f"recordings/{number}.wav" for number in range(10))):
        soundfile.write(path, 0.1 * random.standard_normal(12_000), 16_000)
    lines = [f'{{"file_name": "{number}.wav", "text": "a word", "speaker": "me"}}\n' for number in range(10)]
    Path("recordings/metadata.jsonl").write_text("".join(lines))
    for number, name in enumerate(("codec-mini", "codec-real")):
        tiny_codec(seed=number).save_pretrained(f"checkpoints/{name}")
    return tmp_path


def test_all_tutorials_are_followed() -> None:
    assert pages() == {"hear", "voice", "compare", "task"}


@pytest.mark.slow
def test_hear(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    follow("hear")
    assert {path.name for path in here.glob("*.wav")} == {f"{n}.wav" for n in "me again fewer slower swapped".split()}
    assert (here / "back/me.flac").is_file() and "bit/s" in capfd.readouterr().out


@pytest.mark.slow
def test_compare(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    follow("compare")
    found = read_json("runs/compared/compare.json")["differences"]
    assert {(part["metric"], part["n"]) for part in found} >= {("stoi", 10), ("mel-distance", 10)}
    assert Path("runs/compared-page/index.html").is_file()


@pytest.mark.slow
def test_task(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(REPOSITORY)  # whose tokens it reads; it writes nothing
    defined = follow("task")
    rows, task, documents = (defined[name] for name in ("rows", "task", "documents"))
    assert len(documents) == len(rows) > 100 and task.document(rows[0]).segments[1].text in defined["NAMES"]
    assert 0 < defined["learnt"].sum() < 12 and "are learnt" in capsys.readouterr().out
