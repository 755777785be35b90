"""Puts evaluations side by side: one section per kind, items as rows, systems as columns.

A *system* is one row of one evaluation. What is the same in several evaluations (the recordings, say) becomes one
column. Which items are shown is drawn by a seed or ranked by a score, never chosen by hand.
"""

from __future__ import annotations

import filecmp
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from statistics import fmean
from typing import Any

from eval.harness.report import estimate
from page.data import Clip, Evaluation, Item
from page.labels import CONTROLS, KINDS, NOTES, ROWS, Kind, by_characters, direction, in_order, of_family
from training.config import ConfigError

EMPTY = "its place, empty without its weights: python eval/sound_space.py tokenizer=encodec tokenizer.path=FOLDER"
HEADLINES = 6  # metrics of a summary table: more would not fit beside each other
VIEWS = ("random", "best", "worst", "all")


@dataclass
class System:
    """One column.

    Attributes:
        key: names the column in the page.
        names: the evaluations it comes from.
        bitrate: bit/s of the tokenizer that the row went through, and its tokens/s; None for recordings.
    """

    key: str
    row: str
    title: str
    note: str
    sources: list[Evaluation]
    control: bool
    bitrate: float | None
    tokens: float | None

    @property
    def names(self) -> list[str]:
        return list(dict.fromkeys(source.name for source in self.sources))

    def clip(self, id: str) -> Clip | None:
        """The clip of this system, with the scores of all evaluations that it comes from."""
        found = [s.items[id].clips[self.row] for s in self.sources if id in s.items and self.row in s.items[id].clips]
        if not found:
            return None
        scores = {metric: value for clip in reversed(found) for metric, value in clip.scores.items()}
        return replace(found[0], scores=scores, heard={k: v for clip in found for k, v in clip.heard.items()})


@dataclass
class Section:
    """One section of the page.

    Attributes:
        items: in the order of the evaluations; only those that some view shows.
        views: ``{view: ids}``.
        rank: the metrics that best and worst go by; empty where there is no score of that kind.
        total: number of items that the views were taken from.
    """

    kind: Kind
    evaluations: list[Evaluation]
    systems: list[System]
    items: list[Item]
    views: dict[str, list[str]]
    rank: list[str]
    total: int
    remarks: list[str] = field(default_factory=list)

    @property
    def key(self) -> str:
        return "-".join(filter(None, (self.kind.name.replace("_", "-"), self.kind.domain)))

    def score(self, system: System, metric: str) -> dict[str, Any] | None:
        """The summary cell of ``system``: as reported, or over this section's domain alone where the report mixes."""
        for source in system.sources:
            cell = source.table.get(system.row, {}).get(metric)
            if cell is None:
                continue
            ids = self.ids(source)
            if len(ids) == len(source.items):
                return cell
            parts = source.parts.get(system.row, {}).get(metric)
            if parts is None:
                return {**cell, "of": "all domains"}
            if not parts.keys() & source.items.keys():  # counted over more than is shown, and of one kind
                return cell
            found = estimate(metric, {id: (pair[0], pair[1]) for id, pair in parts.items() if id in ids})
            failed = sum(id in ids for failure in cell.get("failures") or [] for id in failure.get("ids", []))
            if found is not None:
                return {"value": found.value, "low": found.low, "high": found.high, "n": found.n, "n_failed": failed}
        return None

    def ids(self, source: Evaluation) -> set[str]:
        """The ids of ``source`` that belong here."""
        return {item.id for item in source.items.values() if belongs(item, self.kind)}

    def metrics(self) -> list[str]:
        """All metrics of the summary, in the order of their first appearance."""
        tables = [source.table.get(system.row, {}) for system in self.systems for source in system.sources]
        return list(dict.fromkeys(metric for table in tables for metric in table))

    @cached_property
    def scores(self) -> dict[str, list[dict[str, Any] | None]]:
        """``{metric: its summary cell of each system}``."""
        return {metric: [self.score(system, metric) for system in self.systems] for metric in self.metrics()}

    def headline(self) -> list[str]:
        """The metrics of the summary table that have a value."""
        chosen = in_order(self.scores, self.kind.headline)
        found = [m for m in chosen if any(cell and cell.get("value") is not None for cell in self.scores[m])]
        return found[:HEADLINES]


