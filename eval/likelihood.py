"""Likelihood: how many bits does a language model need for the tokens of unseen clips?

    python eval/likelihood.py                           # newest finished TTS run, else the checkpoint that ships
    python eval/likelihood.py task=text_to_sound limit=100

``bits-per-second`` is the code length of a clip's audio (its codes and its end) divided by its duration. Losses and
perplexities of single tokens cannot be compared between tokenizers with other rates, levels or codebooks; this can.
``perplexity/level-k`` and ``accuracy/level-k`` are per token of level k, given all that comes before it in the clip.

Rows: own-condition (the clip's own text), wrong-condition (another clip's of similar length: what is gained by
reading), unigram (each level's frequencies in the train split, without any context) and uniform (the tokenizer's bit
rate). For a task that writes text there is ``perplexity/text``. Reads token shards, no audio. Writes results.json and
items.jsonl.
"""

from __future__ import annotations

import training.help  # noqa: F401

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig

from codec.corpus import CorpusError, spread
from codec.interface import AudioTokenizer
from codec.shards import INDEX_NAME, Row, ShardError, read_index, read_shards
from codec.shards.token_source import check_corpus, check_current, named_shards, shipped_shards, token_folder
from eval.harness.provenance import record_hash
from eval.harness.report import Report
from eval.harness.run import Run
from eval.harness.score_cache import ScoreCache
from eval.harness.speaking import open_model, run_name
from lm.network.depth import DepthLM, DepthObjective
from lm.network.objective import Objective
from lm.sequences.document_set import render_documents
from lm.sequences.packing import pack_rows
from lm.sequences.vocabulary import AudioVocabulary
from tasks.base import Task
from tasks.document import AudioSegment
from training.config import ConfigError, hydra_entry, refusing

ROWS = ("own-condition", "wrong-condition", "unigram", "uniform")


def find_rows(cfg: DictConfig, tokenizer: AudioTokenizer, task: Task) -> tuple[Path, list[Row], list[Row]]:
    """The folder of token shards, the rows to predict and those of the train split, all of clips that the task takes.

    Raises:
        ConfigError: no shards of this tokenizer, or no such clips in them.
    """
    with refusing(CorpusError, ShardError):
        named = Path(cfg.tokens) if cfg.tokens else named_shards(cfg.data)
        cached = None
        if named is None:
            check_corpus(cfg.data)
            cached = token_folder(cfg.data.root, tokenizer, name=cfg.data.name)
    seen = []
    for place in [named] if named else [place for place in (shipped_shards(cfg.data), cached) if place]:
        if not (place / INDEX_NAME).is_file():
            seen.append(f"{place} is not there")
            continue
        with refusing(CorpusError, ShardError, key="tokens"):
            if place == cached:
                check_current(place, cfg.data.root)
            if not read_index(place).is_of(tokenizer):
                seen.append(f"{place} was made by another tokenizer")
                continue
            rows = read_shards(place)
        # split by split, so that no passage or voice prompt joins clips of two of them
        tested, trained = (task.select([r for r in rows if r.split == name]) for name in (cfg.split, cfg.train_split))
        if tested:
            return place, spread(tested, cfg.limit), trained
        seen.append(f"{place} has no {cfg.split} clips for {task.name}")
    raise ConfigError(f"tokens: {'; '.join(seen)}: make them with `python codec/encode.py data.root={cfg.data.root}`.")


def document_parts(
    model: Any, vocabulary: AudioVocabulary, text_tokenizer: Any, rows: Sequence[Row], task: Task
) -> list[tuple[str, list[torch.Tensor]]]:
    """``(id, [input ids, positions, targets])`` of each clip's document, a batch of one each."""
    deep = isinstance(model, DepthLM)
    documents = render_documents(rows, task, vocabulary, text_tokenizer, 1 << 30, deep)
    pad = vocabulary.control_id("<pad>")
    parts = []
    for place, name in enumerate(documents.ids):
        packed = pack_rows([[documents[place]]], len(documents[place][0]), pad)
        parts.append((name, packed.tensors()))
    return parts


def learnt_codes(task: Task, row: Any) -> np.ndarray:
    """Codes ``[frames, levels]`` that the model learns of ``row``: of a continuation the rest, of a passage all."""
    segments = task.document(row).segments
    return np.concatenate([part.codes for part in segments if isinstance(part, AudioSegment) and part.learn])


@torch.inference_mode()
def clip_sums(objective: Objective, parts: Sequence[torch.Tensor], device: str) -> list[list[float]]:
    """``[bits, right, tokens]`` of one document, each ``[levels + 1]``: the levels, then text and ends."""
    found = objective(*(part.to(device) for part in parts))
    return [(found.loss / math.log(2)).tolist(), found.correct.tolist(), found.count.tolist()]


def unigram_bits(
    clips: Mapping[str, np.ndarray], trained: Sequence[np.ndarray], sizes: Sequence[int]
) -> dict[str, list[float]]:
    """``{id: bits per level}`` of codes ``{id: [frames, levels]}`` by the frequency of each code in ``trained``, every
    code counted once more.
    """
    found: dict[str, list[float]] = {name: [] for name in clips}
    for level, size in enumerate(sizes):
        counts = np.ones(size)
        for codes in trained:
            counts += np.bincount(codes[:, level], minlength=size)
        bits = -np.log2(counts / counts.sum())
        for name, codes in clips.items():
            found[name].append(float(bits[codes[:, level]].sum()))
    return found


