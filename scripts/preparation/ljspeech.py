"""LJSpeech: metadata.csv (id|text|normalised text) and wavs/ID.wav; one speaker, no splits."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from preparation.recipe import Item, PreparationError, Recipe, require


def read(root: Path) -> Iterator[Item]:
    """All clips, with the normalised text."""
    folder = require(root, "metadata.csv", "wavs")
    lines = (folder / "metadata.csv").read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines, start=1):
        cells = line.split("|")
        if len(cells) != 3:
            raise PreparationError(f"{folder / 'metadata.csv'} line {number} has {len(cells)} cells, not 3")
        yield Item(cells[0], folder / "wavs" / f"{cells[0]}.wav", "train", text=cells[2] or cells[1], speaker="LJ")


SOURCE = "https://keithito.com/LJ-Speech-Dataset/"
RECIPE = Recipe("LJSpeech 1.1", SOURCE, "public domain", read, {"train": 13100})
