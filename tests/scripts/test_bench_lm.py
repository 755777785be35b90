"""The benchmark runs and counts the same targets on both sides."""

from __future__ import annotations

import re

import pytest

import bench_lm


@pytest.mark.slow
def test_it_compares_training_generation_and_loading(capsys, monkeypatch):
    shape = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    monkeypatch.setitem(bench_lm.SHAPES, "nano", shape)
    bench_lm.main(["--mini", "--row-length", "256", "--rounds", "1", "--steps", "1", "--frames", "2", "--cpu-seconds"])
    printed = capsys.readouterr().out
    assert re.search(r"training: +[\d,]+ target tokens/s packed, [\d,]+ padded: \d+\.\d+ times", printed)
    assert "model.generate" in printed and "times what training takes" in printed


def test_both_sides_learn_the_same_targets():
    _, vocabulary = bench_lm.build("nano", "cpu")
    documents, rows = bench_lm.make_documents(50, vocabulary, True, 256)
    assert len(documents) == len(rows)
    for number, row in enumerate(rows):
        ids, learn = documents[number]
        assert ids.tolist() == row["input_ids"]
        assert [i for i, learnt in zip(ids.tolist(), learn, strict=True) if learnt] == [
            label for label in row["labels"] if label != -100
        ]
