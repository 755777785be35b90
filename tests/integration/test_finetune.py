"""lm/finetune.py from a folder of recordings to a verdict, on a tiny codec and a tiny language model."""

import errno
import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from json_files import read_json, read_lines, write_lines
from programs import records, run_command
from tutorial_pages import follow

from almkit.command import main, parser, settings_of
from lm import finetune
from tests.eval.tiny_task import build
from training.config import REPOSITORY, compose

WORDS = "anna peter found lost carried the green black table window guitar tiger".split()
TINY = [
    "device=cpu", "known=corpus", "recognisers=[]", "least_dnsmos=null",
    "held_out=10", "steps=3", "train=['trainer.precision=fp32','trainer.valid_every=3','trainer.save_every=1']",
]  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models under the names of those that ship, ``corpus``, a folder of 40 sentences, and folders that are none."""
    root = build(tmp_path_factory.mktemp("voices"), "tts")
    (root / "checkpoints").mkdir()
    (root / "runs/lm-tiny/final").rename(root / "checkpoints/lm-all-mini")
    (root / "codec").rename(root / "checkpoints/codec-mini")
    state = {"task": "tts", "step": 1, "speakers": ["slt"], "normalise": "none"}
    (root / "checkpoints/lm-all-mini/state.json").write_text(str(state).replace("'", '"'))
    random = np.random.default_rng(0)
    for folder, count, gain in (("recordings", 40, 0.1), ("few", 12, 0.1), ("silence", 3, 1e-5)):
        lines = []
        (root / folder).mkdir()
        for number in range(count):
            wave = gain * random.standard_normal(random.integers(18_000, 30_000)).astype(np.float32)
            soundfile.write(root / folder / f"{number:02}.wav", wave, 16_000)
            text = " ".join(random.choice(WORDS, 5)) + f" {WORDS[number % 12]}"
            lines.append({"file_name": f"{number:02}.wav", "text": text})
        write_lines(root / folder / "metadata.jsonl", lines)
    soundfile.write(root / "recordings/long.wav", 0.1 * random.standard_normal(16_000 * 14), 16_000)
    with (root / "recordings/metadata.jsonl").open("a") as lines:
        lines.write('{"file_name": "long.wav"}\n')
    (root / "empty").mkdir()
    return root


@pytest.fixture
def here(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """In ``place``; the steps run in this process."""
    monkeypatch.chdir(place)
    monkeypatch.setattr(finetune, "step", run_command)
    monkeypatch.setattr(sys, "path", [str(REPOSITORY / "scripts"), *sys.path])
    return place


def tune(*settings: str) -> None:
    finetune.main.__wrapped__(compose("lm_finetune", [*TINY, *settings]))


def tune_as(words: list[str]) -> None:
    """``almkit WORDS``, with a training of three steps."""
    given = parser().parse_args(words)
    if given.command == "finetune":
        tune(*settings_of("finetune", given), "lora=true")
    else:
        main(words)


@pytest.mark.slow
def test_the_tutorial_from_a_folder_to_a_verdict_and_again(
    here: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    follow("voice", tune_as)
    assert Path("peter.wav").is_file() and Path("tiger.wav").is_file()
    said = capfd.readouterr().out
    run = Path("runs/anna")
    report = read_json(run / "finetune/report.json")
    assert {part["metric"] for part in report["voice"]} >= {"bits-per-second"} and report["verdict"]
    assert report["steps"] == 3 == read_json(run / "final/state.json")["step"]
    assert read_json(run / "final/state.json")["speakers"] == ["anna", "slt"]
    assert "!! TOO SMALL: " in said and report["warnings"] and (run / "finetune/page/index.html").is_file()
    assert "bits-per-second: " in said and "with 0.1 minutes of slt" in said
    reasons = [line["reason"] for line in read_lines(run / "finetune/left_out.jsonl")]
    assert len(reasons) >= 1 and all("no pause" in r or "no text" in r or "sentence of the test" in r for r in reasons)
    assert f"left out: {len(reasons)} in all" in said
    chosen = read_lines(run / "finetune/corpus/metadata.jsonl")
    texts = {test: {line["text"] for line in chosen if (line["split"] == "test") == test} for test in (True, False)}
    assert len(texts[True]) == 10 and not texts[True] & texts[False]
    steps = len(records(run))
    train_only = lambda program, *settings: program == "lm/train.py" and run_command(program, *settings)  # noqa: E731
    monkeypatch.setattr(finetune, "step", train_only)
    tune("folder=recordings", "name=anna", "voice=anna", "lora=true")  # all is there
    assert "is current, nothing was to do" in capfd.readouterr().out and len(records(run)) == steps
    assert read_json(run / "finetune/report.json") == report


@pytest.mark.slow
@pytest.mark.parametrize(
    ("folder", "sentence"),
    [
        ("recordings/00.wav", "recordings/00.wav is one file; give the folder that holds the recordings"),
        ("empty", "corpus folder empty has neither metadata.jsonl|csv|parquet nor audio files"),
        ("silence", "no clip of folder=silence can be used, the first because: quieter than -50 dB."),
        ("few", "folder=few is too small: 12 clips of speech with text are left of it"),
        ("nowhere", "corpus folder nowhere does not exist"),
    ],
)
def test_a_folder_that_is_no_voice_is_refused_in_one_sentence(
    folder: str, sentence: str, here: Path, refusal: Callable[..., str]
) -> None:
    assert sentence in refusal(tune, f"folder={folder}", "name=refused-" + folder.replace("/", "-"))


@pytest.mark.slow
def test_a_full_disk_is_one_sentence(
    here: Path, monkeypatch: pytest.MonkeyPatch, refused_program: Callable[..., str]
) -> None:
    def full(path: Path, *_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr("lm.finetuning.gathering.write_file", full)
    said = refused_program("lm.finetune", ["folder=recordings", "name=full", *TINY])
    assert "metadata.jsonl: No space left on device. Make room or give another folder" in said


@pytest.mark.slow
def test_a_step_that_refuses_ends_the_whole(capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        finetune.step("eval/compare.py", "runs=[nowhere]")
    assert ended.value.code == 2 and "runs: nowhere has no results.json" in capfd.readouterr().err