def file_sums(
    report: Report, row: str, sums: dict[str, list[list[float]]], frame_rate: float, levels: int, speaks: bool
) -> None:
    """File bits per second, and per level bits per token, perplexity and accuracy, of ``{id: clip_sums}``."""
    if speaks:
        spent = {name: (sum(bits), count[0] / frame_rate) for name, (bits, _, count) in sums.items() if count[0]}
        report.rate(row, "bits-per-second", spent, {name: "no audio" for name in sums if name not in spent})
    kinds = [(f"level-{level + 1}", level) for level in range(levels)] if speaks else [("text", levels)]
    for kind, place in kinds:
        parts = {n: (bits[place], count[place]) for n, (bits, _, count) in sums.items() if count[place]}
        if not parts:
            continue
        report.rate(row, f"bits-per-token/{kind}", parts)
        cell = report.cells[row][f"bits-per-token/{kind}"].record()
        interval = (2 ** cell["low"], 2 ** cell["high"]) if cell["low"] is not None else None
        report.number(row, f"perplexity/{kind}", 2 ** cell["value"], len(parts), interval)
        if all(right for _, right, _ in sums.values()):
            hits = {n: (right[place], count[place]) for n, (_, right, count) in sums.items() if count[place]}
            report.rate(row, f"accuracy/{kind}", hits)


@hydra_entry("eval_likelihood")
def main(cfg: DictConfig) -> None:
    run = Run(cfg)
    task = instantiate(cfg.task)
    folder = run.model(task.name)
    run.load_tokenizer()
    tokenizer = run.tokenizer
    opened, how_model = run.open(open_model, folder, task)
    model, vocabulary, text_tokenizer = opened.network, opened.vocabulary, opened.text_tokenizer
    place, rows, trained = find_rows(cfg, tokenizer, task)
    run.take(run_name(folder), f"eval-likelihood-{task.name}")
    run.say(f"{len(rows)} clips of {place} ({cfg.split}), model {folder}")
    speaks = task.target == "audio"
    report = run.begin(
        ROWS if speaks else ROWS[:2],
        {
            "split": cfg.split,
            "clips": record_hash([[c.id, c.sha256, c.text, c.captions] for r in rows for c in getattr(r, "rows", [r])]),
            "train_clips": len(trained),
        },
        "torch transformers numpy",
        task=task.name, over=cfg.over, model=how_model,
    )  # fmt: skip

    # ---- the model -------------------------------------------------------------------------------------------------
    kind = DepthObjective if isinstance(model, DepthLM) else Objective
    objective = kind(model, vocabulary, cfg.over == "legal").to(run.device).eval()
    judged = {key: value for key, value in how_model.items() if key != "folder"}
    sums: dict[str, dict[str, list[list[float]]]] = {}
    conditions: dict[str, list[Any]] = {"own-condition": list(rows)}
    if len(rows) > 1:
        # neighbours in length swap, so that a wrong condition is not betrayed by its length
        order = sorted(rows, key=lambda row: (len(row.codes), row.id))
        other = {row.id: order[(i + 1) % len(order)] for i, row in enumerate(order)}
        conditions["wrong-condition"] = [task.with_condition_of(row, other[row.id]) for row in rows]
    scores = ScoreCache(run.cache, "likelihood", judged | {"over": cfg.over})
    for row_name, members in conditions.items():
        parts = document_parts(model, vocabulary, text_tokenizer, members, task)
        keys = {name: record_hash([part.tolist() for part in inputs]) for name, inputs in parts}
        scores.fill(
            {keys[name]: inputs for name, inputs in parts},
            lambda chosen: [clip_sums(objective, inputs, run.device) for inputs in chosen],
            row_name,
        )
        sums[row_name] = {name: scores[key] for name, key in keys.items()}
        file_sums(report, row_name, sums[row_name], tokenizer.frame_rate, vocabulary.levels, speaks)

    # ---- what needs no model -------------------------------------------------------------------------------------
    learnt: dict[str, np.ndarray] = {}
    if speaks:
        sizes = tokenizer.codebook_sizes
        learnt = {row.id: learnt_codes(task, row) for row in rows}
        if trained:
            bits = unigram_bits(learnt, [learnt_codes(task, row) for row in trained], sizes)
            file_sums(report, "unigram", _as_sums(learnt, bits), tokenizer.frame_rate, len(sizes), True)
        flat = {name: [len(codes) * math.log2(size) for size in sizes] for name, codes in learnt.items()}
        file_sums(report, "uniform", _as_sums(learnt, flat), tokenizer.frame_rate, len(sizes), True)
    metric = "bits-per-second" if speaks else "bits-per-token/text"
    report.difference(metric, "wrong-condition", "own-condition")
    report.difference(metric, "unigram", "own-condition")
    items = [
        {"id": row.id, "row": name, "frames": len(learnt.get(row.id, row.codes)), "bits": found[row.id][0]}
        for name, found in sums.items()
        for row in rows
        if row.id in found
    ]
    run.finish(items, wrote="results.json and items.jsonl")


def _as_sums(clips: Mapping[str, np.ndarray], bits: dict[str, list[float]]) -> dict[str, list[list[float]]]:
    """Bits per level in the form of ``clip_sums``, without ends and without anything right or wrong."""
    found = {}
    for name, codes in clips.items():
        tokens = [float(len(codes))] * len(bits[name])
        found[name] = [[*bits[name], 0.0], [], [*tokens, 0.0]]
    return found


if __name__ == "__main__":
    main()
