"""Boards show what log.jsonl holds; validation reports bits per second of audio."""

from __future__ import annotations

import math
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from programs import records, train_lm

from lm.recipe.tracking import TrackedLog
from training.tracking import TrackerError


@pytest.fixture
def board(monkeypatch):
    """A stand-in for wandb; what was sent to it, as (step, values)."""
    sent: list = []
    run = SimpleNamespace(log=lambda values, step: sent.append((step, values)), finish=lambda: sent.append("finished"))
    fake = SimpleNamespace(
        init=lambda **settings: run,
        api=SimpleNamespace(api_key=None),
        Audio=lambda wave, sample_rate: ("audio", np.asarray(wave), sample_rate),
        __spec__=SimpleNamespace(),
    )
    monkeypatch.setitem(sys.modules, "wandb", fake)
    return sent


def test_the_board_gets_the_numbers_of_the_log(board, tmp_path):
    log = TrackedLog(tmp_path, board="wandb")
    log.log(3, {"loss": 1.5, "name": "x"})
    log.log(3, {"valid_loss": 2.5})
    log.close()
    assert board == [(3, {"train/loss": 1.5}), (3, {"valid/loss": 2.5}), "finished"]
    assert records(tmp_path)[0]["loss"] == 1.5


def test_a_board_that_is_not_there_is_one_sentence(overrides, monkeypatch):
    monkeypatch.setattr("training.tracking.importlib.util.find_spec", lambda name: None)
    with pytest.raises(TrackerError, match="needs the package wandb"):
        train_lm(*overrides, "tracker=wandb")


@pytest.mark.slow
def test_validation_speaks_and_changes_nothing(board, overrides, tmp_path, monkeypatch):
    """The board hears the same held-out clips at each validation; the model trains as if nobody had listened."""

    def decode(self, codes):
        return codes.codes[:, 0].repeat_interleave(1920, dim=1).float() / 16

    monkeypatch.setattr(sys.modules["stand_in_tokenizer"].StandIn, "decode", decode, raising=False)
    runs = {}
    for name, options in {"heard": ["tracker=wandb", "trainer.valid_audio=2"], "unheard": []}.items():
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        final = train_lm(*overrides, *options, "trainer.max_steps=6", "task.decoding.max_seconds=3")
        runs[name] = (tmp_path / name / final / "model.safetensors").read_bytes()
    assert runs["heard"] == runs["unheard"]
    heard = [(step, name, sound) for step, values in board[:-1] for name, sound in values.items() if "audio/" in name]
    names = {name for _, name, _ in heard}
    assert names == {f"audio/clip-{number}/{kind}" for number in ("000", "005") for kind in ("codec", "generated")}
    assert {step for step, name, _ in heard if name.endswith("generated")} == {0, 5, 6}
    assert {step for step, name, _ in heard if name.endswith("codec")} == {0}
    for _, _, (_, wave, rate) in heard:
        assert rate == 24_000 and len(wave) % 1920 == 0 and len(wave) > 0


def test_bits_per_second_follow_from_the_losses(overrides, tmp_path):
    """Levels 1 to 3 have one target per frame each, at 12.5 frames a second; the ends are counted with them."""
    train_lm(*overrides, "trainer.max_steps=2")
    lines = records(tmp_path / "runs/tiny")
    valid = next(line for line in lines if "valid_loss" in line)
    assert valid["valid_perplexity"] == pytest.approx(math.exp(valid["valid_loss"]))
    codes = sum(valid[f"valid_loss_{k}"] for k in (1, 2, 3)) * 12.5 / math.log(2)
    assert codes < valid["valid_bits_per_second"] < codes * 1.2
    uniform = (math.log2(16) + math.log2(12) + math.log2(8)) * 12.5
    assert codes < uniform * 1.1
