"""Turns sections into what the template shows, and writes the media of their items on the way."""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from eval.harness.report import plain
from page.data import Clip, Evaluation, Item
from page.labels import ROWS, arrow, direction, in_order, label, show
from page.loudness import equally_loud
from page.media import Scale, common_scale, picture, read_mono, save_picture, spectrogram, write_copy
from page.sections import Section, System
from page.space import grid_view, maps_view, pitch_line
from training.progress import progress

MAIN_SCORES = 4  # per cell; the others are one click away
LONG = 300  # characters beyond which a text scrolls in its own box
VIEW_LABELS = {"random": "{} at random", "best": "{} best", "worst": "{} worst", "all": "All {}"}


def section_view(section: Section, out: Path, target: float, form: str) -> dict[str, Any]:
    """Everything that the template needs of one section.

    Args:
        out: the page's folder; media are written below it.
        target: loudness of the listening copies in LUFS.
        form: ``flac`` or ``mp3``.
    """
    (out / "media").mkdir(exist_ok=True)
    metrics = _item_metrics(section)
    items = [
        _item_view(section, item, number, metrics, out, target, form)
        for number, item in enumerate(progress(section.items, desc=section.kind.title), 1)
    ]
    heard = {cell["key"] for item in items for cell in item["cells"] if cell["media"]}
    audible = [system.key for system in section.systems if system.key in heard]
    numbers = {item.id: number for number, item in enumerate(section.items, 1)}
    return {
        "key": section.key,
        "title": section.kind.title,
        "question": section.kind.question,
        "writes": section.kind.writes,
        "systems": [_system_view(system, n, audible) for n, system in enumerate(section.systems, 1)],
        "summary": _summary(section, section.headline()),
        "everything": _summary(section, list(section.scores)),
        "differences": [found for e in section.evaluations for found in _differences(section, e)],
        "failures": [failure for system in section.systems for failure in _failures(system)],
        "evaluations": [_evaluation_view(section, e, n, out) for n, e in enumerate(section.evaluations, 1)],
        "remarks": section.remarks,
        "maps": [
            found
            for n, e in enumerate(section.evaluations, 1)
            for found in maps_view(e, f"{section.key}-{n}", out, target, form)
        ],
        "grids": [
            found
            for n, e in enumerate(section.evaluations if section.kind.domain == "transfer" else (), 1)
            for found in grid_view(e, f"{section.key}-{n}", out, target, form)
        ],
        "pitched": section.kind.name == "sound_space",
        "items": items,
        "metrics": [(m, label(m), arrow(m)) for m in metrics],
        "views": [(view, VIEW_LABELS[view].format(len(ids))) for view, ids in section.views.items()],
        "chosen": _chosen(section),
        "total": section.total,
        "data": {
            "metrics": {m: direction(m) for m in metrics},
            "views": {view: [numbers[id] for id in ids] for view, ids in section.views.items()},
            "items": [
                {"number": i["number"], "text": f"{i['text']} {i['speaker']} {i['id']}".lower(), "scores": i["scores"]}
                for i in items
            ],
        },
    }


def _item_metrics(section: Section) -> list[str]:
    """The scores that clips have, those of the summary first."""
    clips = [clip for item in section.items for system in section.systems if (clip := system.clip(item.id))]
    found = list(dict.fromkeys(metric for clip in clips for metric in clip.scores))
    return list(dict.fromkeys([*section.rank, *in_order(found, section.kind.headline), *found]))


def _system_view(system: System, number: int, audible: Sequence[str]) -> dict[str, Any]:
    rates = []
    if system.bitrate is not None:
        rates.append(f"{system.bitrate:.{0 if system.bitrate == round(system.bitrate) else 1}f} bit/s")
    if system.tokens is not None:
        rates.append(f"{system.tokens:g} tokens/s")
    place = audible.index(system.key) + 1 if system.key in audible else 0
    return {
        "key": system.key,
        "row": system.row,
        "colour": (number - 1) % 8 + 1,
        "title": system.title,
        "note": system.note,
        "names": " = ".join(system.names) if not system.row.startswith("reference") else "",
        "rates": " · ".join(rates),
        "bitrate": system.bitrate,
        "tokens": system.tokens,
        "control": system.control,
        "digit": place if 1 <= place <= 9 else None,
        "audible": system.key in audible,
        "empty": not system.sources,
    }


