"""Delay and depth are trained, continued and used by the same commands as flat."""

from __future__ import annotations

import pytest
import torch
from programs import records, train_lm
from tiny_llama import DEPTH, options

from lm.generation.frames import generate
from lm.generation.writing import write
from lm.model import load_lm
from lm.network.depth import DepthObjective
from lm.recipe.data import StepData, step_batches
from lm.sequences.document_set import render_documents
from lm.sequences.documents import render
from lm.sequences.packing import IGNORE, pack_rows
from lm.sequences.patterns import NONE
from tasks.base import Request
from tasks.tts import TTS
from training.config import ConfigError

SMALL_DEPTH = options("lm.depth", DEPTH)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [["lm.pattern=delay"], ["lm.variant=depth", *SMALL_DEPTH]], ids=["delay", "depth"])
def test_trains_continues_bit_for_bit_and_generates(kind, overrides, rows, tmp_path, monkeypatch):
    settings = [*overrides, *kind, "trainer.lr=5e-3"]
    for name, steps in (("whole", [12]), ("parts", [6, 12])):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        for last in steps:
            schedule = ["trainer.schedule=constant", f"trainer.max_steps={last}"]
            train_lm(*settings, *schedule)
    whole, parts = (
        {line["step"]: line["loss"] for line in records(tmp_path / name / "runs/tiny") if "loss" in line}
        for name in ("whole", "parts")
    )
    assert whole[12] < whole[1] - 0.1 and parts == whole
    model, vocabulary, tokenizer = load_lm(tmp_path / "whole/runs/tiny/final")
    again, _, _ = load_lm(tmp_path / "parts/runs/tiny/final")
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))
    prompt = render(TTS().document(Request("a", text=rows[0].text), with_target=False), vocabulary, tokenizer).ids
    clip = generate(model, vocabulary, [prompt], 12)[0]
    assert clip.legal and clip.n_frames >= 1


def test_a_depth_model_writes_text(overrides, rows):
    final = train_lm(*overrides, "task=asr", "lm.variant=depth", *SMALL_DEPTH, "trainer.max_steps=3")
    model, vocabulary, tokenizer = load_lm(final)
    from tasks.asr import ASR

    request = Request("a", codes=rows[0].codes)
    prompt = render(ASR().document(request, with_target=False), vocabulary, tokenizer).ids
    text = write(model, vocabulary, tokenizer, [prompt, prompt[:1].tolist() + prompt[1:].tolist()], max_tokens=5)
    assert len(text[0].ids) <= 5 and text[0].ids == text[1].ids


@pytest.fixture
def depth(make_variant, rows, text_tokenizer):
    model, vocabulary = make_variant("one_frame_delay", "depth")
    documents = render_documents(rows, TTS(), vocabulary, text_tokenizer, 96, fold_steps=True)
    return model.train(), vocabulary, documents


def test_every_code_is_a_target_once(depth, rows):
    _, vocabulary, documents = depth
    packed = pack_rows([[documents[i]] for i in range(5)], 96, vocabulary.control_id("<pad>"))
    for number in range(5):
        targets = packed.targets[number]
        assert (targets != IGNORE).sum() == rows[number].codes.size + 1  # and the end
        assert (vocabulary.levels_of(targets) >= 1).sum() == rows[number].codes.size * 2 // 3


def test_packed_documents_do_not_see_each_other(depth):
    model, vocabulary, documents = depth
    pair = [documents[0], documents[1]]
    packed = pack_rows([pair], 96, vocabulary.control_id("<pad>"))
    ids, positions, targets = packed.tensors()
    objective = DepthObjective(model, vocabulary)
    start = len(pair[0][0])
    targets[:, :start] = IGNORE
    before = objective(ids, positions, targets).per_target
    changed = ids.clone()
    changed[0, 1 : start - 1, 0] = vocabulary.block(0).start
    after = objective(changed, positions, targets).per_target
    torch.testing.assert_close(after, before, atol=1e-5, rtol=0)
    joined = torch.arange(96)[None]
    assert (
        objective(changed, joined, targets).per_target - objective(ids, joined, targets).per_target
    ).abs().max() > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("head", ["chunked", "plain"])
