"""Files in a report which class a classifier hears in each clip, beside the class that was asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from codec.corpus import Clip
from eval.harness.processes import is_main, wait
from eval.harness.report import Report
from eval.harness.score_cache import ScoreCache
from eval.harness.scored import ScoredClip
from eval.judges.corpus_classifier import ClassifierError, CorpusClassifier, Recipe, classes_of
from eval.judges.judging import known_scores, one_by_one, score_clips

METRICS = ("class-accuracy", "class-accuracy-any")


def rate_classes(
    report: Report,
    row: str,
    judge: CorpusClassifier,
    clips: Sequence[ScoredClip],
    requested: Mapping[str, Sequence[str]],
    told: ScoreCache,
) -> None:
    """File ``class-accuracy``, the share of clips in which ``judge`` hears the requested foreground class before all
    others, and, where clips have several classes, ``class-accuracy-any``: it hears any of those requested. In a clip
    that the system did not deliver nothing is heard (``undelivered`` counts them).

    Args:
        requested: ``{id: classes, the foreground first}``; clips without or with a class that the judge does not know
            are failures.
    """
    known, failures = [], {}
    for clip in clips:
        wanted = requested.get(clip.id) or []
        if wanted and wanted[0] in judge.classes:
            known.append(clip)
        else:
            failures[clip.id] = f"no class in '{judge.record['key']}' that the judge knows"
    classify = one_by_one(lambda clip: list(judge.classify(clip.usable(), clip.rate)))
    found, failed = score_clips(told, classify, known)
    undelivered = {clip.id for clip in known if clip.undelivered()}
    failures |= {name: reason for name, reason in failed.items() if name not in undelivered}
    judged: dict[str, dict[str, Any]] = {}
    for clip in known:
        clip.item.pop(judge.name, None)  # shown as what was requested and what was heard
        if clip.id in found:
            heard, probability = found[clip.id]
            judged[clip.id] = {
                "requested": list(requested[clip.id]), "heard": heard, "probability": round(probability, 4),
            }  # fmt: skip
            clip.item["class"] = judged[clip.id]
    counts = {name: {"n": 0, "right": 0, "heard": 0} for name in judge.classes}  # heard: for whatever was requested
    for item in judged.values():
        asked, heard = item["requested"][0], item["heard"]
        counts[asked]["n"] += 1
        counts[asked]["right"] += int(asked == heard)
        counts[heard]["heard"] += 1
    for name in undelivered:
        counts[requested[name][0]]["n"] += 1
    nothing, missing = dict.fromkeys(sorted(undelivered), 0.0), len(undelivered)
    first = nothing | {name: float(item["heard"] == item["requested"][0]) for name, item in judged.items()}
    report.mean(
        row, METRICS[0], first, failures, chance=1 / len(judge.classes), classes=counts, undelivered=missing
    )  # fmt: skip
    if any(len(wanted) > 1 for wanted in requested.values()):
        among = nothing | {name: float(item["heard"] in item["requested"]) for name, item in judged.items()}
        report.mean(row, METRICS[1], among, failures, undelivered=missing)


def _shared_judge(
    corpus: Sequence[Clip], domain: str, key: str | None, cache_folder: Path | None, recipe: Recipe | None
) -> CorpusClassifier:
    """The classifier; the first process trains it, the others read what it kept."""
    if not is_main():
        wait("training the classifier")
    try:
        return CorpusClassifier.for_corpus(corpus, domain, key, cache_folder, recipe)
    finally:
        if is_main():
            wait("training the classifier")


def judge_classes(
    report: Report,
    rows: Mapping[str, Sequence[ScoredClip]],
    corpus: Sequence[Clip],
    domain: str,
    key: str | None,
    cache_folder: Path | None,
    recipe: Recipe | None = None,
) -> str:
    """File the classes of all rows by a classifier of the corpus; returns a line about the judge for people.

    Args:
        corpus: all clips: those of the train split train the judge, and all say which classes were requested.
        key: metadata column of the classes; None finds it.
    """
    try:
        judge = _shared_judge(corpus, domain, key, cache_folder, recipe)
    except ClassifierError as error:
        for row, clips in rows.items():
            report.mean(row, METRICS[0], {}, {clip.id: f"not computed: {error}" for clip in clips})
        return f"class-accuracy: not computed: {error}"
    report.how["class_judge"] = judge.how()
    told = known_scores(judge.name, judge.how(), cache_folder)
    requested = {clip.id: classes_of(clip, judge.record["key"]) for clip in corpus}
    for row, clips in rows.items():
        rate_classes(report, row, judge, clips, requested, told)
    valid = judge.record["valid_accuracy"]
    trust = f", {100 * valid:.1f} % right on {judge.record['valid_clips']} valid clips" if valid is not None else ""
    return (
        f"class-accuracy: {judge.name} (ours, trained on {judge.record['train_clips']} real train clips{trust}), "
        f"chance {100 / len(judge.classes):.1f} % of {len(judge.classes)} classes"
    )
