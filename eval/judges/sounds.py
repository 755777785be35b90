"""Judges of sound and music: distances of embeddings, and how a clip fits its caption."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eval.embedders import Embedder, load_embedder
from eval.embedders.clap import Clap
from eval.harness.audio import CannotScore
from eval.harness.networks import NetworkError
from eval.harness.processes import gather, share
from eval.harness.report import Report
from eval.harness.run import Rows, Run
from eval.harness.score_cache import EmbeddingCache
from eval.harness.scored import ScoredClip, split_usable
from eval.judges.judging import key_of_pair, known_scores, one_by_one, score_clips
from eval.metrics.clap import ClapScore, clip_vector, retrieval
from eval.metrics.classifier import AudioClassifier
from eval.metrics.divergence import PosteriorDivergence
from eval.metrics.frechet import FrechetDistance
from training.config import refusing
from training.progress import progress


def embed_row(
    embedder: Embedder, clips: Sequence[ScoredClip], desc: str, cache_folder: Path | None
) -> tuple[dict[str, Any], dict[str, str]]:
    """``{id: [frames, d]}`` and ``{id: reason}``; what is known for the same audio is not embedded again."""
    cache = EmbeddingCache(cache_folder, f"embedding-{embedder.name}", embedder.how())
    usable, failures = split_usable(clips)
    found: dict[str, NDArray[np.float32]] = {}
    failed: dict[str, str] = {}
    for clip in progress(share(usable), desc=f"{desc}, {len(usable)} clips"):
        try:
            known = cache.get(clip.hash)
            if known is None:
                known = embedder.embed(clip.usable(), clip.rate)
                cache.put(clip.hash, known)
            found[clip.id] = known
        except CannotScore as error:
            failed[clip.id] = error.reason
    found, failed = gather(found, f"embeddings, {desc}"), gather(failed, f"failures, {desc}")
    failures |= {clip.id: failed[clip.id] for clip in usable if clip.id in failed}
    return {clip.id: found[clip.id] for clip in usable if clip.id in found}, failures


def judge_frechet(run: Run, rows: Rows, against: Sequence[ScoredClip]) -> None:
    """File the Fréchet distance of every row to the clips ``against``, and FAD∞ where there are enough frames, in each
    embedding of the configuration. Raises ConfigError.
    """
    report, cache, weights = run.report, run.cache, run.cfg.weights
    for name in run.cfg.embeddings:
        with refusing(NetworkError):
            embedder = load_embedder(name, None if name == "log-mel" else weights[name], run.device, weights.ssl_layer)
        report.how.setdefault("embeddings", {})[name] = embedder.how()
        reference, lost = embed_row(embedder, against, f"{name}, against", cache)
        for row, clips in rows.items():
            found, failures = embed_row(embedder, clips, f"{name}, {row}", cache)
            metric = FrechetDistance(sync_on_compute=False)  # every process has all embeddings here
            for side, is_reference in ((reference, True), (found, False)):
                for of_clip in side.values():
                    metric.update(of_clip, reference=is_reference)
            counts = metric.counts() | {"reference_failed": len(lost)}
            if counts["evaluated_frames"] < 2 or counts["reference_frames"] < 2:
                report.mean(row, f"fad/{name}", {}, failures or {"all": "fewer than 2 embeddings"}, **counts)
                continue
            report.number(row, f"fad/{name}", float(metric.compute()), len(found), None, failures, **counts)
            try:
                infinity = metric.infinity(run.cfg.get("seed", 0))
                report.number(row, f"fad-inf/{name}", infinity, len(found), None, failures, **counts)
            except CannotScore as error:
                report.mean(row, f"fad-inf/{name}", {}, {"all": f"not computed: {error.reason}"}, **counts)


def file_clap(report: Report, path: str, rows: Rows, device: str, cache: Path | None) -> None:
    """File CLAP score and retrieval of every row."""
    clap, score = Clap(path, device), ClapScore().score
    how = clap.how()
    report.how["clap"] = how
    name = f"clap-score/{how['id']}"
    for row, clips in rows.items():
        found, failures = embed_row(clap, clips, f"clap, {row}", cache)
        chosen = [clip for clip in clips if clip.id in found]
        if not chosen:
            report.mean(row, name, {}, failures)
            continue
        texts = clap.embed_texts([clip.text for clip in chosen]).astype(np.float64)
        for clip, text in zip(chosen, texts, strict=True):
            clip.item["clap"] = score(found[clip.id], text)
        report.mean(row, name, {clip.id: clip.item["clap"] for clip in chosen}, failures)
        audio = np.stack([clip_vector(found[clip.id]) for clip in chosen])
        nothing = {clip.id: 0.0 for clip in clips if clip.undelivered()}  # is found by no caption
        others = {name: reason for name, reason in failures.items() if name not in nothing}
        for metric, values in retrieval(texts, audio, range(len(chosen))).items():
            found_at = {clip.id: value for clip, value in zip(chosen, values, strict=True)} | nothing
            report.mean(
                row, f"retrieval/{metric}", found_at, others, clips_to_choose_from=len(chosen), undelivered=len(nothing)
            )  # fmt: skip


def file_divergence(
    report: Report, path: str, rows: Rows, references: Sequence[ScoredClip], device: str, cache: Path | None
) -> None:
    """File the KL of class posteriors of every row to the recording of the same caption."""
    judge, divergence = AudioClassifier(path, device), PosteriorDivergence()
    how = judge.how()
    report.how["classifier"] = how
    posteriors: dict[str, NDArray[np.float64]] = {}

    def posterior(clip: ScoredClip) -> NDArray[np.float64]:
        if clip.hash not in posteriors:
            posteriors[clip.hash] = judge.posterior(clip.usable(), clip.rate)
        return posteriors[clip.hash]

    originals = {clip.id: clip for clip in references}

    def score(clip: ScoredClip) -> float:
        original = originals[clip.id]
        original.usable()
        return divergence.score(posterior(original), posterior(clip))

    name, key = f"kl/{how['id']}", key_of_pair(originals)
    known = known_scores(name, how, cache)
    for row, clips in rows.items():
        if row != "reference":
            report.mean(row, name, *score_clips(known, one_by_one(score), clips, key=key))


def judge_fit(run: Run, rows: Rows, references: Sequence[ScoredClip]) -> None:
    """CLAP score, retrieval and KL to the ``references``, as far as there are weights for them. Raises ConfigError."""
    with refusing(NetworkError):
        if run.cfg.weights.clap:
            file_clap(run.report, run.cfg.weights.clap, rows, run.device, run.cache)
        if run.cfg.weights.classifier:
            file_divergence(run.report, run.cfg.weights.classifier, rows, references, run.device, run.cache)
