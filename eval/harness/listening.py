"""Lets a trained model write about audio: recognition and captioning, through a cache."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from eval.harness.clips import heard_at
from eval.harness.coding import encode_clips
from eval.harness.provenance import record_hash
from eval.harness.report import Report
from eval.harness.run import Run
from eval.harness.score_cache import ScoreCache
from eval.harness.scored import ScoredClip
from eval.harness.speaking import open_model
from tasks.base import Request, Task


@dataclass(frozen=True)
class Written:
    """One text; ``seconds`` is its share of the wall time of its batch."""

    text: str
    ended: bool
    log_probability: float  # mean per token, nats
    seconds: float


class Listener:
    """A model that hears and writes, with its tokenizer.

    Args:
        run: gives tokenizer, device and cache; ``max_tokens`` of the longest text, where null the task's own.
        folder: language model (lm/model.py ``save_lm``).

    Raises:
        VocabularyError: the model belongs to another tokenizer.
    """

    def __init__(self, run: Run, folder: Path, task: Task) -> None:
        self.model, self.how = open_model(run, folder, task)
        self.tokenizer, self.task, self.batch_size = run.tokenizer, task, run.cfg.batch_size
        task.decoding["max_tokens"] = int(run.cfg.max_tokens or task.decoding["max_tokens"])
        self.how |= {"decoding": "greedy", "max_tokens": task.decoding["max_tokens"]}
        self.cache = ScoreCache(run.cache, "written", {k: v for k, v in self.how.items() if k != "folder"})

    def row(self, name: str, clips: Sequence[ScoredClip]) -> list[ScoredClip]:
        """The row ``name`` of what the model writes when it hears ``clips``, as the hypotheses of ``model``."""
        codes = encode_clips(self.tokenizer, heard_at(clips, self.tokenizer.sample_rate))
        written, made = self.listen(codes, name), []
        for clip in clips:
            found = written.get(clip.id)
            scored = ScoredClip(clip.id, name, clip.text, clip.wav if found else None, clip.rate, source=bool(found))
            if found:
                scored.item |= {"hypotheses": {"model": found.text}, "ended": found.ended}
                scored.item["generation_seconds"] = round(found.seconds, 4)
            else:
                scored.item["error"] = clip.item.get("error", "no audio")
            made.append(scored)
        return made

    def listen(self, codes: Mapping[str, NDArray[Any]], desc: str) -> dict[str, Written]:
        """What the model writes about each clip, from codes ``[frames, levels]``; finished batches are kept."""
        rows = [Request(name, codes=part, domain=self.task.domains[0]) for name, part in codes.items()]
        prompts = dict(zip(codes, self.model.prompts(self.task, rows), strict=True))
        keys = {name: record_hash(prompt.ids.tolist()) for name, prompt in prompts.items()}

        def answers(chosen: list[Any]) -> list[list[Any]]:
            start = time.perf_counter()
            texts = self.model.write(chosen, self.batch_size)
            seconds = (time.perf_counter() - start) / len(chosen)
            return [[found.text, found.ended, found.log_probability, seconds] for found in texts]

        shortest_first = sorted(prompts, key=lambda name: len(prompts[name].ids))
        self.cache.fill({keys[name]: prompts[name] for name in shortest_first}, answers, desc, self.batch_size)
        return {name: Written(*self.cache[key]) for name, key in keys.items()}


def file_writing(report: Report, row: str, clips: Sequence[ScoredClip]) -> None:
    """File the shares of texts that hit the limit and that are empty, of a row that a model wrote."""
    written = [clip for clip in clips if "hypotheses" in clip.item]
    report.mean(row, "limit", {clip.id: float(not clip.item["ended"]) for clip in written})
    report.mean(row, "empty", {clip.id: float(not clip.item["hypotheses"]["model"].strip()) for clip in written})
