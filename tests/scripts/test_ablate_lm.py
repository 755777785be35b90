"""The comparisons run from end to end, tiny; what is done is not done again."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from json_files import read_json, write_lines
from programs import run_command

from ablate_lm import ablate, table
from codec.load import load
from codec.shards import Row, ShardWriter, TokenizerInfo
from lm.model import load_lm
from text_backbone import train_text_backbone
from training.config import REPOSITORY, compose

CODEC = REPOSITORY / "checkpoints/codec-mini"
WORDS = "anna peter found carried the green black table window".split()
SMALL = [
    "lm.text_tokenizer.vocab_size=300",
    "lm.config={hidden_size: 32, intermediate_size: 48, num_hidden_layers: 2, num_attention_heads: 2, "
    "num_key_value_heads: 2, max_position_embeddings: 256, tie_word_embeddings: true}",
    "lm.depth={hidden_size: 16, intermediate_size: 24, num_hidden_layers: 2, num_attention_heads: 2, "
    "num_key_value_heads: 2}",
    "trainer.row_length=128",
    "trainer.batch_rows=2",
    "trainer.log_every=1",
]


@pytest.fixture
def setup(tmp_path, monkeypatch):
    """Token shards of the codec that ships, and a function that reads the configuration."""
    tokenizer, random = load(str(CODEC)), np.random.default_rng(0)
    with ShardWriter(tmp_path / "tokens", TokenizerInfo.of(tokenizer)) as writer:
        for number in range(16):
            codes = random.integers(0, 64, (6, tokenizer.levels))
            text = " ".join(WORDS[i] for i in random.integers(0, len(WORDS), 4))
            split = "valid" if number % 4 == 0 else "train"
            writer.add(
                Row(id=str(number), codes=codes, duration=0.5, text=text, speaker="slt", domain="speech", split=split)
            )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("ablate_lm.run", lambda script, keys: run_command(script, *keys))  # not a process for each

    def configured(*overrides):
        keys = [f"data.root={tmp_path}/none", f"data.tokens={tmp_path}/tokens", f"tokenizer.path={CODEC}", "device=cpu"]
        cfg = compose("ablate_lm", [*keys, "steps=2", "valid_clips=4", "threads=1", *overrides])
        cfg.train = [*cfg.train, *SMALL]
        return cfg

    return configured


@pytest.mark.slow
def test_patterns_are_compared_and_nothing_is_trained_twice(setup, capsys):
    cfg = setup("what=pattern", "score=false", "depth_row_length=64")
    lines = ablate(cfg).read_text().splitlines()
    assert [line.split(" | ")[0].strip("| ") for line in lines[2:]] == ["flat", "delay", "depth"]
    assert len({line.count("|") for line in lines}) == 1
    finals = {path: path.stat().st_mtime_ns for path in ablate_folder(cfg).glob("*/final/model.safetensors")}
    assert len(finals) == 3
    ablate(cfg)
    assert all(path.stat().st_mtime_ns == before for path, before in finals.items())


def ablate_folder(cfg):
    return Path("runs") / f"ablate-{cfg.what}-{cfg.steps}"


@pytest.mark.slow
def test_inits_extend_one_text_model(setup, monkeypatch):
    cfg = setup("what=init", "backbone_steps=3", "backbone_docs=4")
    lines = ablate(cfg).read_text().splitlines()
    assert [line.split(" | ")[0].strip("| ") for line in lines[2:]] == ["normal", "mean", "codebook", "from scratch"]
    folder = ablate_folder(cfg)
    assert read_json(folder / "text-backbone/text_model.json")["steps"] == 3
    losses = [line.split(" | ")[1] for line in lines[2:]]
    assert len(set(losses)) == 4  # at step 0: all begin elsewhere
    model, vocabulary, _ = load_lm(folder / "mean-0/final")
    assert vocabulary.levels == 3 and model.config.vocab_size == vocabulary.size


@pytest.mark.slow
def test_the_text_model_learns(setup):
    cfg = setup("backbone_steps=12", "backbone_docs=8")
    report = train_text_backbone(cfg, ablate_folder(cfg) / "text-backbone")
    assert report["last_loss"] < report["first_loss"] - 1
    before = torch.get_rng_state()
    assert train_text_backbone(cfg, ablate_folder(cfg) / "text-backbone") == report
    assert torch.equal(torch.get_rng_state(), before)


def test_the_table_gives_means_and_ranges_of_seeds(setup, tmp_path):
    cfg = setup("what=pattern", "seeds=[0,1]")
    runs = {}
    for variant, losses in {"flat": (2.0, 3.0), "delay": (1.0, 1.5)}.items():
        runs[variant] = []
        for seed, loss in enumerate(losses):
            folder = tmp_path / f"{variant}-{seed}"
            (folder / "eval-tts").mkdir(parents=True)
            valid = {"step": 2, "valid_loss": loss, "valid_gap_1": 0.5, "valid_bits_per_second": 100.0}
            valid |= {f"valid_loss_{level}": loss + level for level in (1, 2, 3)}
            records = [{"step": 2, "epoch": 1.25, "seconds": 90.0}, valid]
            write_lines(folder / "log.jsonl", records)
            interval = {"wer/ctc-mini": {"value": 0.125, "low": 0.1, "high": 0.152}}
            (folder / "eval-tts/results.json").write_text(
                json.dumps({"rows": {"generated": interval, "resynthesis": interval}})
            )
            runs[variant].append(folder)
    text = table(cfg, runs)
    assert "| flat | 2.500 (2.000–3.000) | 3.500 (3.000–4.000) |" in text
    assert "12.5 % [10.0, 15.2]; 12.5 % [10.0, 15.2] |" in text
    assert "resynthesis: 12.5 % [10.0, 15.2]." in text
