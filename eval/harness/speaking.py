"""Lets a trained text-to-speech model speak: finds the model, generates codes through a cache, decodes them."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from codec.interface import AudioTokenizer
from eval.harness.audio import Wave
from eval.harness.coding import decode_clips
from eval.harness.endings import ENDINGS, early_stops, goes_round, recurring_seconds
from eval.harness.provenance import record_hash
from eval.harness.report import Report
from eval.harness.run import Run
from eval.harness.score_cache import ScoreCache
from eval.harness.scored import ScoredClip, as_stored, split_usable
from lm.audio_model import AudioModel
from lm.generation.asking import sampling_of
from tasks.base import Request, Task
from training.config import refusing
from training.identity import folder_hash

GENERATION = (*ENDINGS, "legal", "silent", "duration-ratio", "real-time-factor")  # what `file_generation` files
SILENCE = 1e-3  # peak below which a clip is silent: -60 dB of full scale
LENGTHS = ("least_per_character", "most_per_character", "max_seconds")  # of a task's decoding


@dataclass(frozen=True)
class Spoken:
    """One generated clip; ``seconds`` is its share of the wall time of its batch."""

    codes: NDArray[np.int64]  # [frames, levels]
    ended: bool
    legal: bool
    seconds: float

    def scored(self, name: str, row: str, text: str, wav: Wave | None, tokenizer: AudioTokenizer) -> ScoredClip:
        """The clip ``name`` of ``row``; ``wav`` is its audio, None where the model made none."""
        item: dict[str, Any] = {} if wav is not None else {"error": "the model generated no audio"}
        item |= {"ended": self.ended, "legal": self.legal, "frames": len(self.codes)}
        item["recurring_seconds"] = round(recurring_seconds(self.codes, tokenizer.frame_rate), 3)
        item["generation_seconds"] = round(self.seconds, 4)
        return ScoredClip(name, row, text, None if wav is None else as_stored(wav), tokenizer.sample_rate, item)


def open_model(run: Run, folder: Path, task: Task) -> tuple[AudioModel, dict[str, Any]]:
    """The model in ``folder`` with the run's tokenizer, and what a result records about it.

    ``task`` takes over the normalisation with which the model was trained.

    Raises:
        VocabularyError: the model belongs to another tokenizer.
    """
    model = AudioModel(folder, run.tokenizer, run.device)
    with refusing(ValueError):
        model.adopt(task)
    names = [path.name for path in folder.iterdir() if path.suffix in (".safetensors", ".json", ".model")]
    how = {
        "folder": folder.as_posix(),
        "sha256": folder_hash(folder, [name for name in names if name != "state.json"]),
        "parameters": sum(p.numel() for p in model.network.parameters()),
        "device": torch.device(run.device).type,
        "torch": torch.__version__,
    }
    return model, how


class Speaker:
    """A model that speaks or makes sound from text, with the run's tokenizer, whose tokens it must have learnt.

    Args:
        run: gives tokenizer, sampling, device and cache; ``max_seconds`` of audio per clip, a clip that reaches them
            has hit the limit. Where the configuration has none: the task's own limits.
        folder: language model (lm/model.py ``save_lm``).

    Raises:
        VocabularyError: the model belongs to another tokenizer.
    """

    def __init__(self, run: Run, folder: Path, task: Task) -> None:
        self.tokenizer, self.task = run.tokenizer, task
        self.model, self.how = open_model(run, folder, task)
        with refusing(ValueError):
            self.sampling = sampling_of(run.cfg, task)
            self.sampling.check_levels(self.model.vocabulary.levels)
        self.seed, self.batch_size, self.max_seconds = run.cfg.seed, run.cfg.batch_size, run.cfg.get("max_seconds")
        limits: Any = {key: task.decoding[key] for key in LENGTHS if key in task.decoding}
        if self.max_seconds is not None:
            limits = int(self.max_seconds * self.tokenizer.frame_rate)
        self.how |= {"sampling": asdict(self.sampling), "max_frames": limits}
        self.cache = ScoreCache(run.cache, "generated", {k: v for k, v in self.how.items() if k != "folder"})

    def row(self, name: str, requests: Sequence[Request], texts: Sequence[str]) -> list[ScoredClip]:
        """The row ``name`` of what the model makes of the requests; ``texts`` are what it should say."""
        spoken = self.speak(requests, [self.seed + i for i in range(len(requests))], name)
        waves = decode_clips(self.tokenizer, [found.codes for found in spoken])
        made = zip(requests, texts, spoken, waves, strict=True)
        return [found.scored(r.id, name, text, wav, self.tokenizer) for r, text, found, wav in made]

    def speak(self, requests: Sequence[Any], seeds: Sequence[int], desc: str) -> list[Spoken]:
        """Generate a clip per request (what the task's documents are made of); finished batches are kept, so that a
        killed run goes on.
        """
        prompts = self.model.prompts(self.task, requests, self.max_seconds)
        asked = [[number for part in prompt.parts for number in part.ids.tolist()] for prompt in prompts]
        keys = [record_hash([ids, seed]) for ids, seed in zip(asked, seeds, strict=True)]

        def said(chosen: list[int]) -> list[dict[str, Any]]:
            start = time.perf_counter()
            found = self.model.generate(
                [prompts[i] for i in chosen], self.sampling, [seeds[i] for i in chosen], batch_size=self.batch_size
            )
            seconds = (time.perf_counter() - start) / len(chosen)
            return [
                {"codes": clip.codes.tolist(), "ended": clip.ended, "legal": clip.legal, "seconds": seconds}
                for clip, _ in found
            ]

        shortest_first = sorted(range(len(prompts)), key=lambda i: len(asked[i]))
        self.cache.fill({keys[i]: i for i in shortest_first}, said, desc, self.batch_size)
        stored = [self.cache[key] for key in keys]
        levels = self.model.vocabulary.levels
        return [
            Spoken(np.array(s["codes"], dtype=np.int64).reshape(-1, levels), s["ended"], s["legal"], s["seconds"])
            for s in stored
        ]


def run_name(folder: Path) -> str:
    """The run that made the model in ``folder``: ``runs/my-run/final`` → ``my-run``."""
    return folder.parent.name if folder.name == "final" else folder.name


def file_generation(report: Report, row: str, clips: Sequence[ScoredClip], recorded: Iterable[ScoredClip]) -> None:
    """File the share of silent clips, and of what a model made: length relative to the recordings and clips that stop
    early (not in a shuffled row, whose texts have others), shares of clips that hit the limit, that go round in circles
    and that are legal, and speed.
    """
    heard = {clip.id: clip.seconds for clip in clips if clip.wav is not None}
    _, failures = split_usable(clips)
    silent = {clip.id: float(np.abs(clip.wav).max() < SILENCE) for clip in clips if clip.wav is not None}
    report.mean(row, "silent", silent, failures)
    if row == "generated":
        lengths = {clip.id: clip.seconds for clip in recorded if clip.wav is not None}
        ratios = {name: seconds / lengths[name] for name, seconds in heard.items() if name in lengths}
        if lengths:
            report.mean(row, "duration-ratio", ratios, failures)
        report.mean(row, "early-stop", early_stops([clip for clip in clips if clip.source], lengths))
    if all("ended" in clip.item for clip in clips):  # not the audio of another system
        report.mean(row, "limit", {clip.id: float(not clip.item["ended"]) for clip in clips})
        report.mean(row, "repeated-codes", {clip.id: goes_round(clip.item) for clip in clips})
        report.mean(row, "legal", {clip.id: float(clip.item["legal"]) for clip in clips})
        file_speed(report, row, clips)


def file_speed(report: Report, row: str, clips: Sequence[ScoredClip]) -> None:
    """File seconds of work per second of audio, over clips that were generated or written about."""
    audio = sum(clip.seconds for clip in clips)
    if audio:
        report.number(row, "real-time-factor", sum(c.item["generation_seconds"] for c in clips) / audio, len(clips))