def _summary(section: Section, metrics: Sequence[str]) -> dict[str, Any]:
    """A line per system, a cell per metric; ``n`` is a metric's number of clips where all systems have the same."""
    columns = [[_cell(metric, score) for score in section.scores[metric]] for metric in metrics]
    counts = [{cell["n"] for cell in column if cell and cell["value"] is not None} for column in columns]
    return {
        "metrics": [(metric, label(metric), arrow(metric)) for metric in metrics],
        "n": [found.pop() if len(found) == 1 else None for found in counts],
        "lines": [[column[number] for column in columns] for number in range(len(section.systems))],
    }


def _cell(metric: str, score: dict[str, Any] | None, sign: bool = False) -> dict[str, Any] | None:
    if score is None:
        return None
    value = score.get("value")
    text, low, high = (show(metric, score.get(key)) for key in ("value", "low", "high"))
    reasons = score.get("failures") or []
    if value is None:
        text = str(reasons[0]["reason"]) if reasons else "–"
    return {
        "value": value,
        "text": ("+" if sign and (value or 0) > 0 else "") + text,
        "why": value is None and bool(reasons),
        "interval": f"[{low}, {high}]".replace(" %", "") if score.get("low") is not None else "",
        "n": score.get("n"),
        "failed": score.get("n_failed", 0),
        "of": score.get("of", ""),
    }


def _differences(section: Section, evaluation: Evaluation) -> list[dict[str, Any]]:
    """The paired differences of an evaluation, where the section has all of its items."""
    if len(section.ids(evaluation)) < len(evaluation.items):
        return []
    title = {row: ROWS.get(row, (row, ""))[0] for row in evaluation.rows}
    return [
        {
            "name": evaluation.name,
            "title": f"{title.get(d['row'], d['row'])} − {title.get(d['against'], d['against']).lower()}",
            "metric": label(d["metric"]),
            "cell": _cell(d["metric"], d, sign=True),
        }
        for d in evaluation.differences
    ]


def _failures(system: System) -> list[tuple[str, str, str]]:
    """(system, metric, reason and clips) for every reason why a metric could not score clips."""
    return [
        (f"{system.title}, {source.name}", label(metric), f"{failure['reason']} ({_some(failure.get('ids') or [])})")
        for source in system.sources
        for metric, score in source.table.get(system.row, {}).items()
        for failure in score.get("failures") or []
    ]


def _some(ids: Sequence[object]) -> str:
    most = 20
    text = ", ".join(map(str, ids[:most]))
    return f"{text} and {len(ids) - most} more" if len(ids) > most else text


def _evaluation_view(section: Section, evaluation: Evaluation, number: int, out: Path) -> dict[str, Any]:
    """Copies the results of an evaluation and says how they were made."""
    folder = out / "results" / f"{section.key}-{number}"
    folder.mkdir(parents=True)
    for name in ("results.json", "items.jsonl"):
        shutil.copyfile(evaluation.folder / name, folder / name)
    return {
        "name": evaluation.name,
        "how": _flat(plain(evaluation.how)),
        "results": f"results/{folder.name}",
    }


def _flat(node: Any, prefix: str = "") -> list[tuple[str, str]]:
    """A nested record as (dotted key, value) pairs."""
    if isinstance(node, dict):
        return [pair for key, value in node.items() for pair in _flat(value, f"{prefix}{key}.")]
    return [(prefix.rstrip("."), ", ".join(map(str, node)) if isinstance(node, list) else str(node))]


def _chosen(section: Section) -> str:
    """Where best and worst come from, in words."""
    if not section.rank:
        return "No clip has a score of its own here, so there is no best and no worst."
    title = ROWS.get(section.kind.judged, (section.kind.judged, ""))[0]
    columns = "columns" if len(section.evaluations) > 1 else "column"
    return f"Best and worst go by {' and '.join(map(label, section.rank))} of the {columns} “{title}”."


