"""A language model, a tokenizer and token shards small enough to train in a second.

The audio tokenizer here is a stand-in: tests of the language model need its description, never its sound.
"""

from __future__ import annotations

import dataclasses
import os
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from tiny_llama import DEPTH, LLAMA, options

from codec.shards import Row, ShardWriter, TokenizerInfo
from lm.model import build_lm
from lm.sequences.documents import render
from lm.sequences.text_tokenizer import train_text_tokenizer
from lm.sequences.vocabulary import AudioVocabulary
from tasks.base import Request
from tasks.tts import TTS

WORDS = "anna peter found carried the green black table window apples three monkeys are in garden".split()
SIZES = (16, 12, 8)
FINGERPRINT = "a1" * 32
DESCRIPTION = {
    "name": "stand-in",
    "fingerprint": FINGERPRINT,
    "sample_rate": 24_000,
    "frame_rate": 12.5,
    "levels": 3,
    "codebook_sizes": list(SIZES),
    "samples_per_frame": 1920,
    "bitrate": 132.0,
    "causal": False,
}


def make_rows(count: int = 40, seed: int = 0) -> list[Row]:
    """Clips of 2–5 words; the codes follow from the words, so that a model can learn them."""
    random = np.random.default_rng(seed)
    spoken = {word: random.integers(0, SIZES, (random.integers(2, 4), 3)) for word in WORDS}
    rows = []
    for number in range(count):
        words = [WORDS[i] for i in random.integers(0, len(WORDS), random.integers(2, 6))]
        codes = np.concatenate([spoken[word] for word in words])
        rows.append(
            Row(
                id=f"clip-{number:03d}",
                codes=codes,
                duration=len(codes) / 12.5,
                text=" ".join(words),
                speaker="slt" if number % 2 else "rms",
                domain="speech",
                split="valid" if number % 5 == 0 else "train",
            )
        )
    return rows


@pytest.fixture(scope="session")
def rows() -> list[Row]:
    return make_rows()


@pytest.fixture(scope="session")
def text_tokenizer(tmp_path_factory, rows):
    texts = [f"{row.speaker}: {row.text}" for row in rows]
    return train_text_tokenizer(texts, 400, tmp_path_factory.mktemp("text_tokenizer"))


@pytest.fixture(scope="session")
def vocabulary(text_tokenizer) -> AudioVocabulary:
    return AudioVocabulary(len(text_tokenizer), SIZES, DESCRIPTION)


@pytest.fixture(scope="session")
def ask(text_tokenizer, vocabulary):
    """(rows, task, vocabulary) → the ids of their prompts."""

    def prompts(rows, task=None, of=vocabulary):
        return [render((task or TTS()).document(row, with_target=False), of, text_tokenizer).ids for row in rows]

    return prompts


@pytest.fixture(scope="session")
def prompts(rows, ask):
    texts = ["anna", rows[0].text, rows[1].text, "peter found three green apples in the black garden"]
    return ask([Request(id=str(i), text=text, speaker="slt") for i, text in enumerate(texts)])


def tiny_config(**changes) -> OmegaConf:
    config = {**LLAMA, "max_position_embeddings": 256, "tie_word_embeddings": True, **changes}
    return OmegaConf.create({"pretrained": None, "init_rows": "normal", "config": config})


@pytest.fixture
def tiny_lm_config():
    return tiny_config()


@pytest.fixture
def model(vocabulary):
    return build_lm(tiny_config(), vocabulary, seed=1)


@pytest.fixture
def lively_model(vocabulary):
    """Random weights large enough that the softmax is far from uniform."""
    model = build_lm(tiny_config(initializer_range=0.3), vocabulary, seed=2)
    return model.eval()


@pytest.fixture
def make_variant(vocabulary):
    """(pattern, variant) → a lively model and its vocabulary."""

    def make(pattern: str, variant: str = "flat"):
        of_pattern = dataclasses.replace(vocabulary, pattern=pattern)
        config = tiny_config(initializer_range=0.3)
        config.variant, config.depth = variant, {**DEPTH, "num_hidden_layers": 6, "initializer_range": 0.3}
        return build_lm(config, of_pattern, seed=3).eval(), of_pattern

    return make


@pytest.fixture(scope="session")
def shards(tmp_path_factory, rows) -> Path:
    """Token shards of the stand-in tokenizer."""
    folder = tmp_path_factory.mktemp("corpus") / "tokens"
    info = TokenizerInfo("stand-in", FINGERPRINT, 24_000, 12.5, SIZES)
    with ShardWriter(folder, info) as writer:
        for row in rows:
            writer.add(row)
    return folder


STAND_IN = f'''
"""The audio tokenizer of the tests, for training processes of their own."""


from codec.interface import AudioTokenizer


class StandIn(AudioTokenizer):
    name, fingerprint, sample_rate, samples_per_frame = "stand-in", "{FINGERPRINT}", 24000, 1920
    codebook_sizes, causal = {SIZES}, False

    def encode(self, wav, lengths=None):
        raise NotImplementedError  # tests of the language model need no sound

    def decode(self, codes):
        raise NotImplementedError  # tests of the language model need no sound

    def describe(self):
        return {DESCRIPTION!r}


def load(path=None, window=None, device="cpu"):
    return StandIn()
'''


@pytest.fixture(scope="session")
def stand_in(tmp_path_factory) -> Path:
    """A folder with the module ``stand_in_tokenizer``; importable here too."""
    folder = tmp_path_factory.mktemp("stand_in")
    (folder / "stand_in_tokenizer.py").write_text(STAND_IN, encoding="utf-8")
    module = types.ModuleType("stand_in_tokenizer")
    exec(STAND_IN, module.__dict__)
    sys.modules["stand_in_tokenizer"] = module
    return folder


@pytest.fixture
def stand_in_path(stand_in, monkeypatch):
    """Processes that the test starts import the module of `stand_in`."""
    monkeypatch.setenv("PYTHONPATH", f"{stand_in}{os.pathsep}{os.environ['PYTHONPATH']}")


@pytest.fixture
def overrides(shards, stand_in, tmp_path, monkeypatch):
    """Overrides of configs/lm_train.yaml for a training of seconds, in an empty working folder."""
    monkeypatch.chdir(tmp_path)
    return [
        "tokenizer._target_=stand_in_tokenizer.load",
        f"data.root={tmp_path}/no-audio",
        f"data.tokens={shards}",
        "name=tiny",
        "device=cpu",
        "lm.text_tokenizer.vocab_size=400",
        *options("lm.config", LLAMA),
        "trainer.row_length=96",
        "trainer.batch_rows=4",
        "trainer.micro_rows=4",
        "trainer.precision=fp32",  # some CPUs compute in bf16, and tolerances are those of fp32
        "trainer.optimiser=adamw",
        "trainer.max_steps=12",
        "trainer.warmup_steps=2",
        "trainer.log_every=1",
        "trainer.valid_every=5",
        "trainer.valid_clips=4",
        "trainer.save_every=3",
    ]


@pytest.fixture(autouse=True)
def one_thread():
    """Equal numbers of threads, or sums come in another order."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
