"""The grid of moved sounds, grid.json: from each class to each other one, heard and scored at every amount.

    {"label": "instrument", "classes": ["bass", …], "rows": ["requantised", "continuous"], "amounts": [0, 0.5, 1],
     "cells": [{"source": "bass", "target": "cello", "text": "bass A 3 → cello", "audio": "wavs/grid/000.wav",
                "posterior": 0.02, "moved": {"requantised": [{"audio": …, "posterior": 0.4, "cents": 12}, …], …}}]}

``posterior`` is that of the target; ``cents`` is null where there is no pitch to compare.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from eval.harness.processes import is_main
from eval.harness.report import plain
from eval.harness.scored import as_stored, write_clip
from eval.space.sounds import Sounds, row_of
from training.checkpoint import write_file

ROWS = ("requantised", "continuous")


def write_grid(
    out: Path,
    rate: int,
    label: str,
    amounts: Sequence[float],
    cells: Mapping[tuple[str, str], tuple[str, Sounds]],
) -> None:
    """Write ``out/grid.json`` and its sounds; ``cells`` holds the text and the sounds of each source and target."""

    def moved(sounds: Sounds, row: str, stem: str) -> list[dict[str, object]]:
        found = []
        for amount in amounts:
            wav, scores, _ = sounds[row_of(row, amount)]
            audio = write_clip(out, f"{stem}-{row}-{amount:g}.wav", as_stored(wav), rate)
            posterior, cents = scores["posterior-target"], scores.get("pitch-cents")
            found.append({"audio": audio, "posterior": posterior, "cents": cents})
        return found

    written = []
    for number, ((source, target), (text, sounds)) in enumerate(sorted(cells.items())):
        stem = f"wavs/grid/{number:03d}"
        wav, scores, _ = sounds["reference"]
        written.append(
            {
                "source": source, "target": target, "text": text,
                "audio": write_clip(out, f"{stem}.wav", as_stored(wav), rate), "posterior": scores["posterior-target"],
                "moved": {row: moved(sounds, row, stem) for row in ROWS},
            }
        )  # fmt: skip
    classes = sorted({name for pair in cells for name in pair})
    grid = {"label": label, "classes": classes, "rows": list(ROWS), "amounts": list(amounts), "cells": written}
    if is_main():
        write_file(out / "grid.json", json.dumps(plain(grid), allow_nan=False) + "\n")
