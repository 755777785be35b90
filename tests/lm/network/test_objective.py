"""The loss equals plain cross-entropy, weighs every target token alike, and its gradients are exact."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from lm.network.objective import Objective, torch_has_it
from lm.recipe.data import StepData
from lm.sequences.document_set import render_documents
from lm.sequences.packing import IGNORE
from tasks.tts import TTS


@pytest.fixture
def batch(rows, text_tokenizer, vocabulary):
    documents = render_documents(rows, TTS(), vocabulary, text_tokenizer, 96)
    rows_of_step = StepData(documents, vocabulary, 96, 8, seed=0).batch(0)
    return rows_of_step.rows.tensors(), rows_of_step.targets


def gradients(model):
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


def test_legal_loss_equals_cross_entropy_over_masked_logits(lively_model, vocabulary, batch):
    (ids, positions, targets), _ = batch
    model = lively_model
    parts = Objective(model, vocabulary, legal_only=True)(ids, positions, targets)
    parts.total.backward()
    ours = gradients(model)
    model.zero_grad()
    logits = model(input_ids=ids, position_ids=positions, use_cache=False).logits
    learnt = targets != IGNORE
    logits, wanted = logits[learnt], targets[learnt]
    end = vocabulary.control_id("</audio>")
    level = torch.from_numpy(vocabulary.levels_of(wanted.numpy()))
    level[wanted == end] = 0
    legal = torch.zeros_like(logits, dtype=torch.bool)
    for k in range(3):
        block = vocabulary.block(k)
        legal[level == k, block.start : block.stop] = True
    legal[level == 0, end] = True
    reference = functional.cross_entropy(logits.masked_fill(~legal, -torch.inf), wanted, reduction="sum")
    reference.backward()
    torch.testing.assert_close(parts.total, reference, rtol=1e-5, atol=1e-4)
    for name, gradient in gradients(model).items():
        largest = float(gradient.abs().max())
        torch.testing.assert_close(ours[name], gradient, rtol=1e-4, atol=1e-5 * largest, msg=name)


@pytest.mark.parametrize("legal_only", [False, True])
def test_parts_add_up(model, vocabulary, batch, legal_only):
    (ids, positions, targets), count = batch
    parts = Objective(model, vocabulary, legal_only)(ids, positions, targets)
    assert int(parts.count.sum()) == count == len(parts.per_target)
    torch.testing.assert_close(parts.loss.sum().float(), parts.total.detach(), rtol=1e-5, atol=1e-4)
    levels = vocabulary.levels_of(targets[targets != IGNORE].numpy())
    assert parts.count.tolist() == [(levels == k).sum() for k in (0, 1, 2, -1)]
    first = parts.per_target[torch.from_numpy(levels == 0)].double().sum()
    torch.testing.assert_close(parts.loss[0], first)


def test_level_weights_scale_gradients_and_leave_reported_losses(model, vocabulary, batch):
    tensors, _ = batch
    plain = Objective(model, vocabulary)(*tensors)
    only_first = Objective(model, vocabulary, level_weights=[1, 0, 0])(*tensors)
    assert torch.equal(plain.loss, only_first.loss)
    expected = float(plain.loss[0] + plain.loss[3])
    assert float(only_first.total.detach()) == pytest.approx(expected, rel=1e-5)
    legal = Objective(model, vocabulary, True, [1, 0, 0])(*tensors)
    legal.total.backward()
    assert model.lm_head.weight.grad[list(vocabulary.block(0))].abs().sum() > 0


def test_a_batch_without_targets_is_zero_and_differentiable(model, vocabulary, batch):
    (ids, positions, targets), _ = batch
    for legal_only in (False, True):
        parts = Objective(model, vocabulary, legal_only)(ids, positions, torch.full_like(targets, IGNORE))
        parts.total.backward()
        assert float(parts.total) == 0


@pytest.mark.parametrize("head", ["plain", "torch"])
@pytest.mark.parametrize("legal", [False, True])
def test_every_head_gives_the_numbers_of_the_chunked_one(lively_model, vocabulary, batch, monkeypatch, head, legal):
    if head == "torch" and not torch_has_it():
        pytest.skip("this torch has no linear_cross_entropy")
    monkeypatch.setattr("lm.network.objective.CHUNK", 50)
    (ids, positions, targets), _ = batch
    found = []
    for name in ("chunked", head):
        lively_model.zero_grad()
        parts = Objective(lively_model, vocabulary, legal, [1, 0.5, 2], name)(ids, positions, targets)
        parts.total.backward()
        found.append((parts, gradients(lively_model)))
    (first, ours), (second, theirs) = found
    torch.testing.assert_close(first.total, second.total, rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(first.loss, second.loss, rtol=1e-5, atol=1e-4)
    assert torch.equal(first.correct, second.correct)
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name], rtol=1e-4, atol=1e-4, msg=name)
