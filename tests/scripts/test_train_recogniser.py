"""scripts/train_recogniser.py: learns from the train split only, writes a folder that loads, continues from one."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hydra import compose, initialize_config_dir

import train_recogniser
from eval.ctc import CTCRecogniser
from training.config import CONFIG_DIR, ConfigError


def test_a_tiny_training(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    corpus, generator, rows = tmp_path / "corpus", np.random.default_rng(0), []
    corpus.mkdir()
    for number in range(9):
        wav = 0.1 * generator.standard_normal(8000 + 500 * number)
        soundfile.write(corpus / f"{number}.flac", wav, 16_000)
        split = "test" if number == 0 else "valid" if number < 4 else "train"
        row = {"file_name": f"{number}.flac", "id": str(number), "text": "Emma found, it.", "split": split}
        rows.append({**row, "domain": "speech"})
    (corpus / "0.flac").write_bytes(b"the test split is never opened")
    (corpus / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def run(*overrides: str) -> None:
        common = [f"corpus={corpus}", f"out={tmp_path / 'out'}", "model.width=8", "model.blocks=1", "device=cpu"]
        common += ["steps=3", "warmup_steps=1", "clean_steps=2", "batch=2", "log_every=1"]
        with initialize_config_dir(str(CONFIG_DIR), version_base=None):
            train_recogniser.main.__wrapped__(compose("recogniser_train", [*common, *overrides]))

    run()
    model = CTCRecogniser.load(tmp_path / "out")
    assert model.config.width == 8
    record = json.loads((tmp_path / "out/training.json").read_text())
    assert record["corpus"] == {"name": "corpus", "train_clips": 5, "valid_clips": 3}
    assert len(record["curve"]) == 3 and record["wer_valid_clean"] >= 0.0
    run(f"init={tmp_path / 'out'}", f"out={tmp_path / 'again'}")
    assert json.loads((tmp_path / "again/training.json").read_text())["before"]["config"]["steps"] == 3
    assert "step 3/3" in capsys.readouterr().out
    with pytest.raises(ConfigError):
        run(f"corpus={tmp_path / 'nowhere'}")
