"""Training on several tasks at once: it learns, logs each task, and keeps what it normalised."""

from __future__ import annotations

import pytest
from programs import records, train_lm

from lm.generation.writing import write
from lm.model import load_lm
from lm.run_state import normalisation_of
from lm.sequences.documents import render
from tasks.asr import ASR


@pytest.mark.slow
def test_two_tasks_in_one_model(overrides, tmp_path, capsys, rows):
    options = ["task=[tts,asr]", "task.tasks.asr.weight=2", "text.normalise={asr: basic}"]
    train_lm(*overrides, *options)
    printed = capsys.readouterr().out
    assert "asr 64 documents" in printed and "tts 32 documents" in printed
    lines = records(tmp_path / "runs/tiny")
    valid = next(line for line in lines if "valid_loss" in line)
    assert {"valid_loss/asr", "valid_gap/tts", "valid_loss_text", "valid_loss_1"} <= set(valid)
    # Of held-out clips: a step's own loss depends on how much text happens to stand in it.
    for kind in ("valid_loss/asr", "valid_loss/tts"):
        losses = [line[kind] for line in lines if kind in line]
        assert losses[-1] < losses[0] - 0.05, kind
    final = tmp_path / "runs/tiny/final"
    assert normalisation_of(final) == {"asr": "basic"}
    model, vocabulary, tokenizer = load_lm(final)
    prompt = render(ASR().document(rows[0], with_target=False), vocabulary, tokenizer).ids
    assert len(write(model.eval(), vocabulary, tokenizer, [prompt], max_tokens=5)[0].ids) <= 5


def test_recognition_alone_has_no_levels(overrides, tmp_path, capsys):
    train_lm(*overrides, "task=asr", "trainer.max_steps=2")
    lines = records(tmp_path / "runs/tiny")
    assert all("loss_1" not in line and "valid_loss_1" not in line for line in lines)
    assert any("loss_text" in line for line in lines) and "wrong condition" in capsys.readouterr().out
