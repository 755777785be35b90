"""ESC-50: meta/esc50.csv and audio/FILE. It is published in five folds: the fifth is test here, the fourth valid."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from preparation.recipe import Item, Recipe, read_table, require


def read(root: Path) -> Iterator[Item]:
    """All clips; the caption is the class, the fold is kept for cross-validation."""
    folder = require(root, "meta/esc50.csv", "audio")
    for row in read_table(folder / "meta" / "esc50.csv", ("filename", "fold", "category")):
        split = {"5": "test", "4": "valid"}.get(row["fold"], "train")
        yield Item(
            Path(row["filename"]).stem, folder / "audio" / row["filename"], split,
            captions=[row["category"].replace("_", " ")], domain="sound",
            extra={"classes": [row["category"]], "fold": int(row["fold"])},
        )  # fmt: skip


RECIPE = Recipe(
    "ESC-50", "https://github.com/karolpiczak/ESC-50", "CC BY-NC 3.0", read, {"train": 1200, "valid": 400, "test": 400}
)
