"""What evaluation folders hold (``results.json``, ``items.jsonl``, ``clips.json``), read for the demo page.

An evaluation has *rows* (reference, resynthesis, generated, …) and items with a *clip* in every row: audio, text or
both. Nothing here touches audio, and nothing here knows how many evaluations the page sets side by side.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from eval.harness.results import is_number, name_of, read_record, read_results
from page.faults import fault_of_grid, fault_of_item, fault_of_space
from page.labels import CONTROLS, KINDS, NAMES
from page.words import word_changes
from training.config import ConfigError

NO_SCORES = ("seconds", "frames", "generation_seconds")  # numbers of an item that are none


@dataclass
class Clip:
    """One item in one row.

    Attributes:
        audio: None where there is none; ``problem`` then says why, unless text is all that the row has.
        said: what a model wrote, for the kinds that write.
        heard: per recogniser (or for the model itself), what was heard beside what the text says.
        scores: ``{metric: value}`` of this clip.
        notes: what else is to be known, as sentences.
        holds: where a walk stands at its way-points, from and to in seconds.
    """

    row: str
    text: str
    audio: Path | None = None
    seconds: float | None = None
    said: str | None = None
    heard: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    scores: dict[str, float] = field(default_factory=dict)
    flags: list[str] = field(default_factory=list)
    problem: str | None = None
    notes: list[str] = field(default_factory=list)
    holds: list[list[float]] = field(default_factory=list)


@dataclass
class Item:
    """One item of an evaluation with its clips by row."""

    id: str
    text: str
    speaker: str
    domain: str
    captions: list[str]
    clips: dict[str, Clip]


@dataclass
class Evaluation:
    """One evaluation folder."""

    folder: Path
    kind: str
    name: str
    rows: list[str]
    items: dict[str, Item]
    table: dict[str, dict[str, dict[str, Any]]]  # row → metric → {value, low, high, n, n_failed, failures}
    differences: list[dict[str, Any]]  # {metric, row, against, value, low, high, n}
    how: dict[str, Any]
    parts: dict[str, dict[str, dict[str, list[float]]]] = field(default_factory=dict)  # row → metric → id → sums
    space: dict[str, Any] | None = None  # points.json of eval/latents.py
    grid: dict[str, Any] | None = None  # grid.json of eval/sound_space.py

    @property
    def tokenizer(self) -> dict[str, Any]:
        """What the evaluation says of its tokenizer."""
        found = self.how.get("tokenizer")
        return found if isinstance(found, dict) else {}


def kind_of(folder: Path, how: dict[str, Any], first: dict[str, Any]) -> str | None:
    """The kind of an evaluation, from what its script records, else from the folder's name; None if unknown.

    Args:
        first: the first line of its items.
    """
    named = how.get("task")
    if isinstance(named, str) and named in NAMES:
        return named
    domain = first.get("domain")
    if "captions" in first:
        return "music_captioning" if domain == "music" else "audio_captioning"
    if "comparison" in how:
        return "reconstruction"
    if "probe" in how:  # eval/semantics.py: there is nothing to hear
        return None
    if "against" in (how.get("corpus") or {}):
        return "text_to_music" if domain == "music" else "text_to_sound"
    name = folder.name.removeprefix("eval-")
    if name in NAMES:
        return name
    if "recognisers" in how:
        return "asr" if "model" in (first.get("hypotheses") or {}) else "tts"
    return None


def newest_evaluations(runs: Path) -> list[Path]:
    """For each kind of section the evaluation under ``runs`` that was finished last, as its ``results.json`` says."""
    results = {path: read_record(path) for path in sorted(runs.glob("*/eval-*/results.json"))}
    chosen: dict[tuple[str, str | None], Path] = {}
    # the file's own time is of use for older evaluations only, which do not say theirs: a copy has another
    for path in sorted(results, key=lambda p: (results[p].get("finished", 0), p.stat().st_mtime), reverse=True):
        lines = read_items(path.parent, 1)
        how = results[path].get("how") or {}
        kind = kind_of(path.parent, how, lines[0] if lines else {})
        domains = (how.get("corpus") or {}).get("domains") or ["speech"]
        for section in KINDS:
            if section.name == kind and (section.domain is None or section.domain in domains):
                chosen.setdefault((section.name, section.domain), path.parent)
    if not chosen:
        raise ConfigError(f"there is no evaluation under {runs}/ yet: run `python eval/tts.py` first.")
    return list(dict.fromkeys(chosen.values()))


def read_evaluation(folder: Path) -> Evaluation:
    """Read one evaluation folder; a file that is missing or malformed is one sentence naming it."""
    results, parts = read_results(folder)
    lines = read_items(folder)
    how = results.get("how") or {}
    kind = kind_of(folder, how, lines[0] if lines else {})
    if kind is None:
        raise ConfigError(
            f"{folder}: nothing says which kind of evaluation this is; a folder is called eval-KIND, "
            f"with KIND one of {', '.join(NAMES)}."
        )
    items: dict[str, Item] = {}
    for line in lines:
        item = items.setdefault(line["id"], _item(line))
        item.captions = max(item.captions, list(line.get("captions") or []), key=len)
        item.clips[line["row"]] = _clip(line, folder, kind)
    if kind.endswith("captioning"):
        for item in items.values():
            _give_recording(item)
    found = list(dict.fromkeys(row for item in items.values() for row in item.clips))
    for row, metric, id, (numerator, denominator) in _class_parts(parts):
        if id in items and row in items[id].clips and denominator:
            items[id].clips[row].scores[metric] = numerator / denominator
    space = grid = None
    if kind == "latents" and (points := folder / "points.json").is_file():
        space = read_record(points)
        if fault := fault_of_space(space):
            raise ConfigError(f"{points} {fault}; run the evaluation again.")
    if kind == "sound_space" and (moved := folder / "grid.json").is_file():
        grid = read_record(moved)
        if fault := fault_of_grid(grid, folder):
            raise ConfigError(f"{moved} {fault}; run the evaluation again.")
    if kind == "latents":  # its controls are scored and not heard
        found += [row for row in results["rows"] if row not in found]
    return Evaluation(
        folder=folder,
        kind=kind,
        name=name_of(folder),
        rows=found,
        items=items,
        table=results["rows"],
        differences=_between_rows(results.get("differences", [])),
        how=how,
        parts=parts,
        space=space,
        grid=grid,
    )


def _class_parts(parts: dict[str, Any]) -> Iterator[tuple[str, str, str, list[float]]]:
    """The scores of classes, which the items do not hold: (row, metric, id, [numerator, denominator])."""
    for row, metrics in parts.items():
        for metric, clips in metrics.items():
            if metric.startswith("class-"):
                yield from ((row, metric, id, pair) for id, pair in clips.items())


def _between_rows(differences: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The paired differences of one metric between two rows, flattened; others belong to the report alone."""
    return [
        {**found, "metric": found["of"]["metric"], "row": found["of"]["row"], "against": found["minus"]["row"]}
        for found in differences
        if found["of"]["metric"] == found["minus"]["metric"]
    ]


