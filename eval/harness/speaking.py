"""Lets a trained text-to-speech model speak: finds the model, generates codes through a cache, decodes them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from codec.interface import AudioTokenizer, Codes
from eval.harness.processes import gather, share
from eval.harness.provenance import folder_hash, record_hash
from eval.harness.score_cache import ScoreCache
from lm.generation.frames import generate
from lm.generation.sampling import Sampling
from lm.generation.speak import limits_of
from lm.model import load_lm
from lm.run_state import normalisation_of
from lm.sequences.documents import render
from tasks.base import Task
from tasks.text import normalisers
from training.config import refusing
from training.progress import progress

LENGTHS = ("least_per_character", "most_per_character", "max_seconds")  # of a task's decoding


@dataclass(frozen=True)
class Spoken:
    """One generated clip; ``seconds`` is its share of the wall time of its batch."""

    codes: NDArray[np.int64]  # [frames, levels]
    ended: bool
    legal: bool
    seconds: float


def open_model(
    folder: Path, tokenizer: AudioTokenizer, task: Task, device: str
) -> tuple[Any, Any, Any, dict[str, Any]]:
    """Model, vocabulary and text tokenizer in ``folder``, and what a result records about them.

    ``task`` takes over the normalisation with which the model was trained.

    Raises:
        VocabularyError: the model belongs to another tokenizer.
    """
    model, vocabulary, text_tokenizer = load_lm(folder, device)
    vocabulary.check_tokenizer(tokenizer.describe(), f"tokenizer {tokenizer.name}")
    task.use_normaliser(normalisers(normalisation_of(folder)))  # texts as the model learnt them
    names = [path.name for path in folder.iterdir() if path.suffix in (".safetensors", ".json", ".model")]
    how = {
        "folder": folder.as_posix(),
        "sha256": folder_hash(folder, [name for name in names if name != "state.json"]),
        "parameters": sum(p.numel() for p in model.parameters()),
        "device": torch.device(device).type,
        "torch": torch.__version__,
    }
    return model, vocabulary, text_tokenizer, how


class Speaker:
    """A model that speaks or makes sound from text, with its tokenizer.

    Args:
        folder: language model (lm/model.py ``save_lm``).
        tokenizer: must be the one whose tokens the model learnt.
        max_seconds: of audio per clip; a clip that reaches it has hit the limit. None: the task's own limits.
        cache_folder: None generates everything anew.

    Raises:
        VocabularyError: the model belongs to another tokenizer.
    """

    def __init__(
        self,
        folder: Path,
        tokenizer: AudioTokenizer,
        task: Task,
        sampling: Sampling,
        max_seconds: float | None,
        device: str,
        cache_folder: Path | None,
    ) -> None:
        self.model, self.vocabulary, self.text_tokenizer, self.how = open_model(folder, tokenizer, task, device)
        with refusing(ValueError):
            sampling.check_levels(self.vocabulary.levels)
        self.tokenizer, self.task, self.sampling = tokenizer, task, sampling
        self.max_frames = int(max_seconds * tokenizer.frame_rate) if max_seconds is not None else None
        own = {key: task.decoding[key] for key in LENGTHS if key in task.decoding}
        self.how |= {"sampling": asdict(sampling), "max_frames": own if self.max_frames is None else self.max_frames}
        self.cache = ScoreCache(cache_folder, "generated", {k: v for k, v in self.how.items() if k != "folder"})

    def speak(self, requests: Sequence[Any], seeds: Sequence[int], batch_size: int, desc: str) -> list[Spoken]:
        """Generate a clip per request (what the task's documents are made of); finished batches are kept, so that a
        killed run goes on.
        """
        prompts = [
            render(self.task.document(request, with_target=False), self.vocabulary, self.text_tokenizer).ids
            for request in requests
        ]
        if self.max_frames is None:
            least, most = limits_of(self.task, requests, self.tokenizer.frame_rate)
        else:
            least, most = [1] * len(requests), [self.max_frames] * len(requests)
        keys = [record_hash([np.asarray(p).tolist(), s]) for p, s in zip(prompts, seeds, strict=True)]
        missing = sorted((i for i, key in enumerate(keys) if key not in self.cache), key=lambda i: len(prompts[i]))
        parts = [missing[i : i + batch_size] for i in range(0, len(missing), batch_size)]
        for chosen in progress(share(parts), desc=f"{desc}, {len(missing)} clips"):
            start = time.perf_counter()
            clips = generate(
                self.model, self.vocabulary, [prompts[i] for i in chosen], [most[i] for i in chosen],
                [least[i] for i in chosen], sampling=self.sampling, seeds=[seeds[i] for i in chosen],
                batch_size=batch_size,
            )  # fmt: skip
            seconds = (time.perf_counter() - start) / len(chosen)
            for i, clip in zip(chosen, clips, strict=True):
                self.cache[keys[i]] = {
                    "codes": clip.codes.tolist(), "ended": clip.ended, "legal": clip.legal, "seconds": seconds,
                }  # fmt: skip
        self.cache.gather()
        stored = [self.cache[key] for key in keys]
        levels = self.vocabulary.levels
        return [
            Spoken(np.array(s["codes"], dtype=np.int64).reshape(-1, levels), s["ended"], s["legal"], s["seconds"])
            for s in stored
        ]


def run_name(folder: Path) -> str:
    """The run that made the model in ``folder``: ``runs/my-run/final`` → ``my-run``."""
    return folder.parent.name if folder.name == "final" else folder.name


def decode_clips(tokenizer: AudioTokenizer, clips: Sequence[NDArray[np.int64]], batch_size: int = 8) -> list[Any]:
    """Waveforms ``[samples]`` of codes ``[frames, levels]``; None for a clip without frames."""
    waves: dict[int, Any] = {}
    order = sorted((i for i in range(len(clips)) if len(clips[i])), key=lambda i: len(clips[i]))
    device = getattr(tokenizer, "device", "cpu")
    for chosen in share([order[start : start + batch_size] for start in range(0, len(order), batch_size)]):
        codes = Codes.from_clips([torch.from_numpy(clips[i]) for i in chosen])
        out = tokenizer.decode(Codes(codes.codes.to(device), codes.lengths.to(device))).float().cpu().numpy()
        for row, i in zip(out, chosen, strict=True):
            waves[i] = row[: len(clips[i]) * tokenizer.samples_per_frame].copy()
    waves = gather(waves, "decoding")
    return [waves.get(i) for i in range(len(clips))]


def resynthesise(
    tokenizer: AudioTokenizer, waves: Sequence[NDArray[np.float32]], batch_size: int = 8
) -> tuple[list[NDArray[np.float32]], list[NDArray[np.int64]]]:
    """Waveforms ``[samples]`` at the tokenizer's rate through the codec, and codes ``[frames,
    levels]``.
    """
    found: dict[int, tuple[Any, Any]] = {}  # place → output, codes
    order = sorted(range(len(waves)), key=lambda i: len(waves[i]))
    device = getattr(tokenizer, "device", "cpu")
    for chosen in share([order[start : start + batch_size] for start in range(0, len(order), batch_size)]):
        lengths = torch.tensor([len(waves[i]) for i in chosen])
        batch = torch.zeros(len(chosen), int(lengths.max()))
        for row, i in zip(batch, chosen, strict=True):
            row[: len(waves[i])] = torch.from_numpy(waves[i])
        codes = tokenizer.encode(batch.to(device), lengths.to(device))
        out = tokenizer.decode(codes).float().cpu().numpy()
        for number, i in enumerate(chosen):
            found[i] = out[number, : len(waves[i])].copy(), codes.clip(number).cpu().numpy()
    found = gather(found, "resynthesis")
    return [found[i][0] for i in range(len(waves))], [found[i][1] for i in range(len(waves))]
