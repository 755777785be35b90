"""scripts/train_recogniser.py: learns from the train split only, writes a folder that loads, continues from one."""

import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from json_files import read_json, write_lines

import train_recogniser
from codec.network.ctc import CTCRecogniser
from training.checkpoint import CheckpointError
from training.config import ConfigError, compose

TINY = ["corpus=corpus", "out=out", "model.width=8", "model.blocks=1", "device=cpu", "steps=5", "warmup_steps=1"]
TINY += ["clean_steps=2", "batch=2", "log_every=2", "save_every=2"]


@pytest.fixture(autouse=True)
def corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A working directory with nine clips of noise."""
    monkeypatch.chdir(tmp_path)
    generator, rows = np.random.default_rng(0), []
    Path("corpus").mkdir()
    for number in range(9):
        wav = 0.1 * generator.standard_normal(8000 + 500 * number)
        soundfile.write(f"corpus/{number}.flac", wav, 16_000)
        split = "test" if number == 0 else "valid" if number < 4 else "train"
        row = {"file_name": f"{number}.flac", "id": str(number), "text": "Emma found, it.", "split": split}
        rows.append({**row, "domain": "speech"})
    Path("corpus/0.flac").write_bytes(b"the test split is never opened")
    write_lines("corpus/metadata.jsonl", rows)


def run(*overrides: str) -> dict[str, Any]:
    """Train; what training.json says."""
    cfg = compose("recogniser_train", [*TINY, *overrides])
    train_recogniser.main.__wrapped__(cfg)
    return read_json(Path(cfg.out) / "training.json")


@pytest.mark.slow
def test_a_tiny_training(capsys: pytest.CaptureFixture) -> None:
    record = run()
    assert CTCRecogniser.load(Path("out")).config.width == 8
    assert record["corpus"] == {"name": "corpus", "train_clips": 5, "valid_clips": 3}
    assert [line["step"] for line in record["curve"]] == [2, 4, 5] and record["wer_valid_clean"] >= 0.0
    assert run("init=out", "out=again")["before"]["config"]["steps"] == 5
    assert "step 5/5" in capsys.readouterr().out
    with pytest.raises(ConfigError):
        run("corpus=nowhere")


@pytest.mark.slow
@pytest.mark.parametrize(("sent", "status"), [("SIGTERM", 143), ("SIGINT", 130), ("SIGHUP", 129)])
def test_a_stopped_training_continues_as_if_it_had_not_been(
    sent: str, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest, steps = train_recogniser.loss_of, []

    def loss_of(*given: Any) -> Any:
        steps.append(given[3])
        if steps == [1, 2, 3]:
            os.kill(os.getpid(), getattr(signal, sent))
        return honest(*given)

    curve = [{**line, "seconds": 0} for line in run("out=whole")["curve"]]
    monkeypatch.setattr(train_recogniser, "loss_of", loss_of)
    with pytest.raises(SystemExit) as ended:
        run()
    assert ended.value.code == status and not Path("out").exists()
    with pytest.raises(CheckpointError, match="batch: 2 → 3"):
        run("batch=3")
    assert [{**line, "seconds": 0} for line in run()["curve"]] == curve and steps == [1, 2, 3, 4, 5]
    for name in ("config.json", "model.safetensors"):
        assert Path("out", name).read_bytes() == Path("whole", name).read_bytes()
