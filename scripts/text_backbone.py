"""A small text model trained on the transcripts of a corpus: the backbone that `ablate_lm.py` extends by audio rows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf
from transformers import LlamaConfig, LlamaForCausalLM

from codec.shards import ShardError, read_shards
from codec.shards.token_source import named_shards, shipped_shards
from lm.sequences.text_tokenizer import train_text_tokenizer
from training.checkpoint import save_folder
from training.config import CONFIG_DIR, ConfigError, refusing

REPORT = "text_model.json"


def sentences_of(cfg: DictConfig) -> list[str]:
    """Transcripts of the train split as a speech model reads them, ``speaker: text``, sorted and unique."""
    with refusing(ShardError):
        folder = named_shards(cfg.data) or shipped_shards(cfg.data)
        if folder is None:
            raise ConfigError(f"data.root={cfg.data.root} ships no token shards: give data.tokens=FOLDER.")
        rows = read_shards(folder, splits=["train"])
    return sorted({f"{row.speaker}: {row.text}" if row.speaker else row.text for row in rows if row.text})


def train_text_backbone(cfg: DictConfig, folder: Path) -> dict[str, Any]:
    """A LLaMA of the preset ``nano`` with text rows only, in ``folder``; what was trained before is left as it is.

    Sentences are padded, framed by the tokenizer's own ``<s>`` and ``</s>``, and learnt with AdamW under a cosine.

    Returns:
        what REPORT says: sentences, steps, the loss per token at the beginning and at the end.
    """
    if (folder / REPORT).is_file():
        return json.loads((folder / REPORT).read_text(encoding="utf-8"))
    preset = OmegaConf.load(CONFIG_DIR / "lm/nano.yaml")
    texts = sentences_of(cfg)
    tokenizer = train_text_tokenizer(texts, preset.text_tokenizer.vocab_size, folder.parent / "text-tokenizer")
    start, end = tokenizer.bos_token_id, tokenizer.eos_token_id
    encoded = [torch.tensor([start, *ids, end]) for ids in tokenizer(texts, add_special_tokens=False)["input_ids"]]
    torch.manual_seed(0)
    options = OmegaConf.to_container(preset.config, resolve=True)
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), **options))  # type: ignore[arg-type]
    optimiser = torch.optim.AdamW(model.parameters(), lr=2e-3, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, cfg.backbone_steps)
    losses = []
    for step in range(cfg.backbone_steps):
        chosen = np.random.default_rng([0, step]).integers(0, len(encoded), cfg.backbone_docs)
        ids = torch.nn.utils.rnn.pad_sequence([encoded[i] for i in chosen], batch_first=True, padding_value=-100)
        loss = model(input_ids=ids.clamp(min=0), attention_mask=(ids >= 0).long(), labels=ids).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        optimiser.zero_grad()
        losses.append(loss.item())
        if step % 50 == 0 or step == cfg.backbone_steps - 1:
            print(f"text model: step {step + 1}/{cfg.backbone_steps}, loss {losses[-1]:.3f}", flush=True)
    report = {"sentences": len(texts), "steps": cfg.backbone_steps, "first_loss": losses[0], "last_loss": losses[-1]}

    def write(target: Path) -> None:
        model.save_pretrained(target)
        tokenizer.save_pretrained(target)
        (target / REPORT).write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")

    save_folder(folder, write)
    return report