def _item(line: dict[str, Any]) -> Item:
    text, speaker, domain = (line.get(name) or "" for name in ("text", "speaker", "domain"))
    return Item(line["id"], text, speaker, domain, [], {})


def _give_recording(item: Item) -> None:
    """What a captioner heard is filed with its captions; on the page it belongs to the people's column."""
    heard = next((clip for clip in item.clips.values() if clip.audio is not None), None)
    if heard is None:
        return
    own = item.clips.setdefault("reference", Clip("reference", item.text))
    if own is not heard:
        own.audio, own.seconds, heard.audio, heard.seconds = heard.audio, heard.seconds, None, None
    item.clips = {"reference": own, **item.clips}


def _clip(line: dict[str, Any], folder: Path, kind: str) -> Clip:
    text = line.get("text") or ""
    audio, problem = None, line.get("error") or None
    hypotheses = {name: said or "" for name, said in (line.get("hypotheses") or {}).items()}
    said = line.get("caption")
    if kind == "asr" and "model" in hypotheses:
        said = hypotheses["model"]
    if line.get("audio"):
        audio = folder / line["audio"]
        if not audio.resolve().is_relative_to(folder.resolve()):
            raise ConfigError(f"{folder / 'items.jsonl'}: '{line['audio']}' leads out of the evaluation folder.")
        if not os.path.isfile(audio):  # unlike Path's, False for a name that is too long, too
            audio, problem = None, f"{line['audio']} is missing"
    elif problem is None and said is None and not kind.endswith(("asr", "captioning")) and line["row"] not in CONTROLS:
        problem = "there is no audio"
    heard = {name: word_changes(text, words) for name, words in hypotheses.items()} if text else {}
    flags = []
    if line.get("ended") is False:
        flags.append("cut off at the length limit")
    if line.get("legal") is False:
        flags.append("illegal tokens")
    return Clip(
        line["row"], text, audio, line.get("seconds"), said, heard, _scores(line), flags, problem, _notes(line),
        line.get("holds") or [],
    )  # fmt: skip


def _notes(line: dict[str, Any]) -> list[str]:
    """What judges of classes found, and whose clip a shuffled one is."""
    notes = []
    judged = line.get("class") or {}
    if judged.get("heard"):
        asked = ", ".join(judged.get("requested") or [])
        share = 100 * (judged.get("probability") or 0)
        notes.append(f"heard as {judged['heard']} ({share:.0f} %), asked: {asked}")
    if line.get("classes_named"):
        notes.append(f"names: {', '.join(line['classes_named'])}")
    notes += [f"{metric}: {why}" for metric, why in (line.get("failures") or {}).items()]
    if line.get("of") or (line["row"] == "generated-shuffled" and line.get("heard")):
        notes.append(f"of {line.get('of') or line['heard']}")
    return notes


def _scores(line: dict[str, Any]) -> dict[str, float]:
    """``{metric: value}``: numbers, and dictionaries of numbers (``wer: {ctc-mini: 0.1}`` → ``wer/ctc-mini``)."""
    found: dict[str, float] = {}
    for key, value in line.items():
        if key in NO_SCORES or key == "class":  # the probability of whatever class was heard
            continue
        if is_number(value):
            found[key] = float(value)
        elif isinstance(value, dict):
            name = key.replace("_", "-")
            found |= {f"{name}/{part}": float(number) for part, number in value.items() if is_number(number)}
    return found


def read_items(folder: Path, most: int | None = None) -> list[dict[str, Any]]:
    """The lines of ``items.jsonl``, at most the first ``most``."""
    path = folder / "items.jsonl"
    if not path.is_file():
        raise ConfigError(f"{path} does not exist: run the evaluation again.")
    items: list[dict[str, Any]] = []
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if most is not None and len(items) == most:
                break
            if not line.strip():
                continue
            try:
                item = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise ConfigError(f"{path}, line {number} is not JSON ({error}).") from error
            if not isinstance(item, dict) or not item.get("id") or not item.get("row"):
                raise ConfigError(f"{path}, line {number} has no 'id' or no 'row'.")
            if fault := fault_of_item(item):
                raise ConfigError(f"{path}, line {number}: {fault}; run the evaluation again.")
            items.append(item)
    return items
