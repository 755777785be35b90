"""A corpus of three domains, a tiny codec and an untrained language model, for the scripts that evaluate models."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import soundfile
import torch
from json_files import read_json, read_lines, write_lines
from programs import run_program
from tiny_models import tiny_codec
from transformers import LlamaConfig, LlamaForCausalLM

from lm.model import save_lm
from lm.sequences.text_tokenizer import train_text_tokenizer
from lm.sequences.vocabulary import AudioVocabulary
from training.config import REPOSITORY

JUDGE = (f"ctc={REPOSITORY / 'checkpoints/ctc-mini'}", "dnsmos=false")
TEXTS = ["the tiger is near the table", "anna found the green ladder", "who lost the guitar"]
CAPTIONS = [
    ["Steady rain falls", "Rain patters on a roof"],
    ["A dog barks twice", "Two barks of a dog"],
    ["An engine hums", "The low hum of an engine"],
]
CLASSES = ["rain", "dog", "engine"]


def build(root: Path, task: str) -> Path:
    """``corpus``, ``codec`` and ``runs/lm-tiny/final`` below ``root``; the model says it was trained for ``task``."""
    generator = np.random.default_rng(0)
    (root / "corpus").mkdir(parents=True)
    rows = []
    for domain in ("speech", "sound", "music"):
        for number in range(3):
            name = f"{domain}-{number}"
            for split in ("test", "train"):
                wav = 0.1 * generator.standard_normal(20_000 + 1000 * number).astype(np.float32)
                soundfile.write(root / "corpus" / f"{split}-{name}.flac", wav, 16_000)
                row = {"file_name": f"{split}-{name}.flac", "id": f"{split}-{name}", "domain": domain, "split": split}
                said = {"caption": CAPTIONS[number], "classes": CLASSES[number : number + 1]}
                rows.append({**row, **({"text": TEXTS[number], "speaker": "slt"} if domain == "speech" else said)})
    write_lines(root / "corpus" / "metadata.jsonl", rows)
    codec = tiny_codec()
    codec.save_pretrained(root / "codec")
    texts = [*(f"slt: {text}" for text in TEXTS), *(caption for part in CAPTIONS for caption in part)]
    text_tokenizer = train_text_tokenizer(texts, 300, root / "text")
    vocabulary = AudioVocabulary(len(text_tokenizer), codec.codebook_sizes, codec.describe())
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=vocabulary.size, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        initializer_range=0.3,
    )  # fmt: skip
    final = root / "runs/lm-tiny/final"
    save_lm(final, LlamaForCausalLM(config), vocabulary, text_tokenizer)
    (final / "state.json").write_text(json.dumps({"task": task, "step": 1}))
    return root


def evaluate(config: str, folder: Path, *overrides: str) -> tuple[dict, list[dict]]:
    """Run a program on the task in ``folder``, into ``out`` of the working directory; its results and items."""
    common = (f"data.root={folder / 'corpus'}", f"tokenizer.path={folder / 'codec'}", "device=cpu", "out=out")
    run_program(config, *common, *overrides)
    items = read_lines("out/items.jsonl")
    return read_json("out/results.json"), items
