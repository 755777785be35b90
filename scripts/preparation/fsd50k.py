"""FSD50K: FSD50K.ground_truth/{dev,eval}.csv, FSD50K.{dev,eval}_audio/ID.wav, licences in FSD50K.metadata/."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from preparation.recipe import Item, Recipe, read_table, require


def read(root: Path) -> Iterator[Item]:
    """All clips; the caption lists the labels, as there are no sentences."""
    folder = require(root, "FSD50K.ground_truth/dev.csv", "FSD50K.ground_truth/eval.csv")
    for part in ("dev", "eval"):
        information = folder / "FSD50K.metadata" / f"{part}_clips_info_FSD50K.json"
        clips = json.loads(information.read_text(encoding="utf-8")) if information.is_file() else {}
        columns = ("fname", "labels", "split") if part == "dev" else ("fname", "labels")
        for row in read_table(folder / "FSD50K.ground_truth" / f"{part}.csv", columns):
            split = "test" if part == "eval" else {"val": "valid"}.get(row["split"], row["split"])
            classes = row["labels"].split(",")
            caption = ", ".join(label.replace("_", " ").lower() for label in classes)
            yield Item(
                row["fname"], folder / f"FSD50K.{part}_audio" / f"{row['fname']}.wav", split, captions=[caption],
                domain="sound", licence=clips.get(row["fname"], {}).get("license"), extra={"classes": classes},
            )  # fmt: skip


RECIPE = Recipe(
    "FSD50K", "https://zenodo.org/records/4060432", "CC BY 4.0, clips CC0, CC BY, CC BY-NC or CC Sampling+", read,
    {"train": 36796, "valid": 4170, "test": 10231},
)  # fmt: skip
