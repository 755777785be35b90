"""NSynth: nsynth-{train,valid,test}/examples.json and audio/NAME.wav, one note each."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from preparation.recipe import Item, PreparationError, Recipe


def read(root: Path) -> Iterator[Item]:
    """Notes of the splits that are there; the caption names source, instrument and qualities."""
    found = [name for name in ("train", "valid", "test") if (root / f"nsynth-{name}" / "examples.json").is_file()]
    if not found:
        raise PreparationError(f"{root} has no nsynth-train, nsynth-valid or nsynth-test with examples.json")
    for split in found:
        folder = root / f"nsynth-{split}"
        for name, note in json.loads((folder / "examples.json").read_text(encoding="utf-8")).items():
            family, source = note["instrument_family_str"], note["instrument_source_str"]
            qualities = [quality.replace("_", " ") for quality in note["qualities_str"]]
            caption = f"a note of an {source} {family}" if source[0] in "ae" else f"a note of a {source} {family}"
            yield Item(
                name, folder / "audio" / f"{name}.wav", split, domain="music",
                captions=[", ".join([caption, *qualities])],
                extra={"instrument": family, "pitch": note["pitch"], "velocity": note["velocity"]},
            )  # fmt: skip


RECIPE = Recipe(
    "NSynth", "https://magenta.tensorflow.org/datasets/nsynth", "CC BY 4.0", read,
    {"train": 289205, "valid": 12678, "test": 4096},
)  # fmt: skip