def test_the_depth_loss_is_the_sum_over_levels(depth, head):
    """Against a loop that asks for the logits of one token at a time, as generation does."""
    model, vocabulary, documents = depth
    packed = pack_rows([[documents[0], documents[1]]], 96, vocabulary.control_id("<pad>"))
    ids, positions, targets = packed.tensors()
    parts = DepthObjective(model, vocabulary, level_weights=[1, 0.5, 0.25], head=head)(ids, positions, targets)
    hidden = model.model(input_ids=ids, position_ids=positions, use_cache=False).last_hidden_state
    weighted, losses = 0.0, []
    for place in (targets[0] != IGNORE).any(-1).nonzero()[:, 0]:
        wanted = targets[0, place]
        for level in range(3):
            if wanted[level] == IGNORE:
                continue
            before = wanted[None, :level].masked_fill(wanted[None, :level] == IGNORE, -1)
            logits = model.level_logits(hidden[0, place][None], before)[0]
            end = wanted[0] == vocabulary.control_id("</audio>")
            index = 0 if level == 0 and end else int(wanted[level]) - vocabulary.block(level).start + (level == 0)
            losses.append(-torch.log_softmax(logits, -1)[index])
            weighted = weighted + losses[-1] * (1.0 if level == 0 and end else (1, 0.5, 0.25)[level])
    torch.testing.assert_close(parts.per_target, torch.stack(losses).detach(), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(parts.total, weighted, atol=1e-3, rtol=1e-5)
    parts.total.backward(retain_graph=True)
    ours = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    weighted.backward()
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(ours[name], parameter.grad, rtol=1e-3, atol=1e-4, msg=name)


def test_hiding_and_dropping_reach_the_folded_ids(depth):
    _, vocabulary, documents = depth
    plain, hidden = (StepData(documents, vocabulary, 96, 4, 0, hide=h, drop_condition=d) for h, d in ((0, 0), (0.3, 1)))
    a, b = plain.batch(3).rows, hidden.batch(3).rows
    assert (a.targets == b.targets).all()
    changed = a.input_ids != b.input_ids
    audio = vocabulary.levels_of(a.input_ids) >= 0
    assert 0.2 < changed[audio].mean() < 0.4
    text = (a.input_ids >= 0) & (a.input_ids < vocabulary.text_size)
    assert changed[text].all() and not changed[~audio & ~text].any()


def test_steps_are_the_same_with_workers(depth):
    _, vocabulary, documents = depth
    data = StepData(documents, vocabulary, 96, 4, 0, hide=0.2)
    for rank in (0, 1):
        with step_batches(data, 3, 9, rank, 2) as one, step_batches(data, 3, 9, rank, 2, workers=2) as other:
            ours, theirs = list(one), list(other)
        assert len(ours) == len(theirs) == 6
        for one, other in zip(ours, theirs, strict=True):
            assert one.names == other.names and one.targets == other.targets
            assert (one.rows.input_ids == other.rows.input_ids).all()


def test_a_pattern_that_the_depth_variant_cannot_use_is_refused(overrides, monkeypatch, capsys):
    with pytest.raises(SystemExit):
        from lm.train import main

        monkeypatch.setattr("sys.argv", ["train.py", *overrides, "lm.variant=depth", "lm.pattern=delay"])
        main()
    assert "one_frame_delay" in capsys.readouterr().err
    with pytest.raises(ConfigError):
        train_lm(*overrides, "lm.pattern=diagonal")


def test_a_step_is_the_sum_of_its_levels_and_absent_levels_add_nothing(depth):
    model, vocabulary, _ = depth
    table = model.get_input_embeddings().weight
    first, second = vocabulary.block(0).start + 3, vocabulary.block(1).start + 2
    steps = torch.tensor([[[5, NONE, NONE], [first, NONE, NONE], [first, second, NONE]]])
    summed = torch.stack([table[5], table[first], table[first] + table[second]])[None]
    with torch.no_grad():
        ours = model.model(input_ids=steps, use_cache=False).last_hidden_state
        expected = model.lm.model(inputs_embeds=summed, use_cache=False).last_hidden_state
        text = model.model(input_ids=steps[:, :2, 0], use_cache=False).last_hidden_state
    torch.testing.assert_close(ours, expected)
    torch.testing.assert_close(ours[:, :2], text)  # writing texts goes without folding
