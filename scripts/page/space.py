"""The map of a section: test recordings as points (points.json of eval/latents.py), each with what it sounds like."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from page.data import Evaluation
from page.loudness import matching_gains, measure
from page.media import apply_gain, read_mono, write_copy

SIZE, MARGIN = 100.0, 5.0  # of the drawing
SHAPES = (  # unit shapes around 0, told apart without colour
    "M-2 0a2 2 0 1 0 4 0a2 2 0 1 0-4 0z", "M-1.8-1.8h3.6v3.6h-3.6z", "M0-2.5L2.3 1.7H-2.3z",
    "M0-2.6L2.2 0 0 2.6-2.2 0z",
    "M0 2.5L2.3-1.7H-2.3z", "M-.7-2.2h1.4v1.5h1.5v1.4H.7v1.5H-.7V.7h-1.5V-.7h1.5z", "M-2.4-1.2h4.8v2.4h-4.8z",
    "M-1.2-2.4h2.4v4.8h-2.4z",
)  # fmt: skip
HEARD = ("reference", "requantised")  # in this order, when a point is played


def maps_view(evaluation: Evaluation, key: str, out: Path, loudness: float, form: str) -> list[dict[str, Any]]:
    """What the template draws of one evaluation, and the listening copies of its points."""
    space = evaluation.space
    if space is None:
        return []
    sounds: dict[str, list[str]] = {}
    for number, recording in enumerate(space["recordings"]):
        item = evaluation.items.get(recording["id"])
        clips = {} if item is None else item.clips
        paths = {row: clip.audio for row in HEARD if (clip := clips.get(row)) and clip.audio is not None}
        if not paths:
            continue
        waves = {row: read_mono(path) for row, path in paths.items()}
        gains = matching_gains({row: measure(wav, rate) for row, (wav, rate) in waves.items()}, loudness)
        sounds[recording["id"]] = []
        for row, (wav, rate) in waves.items():
            stem = out / "media" / f"map-{key}-{number:04d}-{row}"
            copy = write_copy(stem, apply_gain(wav, gains[row]), rate, form)
            sounds[recording["id"]].append(f"media/{copy.name}")
    views = []
    for drawn in space["maps"]:
        xs, ys = ([point[axis] for point in drawn["points"]] for axis in (0, 1))
        places = [(_scaled(x, xs), SIZE - _scaled(y, ys)) for x, y in zip(xs, ys, strict=True)]
        points = [
            {
                "x": f"{x:.2f}", "y": f"{y:.2f}", "sounds": " ".join(sounds.get(recording["id"], [])),
                "title": ", ".join(recording["labels"].values()), "labels": list(recording["labels"].values()),
            }
            for (x, y), recording in zip(places, space["recordings"], strict=True)
        ]  # fmt: skip
        views.append({"title": f"{drawn['name']}, {drawn['row']}", "caption": drawn["caption"], "points": points})
    classes = {label: {recording["labels"][label] for recording in space["recordings"]} for label in space["labels"]}
    legends = [{"label": label, "classes": sorted(own, key=_order)} for label, own in classes.items()]
    return [{"name": evaluation.name, "views": views, "legends": legends, "shapes": SHAPES, "heard": len(sounds)}]


def _order(name: str) -> tuple[float, str]:
    return (float(name), "") if name.lstrip("-").isdigit() else (math.inf, name)


def _scaled(value: float, values: list[float]) -> float:
    low, high = min(values), max(values)
    return MARGIN + (SIZE - 2 * MARGIN) * (value - low) / max(high - low, 1e-9)
