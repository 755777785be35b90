"""Boards show what log.jsonl holds; validation reports bits per second of audio."""

from __future__ import annotations

import json
import math
import os
import sys

import hydra
import pytest

from lm.tracking import TrackedLog, TrackingError
from lm.train import train
from training.config import CONFIG_DIR


def test_wandb_gets_the_numbers_and_stays_offline(tmp_path, monkeypatch):
    class Run:
        logged: list = []

        def log(self, values, step):
            self.logged.append((step, values))

        def finish(self):
            self.logged.append("finished")

    class Wandb:
        @staticmethod
        def init(**options):
            assert os.environ["WANDB_MODE"] == "offline"
            return Run()

    monkeypatch.setenv("WANDB_MODE", "x")  # so that it is put back in the end
    monkeypatch.delenv("WANDB_MODE")
    monkeypatch.setitem(sys.modules, "wandb", Wandb)
    log = TrackedLog(tmp_path, board="wandb")
    log.log(3, {"loss": 1.5, "name": "x"})
    log.close()
    assert Run.logged == [(3, {"loss": 1.5}), "finished"]
    assert json.loads((tmp_path / "log.jsonl").read_text())["loss"] == 1.5


def test_a_missing_board_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(TrackingError, match="pip install wandb"):
        TrackedLog(tmp_path, board="wandb")
    TrackedLog(tmp_path, is_main=False, board="wandb").log(1, {"loss": 1.0})


def test_bits_per_second_follow_from_the_losses(overrides, tmp_path, monkeypatch):
    """Levels 1 to 3 have one target per frame each, at 12.5 frames a second; the ends are counted with them."""
    monkeypatch.chdir(tmp_path)
    with hydra.initialize_config_dir(version_base=None, config_dir=str(CONFIG_DIR)):
        train(hydra.compose("lm_train", overrides=[*overrides, "trainer.max_steps=2"]))
    lines = list(map(json.loads, (tmp_path / "runs/tiny/log.jsonl").read_text().splitlines()))
    valid = next(line for line in lines if "valid_loss" in line)
    assert valid["valid_perplexity"] == pytest.approx(math.exp(valid["valid_loss"]))
    codes = sum(valid[f"valid_loss_{k}"] for k in (1, 2, 3)) * 12.5 / math.log(2)
    assert codes < valid["valid_bits_per_second"] < codes * 1.2
    uniform = (math.log2(16) + math.log2(12) + math.log2(8)) * 12.5
    assert codes < uniform * 1.1
