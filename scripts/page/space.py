"""The pictures of a space: recordings as points of a map (points.json of eval/latents.py), the grid of moved sounds
(grid.json of eval/sound_space.py), and pitch over spectrograms."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from transformers.audio_utils import hertz_to_mel

from eval.harness.audio import CannotScore
from eval.space.heard import pitch_track
from page.data import Evaluation
from page.loudness import equally_loud
from page.media import HEIGHT, WIDTH, Scale, read_mono, write_copy
from training.config import ConfigError

SIZE, MARGIN = 100.0, 5.0  # of the drawing
SHAPES = (  # unit shapes around 0, told apart without colour
    "M-2 0a2 2 0 1 0 4 0a2 2 0 1 0-4 0z", "M-1.8-1.8h3.6v3.6h-3.6z", "M0-2.5L2.3 1.7H-2.3z",
    "M0-2.6L2.2 0 0 2.6-2.2 0z",
    "M0 2.5L2.3-1.7H-2.3z", "M-.7-2.2h1.4v1.5h1.5v1.4H.7v1.5H-.7V.7h-1.5V-.7h1.5z", "M-2.4-1.2h4.8v2.4h-4.8z",
    "M-1.2-2.4h2.4v4.8h-2.4z",
)  # fmt: skip
HEARD = ("reference", "requantised")  # in this order, when a point is played


def matched_copies(paths: dict[str, Path], stem: Path, loudness: float, form: str) -> dict[str, str]:
    """Listening copies of sounds that are compared, as loud as each other, ``STEM-NAME``; their names in the page.

    Raises:
        ConfigError: one cannot be read.
    """
    try:
        sounds = {name: read_mono(path) for name, path in paths.items()}
    except ValueError as error:
        raise ConfigError(f"{next(iter(paths.values())).parent}: {error}; run the evaluation again.") from error
    return {
        name: f"media/{write_copy(stem.with_name(f'{stem.name}-{name}'), copy.wav, copy.rate, form).name}"
        for name, copy in equally_loud(sounds, loudness).items()
    }


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
        copies = matched_copies(paths, out / "media" / f"map-{key}-{number:04d}", loudness, form)
        sounds[recording["id"]] = list(copies.values())
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


def grid_view(evaluation: Evaluation, key: str, out: Path, loudness: float, form: str) -> list[dict[str, Any]]:
    """What the template draws of one evaluation's grid, and the listening copies of its cells."""
    grid = evaluation.grid
    if grid is None or not grid["cells"]:
        return []
    start = min(range(len(grid["amounts"])), key=lambda k: abs(grid["amounts"][k] - 1))  # all the way
    states = [(r, row, k) for r, row in enumerate(grid["rows"]) for k in range(len(grid["amounts"]))]
    cells: dict[tuple[str, str], dict[str, Any]] = {}
    for number, cell in enumerate(grid["cells"]):
        # Names are made from numbers, never from those of rows, which may hold any character.
        steps = {f"{r}-{k}": cell["moved"][row][k] for r, row, k in states}
        paths = {name: evaluation.folder / step["audio"] for name, step in steps.items()}
        paths["source"] = evaluation.folder / cell["audio"]
        copies = matched_copies(paths, out / "media" / f"grid-{key}-{number:03d}", loudness, form)
        cells[cell["source"], cell["target"]] = {
            "text": cell["text"], "before": 100 * cell["posterior"], "source": copies["source"],
            "steps": [
                {"state": name, "moved": copies[name], "after": 100 * step["posterior"], "cents": step["cents"]}
                for name, step in steps.items()
            ],
        }  # fmt: skip
    lines = [(source, [cells.get((source, target)) for target in grid["classes"]]) for source in grid["classes"]]
    return [
        {
            "name": evaluation.name, "label": grid["label"], "classes": grid["classes"], "rows": grid["rows"],
            "amounts": [f"{amount:g}" for amount in grid["amounts"]], "first": f"0-{start}",
            "start": start, "lines": lines,
        }
    ]  # fmt: skip


def pitch_line(wav: np.ndarray, rate: int, scale: Scale) -> str:
    """The pitch of ``wav [samples]`` as an SVG path over its spectrogram; empty where there is none."""
    try:
        hertz, voiced = pitch_track(wav, rate)
    except CannotScore:
        return ""
    path, last = "", 0.0
    for frame, (frequency, heard) in enumerate(zip(hertz.tolist(), voiced.tolist(), strict=True)):
        at = (frame + 0.5) / 100
        if not heard or at > scale.seconds or frequency > scale.frequency:
            last = 0.0
            continue
        x = WIDTH * at / scale.seconds
        y = HEIGHT * (1 - float(hertz_to_mel(frequency)) / float(hertz_to_mel(scale.frequency)))
        jumps = not last or not 0.8 < frequency / last < 1.25
        path += f"{'M' if jumps else 'L'}{x:.1f} {y:.1f}"
        last = frequency
    return path
