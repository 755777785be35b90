"""Options that say what is learnt and how it is weighed; what the log line computes from known numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from programs import records, train_lm
from tiny_llama import DEPTH, options

from codec.shards import ShardError
from lm.network.objective import Objective
from lm.recipe.data import StepData
from lm.recipe.options import level_weights
from lm.recipe.throughput import peak_flops, training_flops
from lm.recipe.token_rows import TokenRowsError
from lm.sequences.document_set import render_documents
from lm.sequences.packing import IGNORE
from tasks.tts import TTS
from training.config import ConfigError


def test_the_last_weight_holds_for_further_levels():
    assert level_weights(None, 3) is None
    assert level_weights([1, 0.5, 0.25], 3) == [1, 0.5, 0.25]
    assert level_weights([1, 0.5], 4) == [1, 0.5, 0.5, 0.5]
    for wrong in ([1, 1, 1, 1], [], [0, 0]):
        with pytest.raises(ConfigError):
            level_weights(wrong, 3)


@pytest.mark.parametrize(
    ("override", "reason"),
    [
        ("trainer.row_length=8", "no document fits trainer.row_length=8: raise it."),
        ("data.tokens=/nowhere", "data.tokens=/nowhere: no such folder"),
        ("trainer.level_weights=[1,1,1,1]", "1 to 3 numbers"),
    ],
)
def test_what_cannot_be_learnt_is_one_sentence(overrides, capsys, override, reason):
    with pytest.raises((ShardError, TokenRowsError, ConfigError)) as error:
        train_lm(*overrides, override)
    assert reason in str(error.value) + capsys.readouterr().err


@pytest.fixture
def documents(rows, text_tokenizer, vocabulary):
    return render_documents(rows, TTS(), vocabulary, text_tokenizer, 96)


def test_everything_is_learnt_when_asked_for(documents, vocabulary):
    target, everything = (StepData(documents, vocabulary, 96, 4, 0, hide=0.2, everything=e) for e in (False, True))
    a, b = target.batch(1), everything.batch(1)
    assert (a.rows.input_ids == b.rows.input_ids).all()
    learnt = a.rows.targets != IGNORE
    assert (b.rows.targets[learnt] == a.rows.targets[learnt]).all()
    # Every id but each document's first is a target, once.
    documents_in_rows = sum(len(names) for names in b.names)
    assert b.targets == (b.rows.targets != IGNORE).sum() == b.tokens - documents_in_rows > a.targets
    assert (b.rows.targets[b.rows.document < 0] == IGNORE).all()


def test_a_dropped_text_is_no_target(documents, vocabulary):
    batch = StepData(documents, vocabulary, 96, 4, 0, drop_condition=1.0, everything=True).batch(0)
    targets = batch.rows.targets[batch.rows.targets != IGNORE]
    assert (targets >= vocabulary.text_size).all()
    assert (targets == vocabulary.control_id("</text>")).sum() == sum(len(names) for names in batch.names)


@pytest.mark.parametrize("legal_only", [False, True])
def test_the_loss_on_everything_counts_text_and_control_tokens(documents, vocabulary, lively_model, legal_only):
    batch = StepData(documents, vocabulary, 96, 4, 0, everything=True).batch(0)
    parts = batch.rows.tensors()
    loss = Objective(lively_model, vocabulary, legal_only, everything=True)(*parts)
    assert loss.count.sum() == batch.targets and torch.isfinite(loss.per_target).all()
    hidden = lively_model.model(input_ids=parts[0], position_ids=parts[1], use_cache=False).last_hidden_state
    logits = hidden[parts[2] != IGNORE] @ lively_model.lm_head.weight.T
    wanted = parts[2][parts[2] != IGNORE]
    if legal_only:
        end = vocabulary.control_id("</audio>")
        legal = torch.zeros_like(logits, dtype=torch.bool)
        for row, number in enumerate(wanted.tolist()):
            level = int(vocabulary.levels_of(np.array([number]))[0])
            if number == end or level == 0:
                legal[row, end] = True
            block = vocabulary.block(max(level, 0)) if number == end or level >= 0 else range(vocabulary.block(0).start)
            legal[row, block.start : block.stop] = True
        logits = logits.masked_fill(~legal, -torch.inf)
    expected = torch.nn.functional.cross_entropy(logits, wanted, reduction="none")
    torch.testing.assert_close(loss.per_target, expected.detach(), atol=1e-4, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["flat", "depth"])
def test_a_model_of_everything_is_trained(overrides, tmp_path, variant):
    more = ["trainer.loss_on=everything", "trainer.max_steps=3", f"lm.variant={variant}", *options("lm.depth", DEPTH)]
    train_lm(*overrides, *more)
    lines = records(tmp_path / "runs/tiny")
    assert all(math.isfinite(line["loss_text"]) for line in lines if "loss_text" in line)
    assert any("loss_text" in line for line in lines)


def test_every_position_knows_its_task(documents, vocabulary):
    names = documents.task_names
    documents.tasks = ["asr" if i % 2 else "tts" for i in range(len(documents))]
    assert names == ["tts"] and documents.task_names == ["asr", "tts"]
    batch = StepData(documents, vocabulary, 96, 4, 0).batch(0, rank=1, world=2)
    for row, members in enumerate(batch.names):
        for number, name in enumerate(members):
            of = documents.tasks[documents.ids.index(name)]
            assert set(batch.tasks[row][batch.rows.document[row] == number]) == {documents.task_names.index(of)}


def test_utilisation_counts_the_products_that_are_useful(model, vocabulary, monkeypatch):
    layers = sum(p.numel() for name, p in model.named_parameters() if "proj" in name)
    assert training_flops(model, vocabulary, False, 10, 4) == 6 * (layers * 10 + 32 * vocabulary.size * 4)
    assert training_flops(model, vocabulary, True, 10, 3) == 6 * (layers * 10 + 32 * 12 * 3)
    assert peak_flops(torch.device("cpu"), None) is None
    assert peak_flops(torch.device("cpu"), 2.0) == 2e12
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "NVIDIA H100 80GB HBM3")
    assert peak_flops(torch.device("cuda"), None) == 989e12
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "an unknown one")
    assert peak_flops(torch.device("cuda"), None) is None