def _item_view(
    section: Section, item: Item, number: int, metrics: Sequence[str], out: Path, target: float, form: str
) -> dict[str, Any]:
    cells = {system.key: _clip_view(system.clip(item.id), item, metrics) for system in section.systems}
    for system in section.systems:
        if not system.sources:  # an empty place, as its heading says
            cells[system.key]["problem"] = None
    scale = _write_media(section, item, number, cells, out, target, form)
    return {
        "number": number,
        "id": item.id,
        "text": item.text,
        "long": len(item.text) > LONG,
        "speaker": item.speaker,
        "captions": item.captions,
        "cells": [{"key": key, **cell} for key, cell in cells.items()],
        "audible": any(cell["media"] for cell in cells.values()),
        "seconds": scale.seconds if scale else 0,
        "frequencies": scale.frequency_ticks() if scale else [],
        "times": scale.time_ticks() if scale else [],
        "scores": {key: cell["values"] for key, cell in cells.items() if cell["values"]},
    }


def _clip_view(clip: Clip | None, item: Item, metrics: Sequence[str]) -> dict[str, Any]:
    """A cell without its media."""
    there, clip = clip is not None, clip or Clip("", item.text, problem="not in this evaluation")
    scores = [(m, label(m), show(m, clip.scores[m])) for m in metrics if m in clip.scores]
    return {
        **dict.fromkeys(("media", "picture", "gain", "seconds")), "cut": "", "pitch": "", "holds": [],
        "there": there,
        "audio": clip.audio,
        "stands": clip.holds,
        "problem": clip.problem,
        "text": clip.text if clip.text != item.text else "",
        "said": clip.said,
        "heard": [(label(name), words) for name, words in clip.heard.items()],
        "flags": list(clip.flags),
        "notes": clip.notes,
        "values": {m: v for m, v in clip.scores.items() if math.isfinite(v)},
        "main": scores[:MAIN_SCORES],
        "more": scores[MAIN_SCORES:],
    }  # fmt: skip


def _holds(stands: Sequence[Sequence[float]], names: Sequence[str], scale: Scale) -> list[tuple[float, float, str]]:
    """Where a walk stands: from the left and how wide, in percent of the picture, and the way-point's name."""
    return [
        (100 * low / scale.seconds, 100 * (min(high, scale.seconds) - low) / scale.seconds, name)
        for (low, high), name in zip(stands, names, strict=False)
        if 0 <= low < min(high, scale.seconds)
    ]


def _write_media(
    section: Section, item: Item, number: int, cells: dict[str, dict[str, Any]], out: Path, target: float, form: str
) -> Scale | None:
    """Write the listening copies and spectrograms of one item, all on one scale, and note them in its cells."""
    waves: dict[str, tuple[np.ndarray, int]] = {}
    for key, cell in cells.items():
        if cell["audio"] is None:
            continue
        try:
            waves[key] = read_mono(cell["audio"])
        except ValueError as error:
            cell["problem"] = str(error)
    if not waves:
        return None
    copies = equally_loud(waves, target)
    scale = common_scale([len(c.wav) / c.rate for c in copies.values()], [c.rate for c in copies.values()])
    pictures = {key: spectrogram(copy.wav, copy.rate, scale) for key, copy in copies.items()}
    highest = max(float(np.nanmax(level)) for level in pictures.values())
    loudest = max((c.loudness + c.gain for c in copies.values() if c.loudness is not None), default=0.0)
    for key, copy in copies.items():
        cell, wav, rate = cells[key], copy.wav, copy.rate
        # Names are made from numbers, never from ids: an id may hold any character.
        stem = out / "media" / f"{section.key}-{number:04d}-{key}"
        cell["media"] = f"media/{write_copy(stem, wav, rate, form).name}"
        cell["picture"] = f"media/{stem.name}.webp"
        save_picture(picture(pictures[key], highest), out / cell["picture"])
        cell["seconds"] = len(wav) / rate
        if section.kind.name == "sound_space":
            cell["pitch"] = pitch_line(waves[key][0], rate, scale)
        cell["holds"] = _holds(cell["stands"], item.text.split(" → "), scale)
        cell["gain"] = f"{copy.gain:+.1f} dB"
        if copy.loudness is None:
            cell["flags"].append("silent")
        elif (less := loudest - copy.loudness - copy.gain) > 0.5:
            cell["flags"].append(f"{less:.0f} dB quieter than the others, which more gain would clip or make noise of")
        if cell["seconds"] > scale.seconds + 0.1:
            cell["cut"] = f"the picture shows the first {scale.seconds:g} s"
    return scale
