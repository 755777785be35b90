"""Lets a trained model write about audio: recognition and captioning, through a cache."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from codec.interface import AudioTokenizer
from eval.harness.audio import Wave
from eval.harness.processes import gather, share
from eval.harness.provenance import record_hash
from eval.harness.score_cache import ScoreCache
from eval.harness.speaking import open_model
from lm.generation.writing import write
from lm.sequences.documents import render
from tasks.base import Request, Task
from training.progress import progress


@dataclass(frozen=True)
class Written:
    """One text; ``seconds`` is its share of the wall time of its batch."""

    text: str
    ended: bool
    log_probability: float  # mean per token, nats
    seconds: float


def encode_clips(
    tokenizer: AudioTokenizer, waves: Mapping[str, Wave], batch_size: int = 8
) -> dict[str, NDArray[np.int64]]:
    """Codes ``[frames, levels]`` of clips ``[samples]`` at the tokenizer's rate."""
    device = getattr(tokenizer, "device", "cpu")
    names = sorted(waves, key=lambda name: len(waves[name]))
    found: dict[str, NDArray[np.int64]] = {}
    batches = [names[start : start + batch_size] for start in range(0, len(names), batch_size)]
    for chosen in progress(share(batches), desc=f"encoding, {len(names)} clips"):
        lengths = torch.tensor([len(waves[name]) for name in chosen])
        batch = torch.zeros(len(chosen), int(lengths.max()))
        for row, name in zip(batch, chosen, strict=True):
            row[: len(waves[name])] = torch.from_numpy(waves[name])
        codes = tokenizer.encode(batch.to(device), lengths.to(device))
        for number, name in enumerate(chosen):
            found[name] = codes.clip(number).cpu().numpy()
    found = gather(found, "encoding")
    return {name: found[name] for name in names}


class Listener:
    """A model that hears and writes, with its tokenizer.

    Args:
        folder: language model (lm/model.py ``save_lm``).
        tokenizer: must be the one whose tokens the model learnt.
        max_tokens: longest text; None: the task's own.
        cache_folder: None writes everything anew.

    Raises:
        VocabularyError: the model belongs to another tokenizer.
    """

    def __init__(
        self,
        folder: Path,
        tokenizer: AudioTokenizer,
        task: Task,
        max_tokens: int | None,
        device: str,
        cache_folder: Path | None,
    ) -> None:
        self.model, self.vocabulary, self.text_tokenizer, self.how = open_model(folder, tokenizer, task, device)
        self.task, self.max_tokens = task, int(max_tokens or task.decoding["max_tokens"])
        self.how |= {"decoding": "greedy", "max_tokens": self.max_tokens}
        self.cache = ScoreCache(cache_folder, "written", {k: v for k, v in self.how.items() if k != "folder"})

    def listen(
        self, codes: Mapping[str, NDArray[np.int64]], domain: str, batch_size: int, desc: str
    ) -> dict[str, Written]:
        """What the model writes about each clip, from codes ``[frames, levels]``; finished batches are kept."""
        prompts = {
            name: render(
                self.task.document(Request(name, codes=part, domain=domain), with_target=False),
                self.vocabulary,
                self.text_tokenizer,
            ).ids
            for name, part in codes.items()
        }
        keys = {name: record_hash(np.asarray(prompt).tolist()) for name, prompt in prompts.items()}
        missing = sorted({key: n for n, key in keys.items() if key not in self.cache}.values(),
                         key=lambda name: len(prompts[name]))  # fmt: skip
        parts: list[Sequence[str]] = [missing[i : i + batch_size] for i in range(0, len(missing), batch_size)]
        for chosen in progress(share(parts), desc=f"{desc}, {len(missing)} clips"):
            start = time.perf_counter()
            texts = write(
                self.model, self.vocabulary, self.text_tokenizer, [prompts[name] for name in chosen],
                max_tokens=self.max_tokens, batch_size=batch_size,
            )  # fmt: skip
            seconds = (time.perf_counter() - start) / len(chosen)
            for name, found in zip(chosen, texts, strict=True):
                self.cache[keys[name]] = [found.text, found.ended, found.log_probability, seconds]
        self.cache.gather()
        return {name: Written(*self.cache[key]) for name, key in keys.items()}