def belongs(item: Item, kind: Kind) -> bool:
    """Whether an item of an evaluation of this kind belongs to the section (items without a domain are speech)."""
    return kind.domain is None or (item.domain or "speech") == kind.domain


def make_sections(
    evaluations: Sequence[Evaluation], views: Sequence[str], count: int, seed: int, rank: str | None = None
) -> list[Section]:
    """The sections that the evaluations give, in the order of the page.

    Args:
        views: which of random, best, worst and all are offered.
        count: items of each of the first three.
        rank: the metric (or its first part) that best and worst go by; None takes the kind's own.
    """
    sections = []
    for kind in KINDS:
        own = [e for e in evaluations if e.kind == kind.name and any(belongs(item, kind) for item in e.items.values())]
        if any(e.how.get("headline") == "cer" for e in own):
            kind = by_characters(kind)
        if own:
            sections.append(_section(kind, own, views, count, seed, rank))
    if not sections:
        raise ConfigError("the evaluations hold no items: run them again.")
    if rank and not any(of_family(metric, rank) for section in sections for metric in section.rank):
        raise ConfigError(f"rank: no clip has the score '{rank}', or nobody knows whether more of it is better.")
    return sections


def _section(
    kind: Kind, evaluations: list[Evaluation], views: Sequence[str], count: int, seed: int, rank: str | None
) -> Section:
    ids = [[item.id for item in e.items.values() if belongs(item, kind)] for e in evaluations]
    everything = list(dict.fromkeys(id for own in ids for id in own))
    shared = set.intersection(*map(set, ids))
    common = [id for id in everything if id in shared]
    pool = common or everything
    remarks = []
    if not common:
        remarks.append("The evaluations have no clip in common: nothing here compares them.")
    elif len(pool) < len(everything):
        remarks.append(
            "The evaluations do not cover the same clips, so their means are not comparable. Items are chosen from the "
            f"{len(pool)} that all of them have; {len(everything) - len(pool)} others are left out."
        )
    metrics, ranks = _ranks(kind, evaluations, pool, rank)
    if metrics and (unranked := len(pool) - len(ranks)):
        remarks.append(f"{unranked} items lack a score that best and worst go by, and are in neither.")
    chosen = _views(views, pool, ranks, direction(metrics[0]) if metrics else 1, count, seed)
    shown = {id for found in chosen.values() for id in found}
    items = []
    for id in pool:
        if id in shown:
            item = next(e.items[id] for e in evaluations if id in e.items)
            captions = [e.items[id].captions for e in evaluations if id in e.items]
            items.append(Item(id, item.text, item.speaker, item.domain, max(captions, key=len), {}))
    systems = _systems(kind, evaluations, [item.id for item in items])
    return Section(kind, evaluations, systems, items, chosen, metrics, len(pool), remarks)


def _ranks(
    kind: Kind, evaluations: list[Evaluation], pool: list[str], wanted: str | None
) -> tuple[list[str], dict[str, float]]:
    """The metrics that rank the items, and ``{id: their mean over the judged clips of all evaluations}``.

    Judges differ in what they call good, so that all ranked items have all of these metrics in all of their clips: of
    the kind's first family, those that the most items have.
    """
    judged = [
        {id: e.items[id].clips[kind.judged] for id in pool if id in e.items and kind.judged in e.items[id].clips}
        for e in evaluations
    ]
    for prefix in ([wanted] if wanted else []) + list(kind.rank):
        scores = [m for side in judged for clip in side.values() for m in clip.scores]
        found = {m for m in scores if of_family(m, prefix) and direction(m)}
        clips = {id: own for id in pool if (own := [side[id] for side in judged if id in side])}
        nothing = {  # came out: the worst there is
            id for id, own in clips.items() if any(clip.problem and not found & clip.scores.keys() for clip in own)
        }
        have = {  # metric → items that have it in all their clips
            m: {id for id in clips.keys() - nothing if all(m in clip.scores for clip in clips[id])} for m in found
        }
        if not any(have.values()):
            continue
        ranked = max(have.values(), key=len)
        metrics = sorted(m for m in have if ranked <= have[m])
        ranks = {id: fmean(clip.scores[m] for clip in clips[id] for m in metrics) for id in pool if id in ranked}
        return metrics, ranks | {id: -math.inf * direction(metrics[0]) for id in pool if id in nothing}
    return [], {}


