"""Runs judges over rows of clips, through the content-addressed cache, and files their scores in a report."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from eval.harness.audio import RESAMPLER
from eval.harness.failures import CannotScore
from eval.harness.processes import gather, share
from eval.harness.report import Report
from eval.harness.score_cache import ScoreCache
from eval.harness.scored import ScoredClip, split_usable
from eval.judges.recognisers.interface import Recogniser
from eval.metrics.mos import DNSMOS, SCORES
from eval.metrics.wer import describe_normaliser, edits, load_normaliser
from tasks.text import headline
from training.progress import progress


def transcribe(judge: Recogniser, clips: Sequence[ScoredClip], cache_folder: Path | None, batch: int = 16) -> None:
    """Set ``item["hypotheses"][judge.name]`` of every usable clip, or ``item["judge_failures"][judge.name]``."""
    failed: dict[str, str] = {}  # hash -> reason
    cache = ScoreCache(cache_folder, judge.name, {**judge.how(), "resampler": RESAMPLER})
    usable, _ = split_usable(clips)
    # equal audio is transcribed once; clips of like length share a batch
    missing = sorted({c.hash: c for c in usable if c.hash not in cache}.values(), key=lambda c: len(c.usable()))
    by_rate: dict[int, list[ScoredClip]] = {}
    for clip in missing:
        by_rate.setdefault(clip.rate, []).append(clip)
    batches = [part[i : i + batch] for part in by_rate.values() for i in range(0, len(part), batch)]
    for chosen in progress(share(batches), desc=f"{judge.name}, {len(missing)} clips"):
        for clip, text in zip(chosen, judge.transcribe([c.usable() for c in chosen], chosen[0].rate), strict=True):
            if isinstance(text, CannotScore):
                failed[clip.hash] = text.reason
            else:
                cache[clip.hash] = text
    cache.gather()
    failed = gather(failed, judge.name)
    for clip in usable:
        if clip.hash in failed:
            clip.item.setdefault("judge_failures", {})[judge.name] = failed[clip.hash]
        else:
            clip.item.setdefault("hypotheses", {})[judge.name] = cache[clip.hash]


def rate_words(
    report: Report, row: str, judge: str, clips: Sequence[ScoredClip], normaliser: str, original: bool = False
) -> None:
    """File word and character error rates of ``judge``'s hypotheses against the clips' texts.

    A clip that the system did not deliver says none of its words: all are deleted (``undelivered`` counts them). A clip
    without a source, a clip that the judge failed on and a clip without words to say are failures, in no rate.

    Args:
        original: against ``item["original_text"]`` instead, as ``wer-original`` (``cer-original`` where characters are
            counted): what shuffled texts are not.
    """
    normalise = load_normaliser(normaliser)
    first = report.how.get("headline", "wer")
    _, unusable = split_usable(clips)
    missing = {c.id: unusable[c.id] for c in clips if c.id in unusable and not c.undelivered()}
    for name in (f"{first}-original",) if original else ("wer", "cer"):
        parts, totals, failed = {}, np.zeros(3, dtype=int), dict(missing)
        undelivered = 0
        for clip in clips:
            if clip.id in missing:
                continue
            if reason := clip.item.get("judge_failures", {}).get(judge):
                failed[clip.id] = f"{judge}: {reason}"
                continue
            reference = clip.item["original_text"] if original else clip.text
            hypothesis = "" if clip.id in unusable else normalise(clip.item["hypotheses"][judge])
            try:
                found = edits(normalise(reference), hypothesis, "word" if name.startswith("wer") else "character")
            except CannotScore as error:
                failed[clip.id] = error.reason
                continue
            undelivered += clip.id in unusable
            parts[clip.id] = (float(found.errors), float(found.units))
            totals += (found.substitutions, found.deletions, found.insertions)
            clip.item.setdefault(name.replace("-", "_"), {})[judge] = found.rate
        rates = [errors / units for errors, units in parts.values()]
        report.rate(
            row, f"{name}/{judge}", parts, failed,
            substitutions=int(totals[0]), deletions=int(totals[1]), insertions=int(totals[2]),
            units=int(sum(units for _, units in parts.values())), undelivered=undelivered,
            mean_of_clips=float(np.mean(rates)) if rates else None,
        )  # fmt: skip


def score_mos(judge: DNSMOS, clips: Sequence[ScoredClip], cache_folder: Path | None) -> dict[str, str]:
    """Set ``item["dnsmos"]`` of the clips; returns ``{id: reason}`` of those without a score."""
    cache = ScoreCache(cache_folder, "dnsmos", {**judge.how(), "resampler": RESAMPLER})
    usable, failures = split_usable(clips)
    by_rate: dict[int, list[ScoredClip]] = {}
    for clip in {c.hash: c for c in usable if c.hash not in cache}.values():
        by_rate.setdefault(clip.rate, []).append(clip)
    failed_hashes: dict[str, str] = {}
    for rate, of_rate in by_rate.items():
        chosen = share(of_rate)
        found = judge.score([c.usable() for c in chosen], rate)
        for index, score in progress(found, total=len(chosen), desc=f"dnsmos, {len(chosen)} clips"):
            if isinstance(score, CannotScore):
                failed_hashes[chosen[index].hash] = score.reason
            else:
                cache[chosen[index].hash] = score
    cache.gather()
    failed_hashes = gather(failed_hashes, "dnsmos")
    for clip in usable:
        if clip.hash in cache:
            clip.item["dnsmos"] = cache[clip.hash]
        else:
            failures[clip.id] = failed_hashes[clip.hash]
    return failures


def rate_mos(report: Report, row: str, clips: Sequence[ScoredClip], failures: Mapping[str, str]) -> None:
    """File the four DNSMOS scores of a row."""
    ids = {clip.id for clip in clips}
    failed = {clip: reason for clip, reason in failures.items() if clip in ids}
    for name in SCORES:
        values = {clip.id: clip.item["dnsmos"][name] for clip in clips if "dnsmos" in clip.item}
        report.mean(row, f"dnsmos/{name}", values, failed)


def score_each(
    name: str,
    score: Callable[[ScoredClip], Any],
    how: Mapping[str, Any],
    clips: Sequence[ScoredClip],
    cache_folder: Path | None,
    key: Callable[[ScoredClip], str] = lambda clip: clip.hash,
) -> tuple[dict[str, Any], dict[str, str]]:
    """``{id: score}`` of a metric that scores clip by clip, and ``{id: reason}`` of the clips without a score.

    Args:
        name: set in each clip's item, and the start of the cache's file name.
        key: what else makes the score besides the audio, for metrics that also look at a reference or a caption.
    """
    cache = ScoreCache(cache_folder, name.replace("/", "-"), {**how, "resampler": RESAMPLER})
    usable, failures = split_usable(clips)
    missing = {key(clip): clip for clip in usable if key(clip) not in cache}
    failed: dict[str, str] = {}
    for place, clip in progress(share(list(missing.items())), desc=f"{name}, {len(missing)} clips"):
        try:
            cache[place] = score(clip)
        except CannotScore as error:
            failed[place] = error.reason
    cache.gather()
    failed = gather(failed, name)
    values = {}
    for clip in usable:
        if key(clip) in failed:
            failures[clip.id] = failed[key(clip)]
        else:
            values[clip.id] = clip.item[name] = cache[key(clip)]
    return values, failures


def how_texts(normaliser: str, texts: Iterable[str | None]) -> dict[str, str]:
    """What a result says about text and resampling; ``headline`` is the rate to look at first, ``wer`` or ``cer``."""
    return {
        "headline": headline(text or "" for text in texts),
        "normaliser": describe_normaliser(normaliser),
        "resampler": RESAMPLER,
        "samples": "as stored, 16 bit",
    }
