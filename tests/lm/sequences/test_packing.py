"""Rows: complete, isolated, and a function of (seed, step) alone."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch

from lm.recipe.data import RowOrder, StepData
from lm.sequences.document_set import render_documents
from lm.sequences.packing import IGNORE, best_fit, pack_rows
from tasks.tts import TTS


@pytest.fixture
def documents(rows, text_tokenizer, vocabulary):
    return render_documents(rows, TTS(), vocabulary, text_tokenizer, 96)


def data(documents, vocabulary, **options):
    defaults = {"row_length": 96, "batch_rows": 4, "seed": 3}
    return StepData(documents, vocabulary, **{**defaults, **options})


def test_every_document_once_and_rows_nearly_full():
    lengths = np.random.default_rng(0).lognormal(5.2, 0.6, 3000).clip(38, 1125).astype(int).tolist()
    rows = best_fit(lengths, 2048)
    assert sorted(i for row in rows for i in row) == list(range(len(lengths)))
    totals = [sum(lengths[i] for i in row) for row in rows]
    assert max(totals) <= 2048
    assert sum(totals) / (2048 * len(rows)) > 0.97


def test_a_document_longer_than_a_row_is_refused_not_cut():
    with pytest.raises(ValueError, match="document 1"):
        best_fit([5, 11], 10)


def test_too_long_documents_are_named(rows, text_tokenizer, vocabulary):
    limited = render_documents(rows, TTS(), vocabulary, text_tokenizer, 40)
    assert limited.too_long and limited.lengths.max() <= 40
    assert sorted(limited.ids + limited.too_long) == sorted(row.id for row in rows)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_packed_documents_do_not_see_each_other_in_train_mode(model, vocabulary, documents, attention):
    model.set_attn_implementation(attention)
    model.train()
    pair = [documents[0], documents[1]]
    packed = pack_rows([pair], 96, vocabulary.control_id("<pad>"))
    start, length = len(pair[0][0]), len(pair[1][0])

    def hidden(ids, positions):
        out = model.model(input_ids=ids, position_ids=positions, use_cache=False)
        return out.last_hidden_state

    ids, positions = torch.from_numpy(packed.input_ids), torch.from_numpy(packed.position_ids)
    before = hidden(ids, positions)[0, start : start + length]
    changed = ids.clone()
    changed[0, 1 : start - 1] = torch.randint(0, vocabulary.used, (start - 2,))
    after = hidden(changed, positions)[0, start : start + length]
    torch.testing.assert_close(after, before, atol=1e-5, rtol=0)
    alone = hidden(ids[:, start : start + length], torch.arange(length)[None])[0]
    torch.testing.assert_close(before, alone, atol=1e-5, rtol=0)
    # The same change is seen when positions do not restart: the test can fail.
    joined = torch.arange(96)[None]
    assert (hidden(changed, joined) - hidden(ids, joined))[0, start : start + length].abs().max() > 1e-3


def test_targets_are_the_next_ids_and_no_document_predicts_the_next_one(documents, vocabulary):
    pad = vocabulary.control_id("<pad>")
    packed = pack_rows([[documents[0], documents[1]]], 96, pad)
    count = sum(int(documents[i][1].sum()) for i in (0, 1))
    assert (packed.targets != IGNORE).sum() == count
    for place in np.flatnonzero(packed.targets[0] != IGNORE):
        assert packed.targets[0, place] == packed.input_ids[0, place + 1]
        assert packed.document[0, place] == packed.document[0, place + 1]
    starts = np.flatnonzero(packed.position_ids[0] == 0)
    lengths = [len(documents[0][0]), len(documents[1][0])]
    assert starts.tolist() == [0, lengths[0], sum(lengths)]  # padding restarts as well
    assert (packed.input_ids[0, sum(lengths) :] == pad).all()


def test_an_epoch_holds_every_document_once_and_epochs_differ(documents, vocabulary):
    order = RowOrder(documents.lengths, 96, seed=3)
    for epoch in (0, 1):
        used = Counter(i for row in order.epoch_rows(epoch) for i in row)
        assert set(used.values()) == {1} and len(used) == len(documents)
    assert order.epoch_rows(0) != order.epoch_rows(1)


def test_step_is_a_pure_function_of_seed_and_step(documents, vocabulary):
    straight = data(documents, vocabulary, hide=0.3)
    forward = [straight.batch(step) for step in range(30)]
    fresh = data(documents, vocabulary, hide=0.3)
    for step in (29, 3, 17):  # in any order, from a loader that has seen nothing
        batch = fresh.batch(step)
        assert batch.names == forward[step].names
        assert (batch.rows.input_ids == forward[step].rows.input_ids).all()
    assert data(documents, vocabulary, seed=4).batch(0).names != forward[0].names


def test_every_number_of_processes_sees_the_same_step(documents, vocabulary):
    source = data(documents, vocabulary, hide=0.3)
    whole = source.batch(5)
    for world in (2, 4):
        parts = [source.batch(5, rank, world) for rank in range(world)]
        assert sorted(str(n) for p in parts for n in p.names) == sorted(str(n) for n in whole.names)
        rows = np.concatenate([part.rows.input_ids for part in parts])
        assert sorted(map(bytes, rows)) == sorted(map(bytes, whole.rows.input_ids))
        assert {part.targets for part in parts} == {whole.targets}


def test_hiding_changes_inputs_and_never_targets(documents, vocabulary):
    plain, hidden = data(documents, vocabulary).batch(2), data(documents, vocabulary, hide=0.5).batch(2)
    assert (plain.rows.targets == hidden.rows.targets).all() and plain.targets == hidden.targets
    changed = plain.rows.input_ids != hidden.rows.input_ids
    assert (hidden.rows.input_ids[changed] == vocabulary.control_id("<mask>")).all()
    audio = vocabulary.levels_of(plain.rows.input_ids) >= 0
    assert not changed[~audio].any() and 0.3 < changed[audio].mean() < 0.7


def test_dropping_the_condition_hides_whole_texts_and_nothing_else(documents, vocabulary):
    plain, dropped = data(documents, vocabulary).batch(2), data(documents, vocabulary, drop_condition=0.5).batch(2)
    assert (plain.rows.targets == dropped.rows.targets).all()
    changed = plain.rows.input_ids != dropped.rows.input_ids
    text = plain.rows.input_ids < vocabulary.text_size
    assert (dropped.rows.input_ids[changed] == vocabulary.control_id("<no_condition>")).all()
    assert not changed[~text].any()
    shares = [
        changed[(plain.rows.document == d) & text & (np.arange(4)[:, None] == r)].mean()
        for r in range(4)
        for d in range(len(plain.names[r]))
    ]
    assert set(shares) == {0.0, 1.0}


def test_the_curriculum_begins_with_the_shorter_documents(documents, vocabulary):
    source = data(documents, vocabulary, curriculum_steps=4, curriculum_share=0.5)
    limit = np.quantile(documents.lengths, 0.5)
    early = [i for step in range(4) for row in source.document_numbers(step) for i in row]
    assert documents.lengths[early].max() <= limit
    late = [i for step in range(4, 20) for row in source.document_numbers(step) for i in row]
    assert set(late) == set(range(len(documents)))