def _views(
    views: Sequence[str], pool: list[str], ranks: dict[str, float], sign: int, count: int, seed: int
) -> dict[str, list[str]]:
    """``{view: ids}``; best and worst only where there is a rank, of which more (``sign`` 1) or less (-1) is better."""
    place = {id: n for n, id in enumerate(pool)}
    ranked = sorted(ranks, key=lambda id: (-sign * ranks[id], place[id]))
    chosen = {
        "random": sorted(random.Random(seed).sample(pool, min(count, len(pool))), key=place.__getitem__),
        "best": ranked[:count],
        "worst": ranked[::-1][:count],
        "all": pool,
    }
    return {view: chosen[view] for view in views if chosen[view]}


def _systems(kind: Kind, evaluations: list[Evaluation], shown: list[str]) -> list[System]:
    """The columns: row by row, within a row in the order of the evaluations; what is the same stands once."""
    of = {id(e): _rows(e, kind) for e in evaluations}
    rows = list(dict.fromkeys(row for own in of.values() for row in own))
    known = [row for row in ROWS if row in rows]
    systems: list[System] = []
    for row in known + [row for row in rows if row not in known]:
        for evaluation in (e for e in evaluations if row in of[id(e)]):
            same = next((s for s in systems if s.row == row and _same(s.sources[0], evaluation, row, shown)), None)
            if same is not None:
                same.sources.append(evaluation)
                continue
            title, note = ROWS.get(row, (row, ""))
            rates = {} if row in ("given", "reference", "silence") else evaluation.tokenizer
            tokens = rates["frame_rate"] * rates["levels"] if {"frame_rate", "levels"} <= set(rates) else None
            systems.append(
                System(
                    f"s{len(systems) + 1}", row, title, NOTES.get((kind.name, row), note), [evaluation],
                    row in CONTROLS or not _has_clips(evaluation, row), rates.get("bitrate"), tokens,
                )
            )  # fmt: skip
    if kind.name == "sound_space" and not any(e.tokenizer.get("name") == "encodec" for e in evaluations):
        systems.append(System(f"s{len(systems) + 1}", "encodec", "EnCodec", EMPTY, [], False, None, None))
    for row in {system.row for system in systems}:  # like columns of unlike content need titles that differ
        alike = [system for system in systems if system.row == row]
        names = [" = ".join(system.names) for system in alike]
        for number, (system, name) in enumerate(zip(alike, names, strict=True), 1):
            if names.count(name) > 1:
                system.title += f" {number}"
            if len(alike) > 1 and row.startswith("reference"):  # whose evaluations the page does not name beside it
                system.title += f" of {name}"
    return sorted(systems, key=lambda system: system.control)  # stable: controls go to the right


def _has_clips(evaluation: Evaluation, row: str) -> bool:
    return any(row in item.clips for item in evaluation.items.values())


def _rows(evaluation: Evaluation, kind: Kind) -> list[str]:
    """The rows with clips of this kind of section, and those that have scores alone."""
    own = {row for item in evaluation.items.values() if belongs(item, kind) for row in item.clips}
    return [row for row in evaluation.rows if row in own or not _has_clips(evaluation, row)]


def _same(first: Evaluation, second: Evaluation, row: str, shown: list[str]) -> bool:
    """Whether the shown clips of a row are byte for byte the same, and no score says otherwise."""
    for id in shown:
        a, b = (e.items[id].clips.get(row) if id in e.items else None for e in (first, second))
        if a is None or b is None:
            return False
        if (a.text, a.said, a.problem) != (b.text, b.said, b.problem) or (a.audio is None) != (b.audio is None):
            return False
        if any(a.scores[metric] != b.scores[metric] for metric in a.scores.keys() & b.scores.keys()):
            return False
        if a.audio is not None and b.audio is not None and not filecmp.cmp(a.audio, b.audio, shallow=False):
            return False
    return True
