"""VCTK 0.92: wav48_silence_trimmed/SPEAKER/ID_mic1.flac and txt/SPEAKER/ID.txt; one speaker has no texts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from preparation.recipe import Item, PreparationError, Recipe, require


def read(root: Path) -> Iterator[Item]:
    """Microphone 1 of every utterance. VCTK is published without splits: all is train."""
    folder = require(root, "wav48_silence_trimmed", "txt")
    files = sorted((folder / "wav48_silence_trimmed").glob("*/*_mic1.flac"))
    if not files:
        raise PreparationError(f"{folder / 'wav48_silence_trimmed'} has no SPEAKER/*_mic1.flac")
    for path in files:
        name, speaker = path.name.removesuffix("_mic1.flac"), path.parent.name
        text = folder / "txt" / speaker / f"{name}.txt"
        spoken = text.read_text(encoding="utf-8").strip() if text.is_file() else None
        yield Item(name, path, "train", text=spoken, speaker=speaker)


RECIPE = Recipe("VCTK 0.92", "https://datashare.ed.ac.uk/handle/10283/3443", "CC BY 4.0", read)
