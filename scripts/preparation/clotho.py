"""Clotho 2.1: clotho_captions_PART.csv (file_name, caption_1 … caption_5) and PART/FILE; three parts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from preparation.recipe import Item, PreparationError, Recipe, read_table

SPLITS = {"development": "train", "validation": "valid", "evaluation": "test"}


def read(root: Path) -> Iterator[Item]:
    """Clips of the parts that are there, with five captions each."""
    found = [name for name in SPLITS if (root / f"clotho_captions_{name}.csv").is_file()]
    if not found:
        raise PreparationError(f"{root} has no clotho_captions_development.csv, …_validation.csv or …_evaluation.csv")
    columns = [f"caption_{number}" for number in range(1, 6)]
    for name in found:
        for row in read_table(root / f"clotho_captions_{name}.csv", ("file_name", *columns)):
            path = root / name / row["file_name"]
            captions = [row[column].strip() for column in columns]
            clip = f"{name}/{Path(row['file_name']).stem}"
            yield Item(clip, path, SPLITS[name], captions=captions, domain="sound", subset=name)


RECIPE = Recipe(
    "Clotho 2.1", "https://zenodo.org/records/4783391", "captions: Tampere University licence, audio: Freesound's",
    read, {"development": 3839, "validation": 1045, "evaluation": 1045},
)  # fmt: skip
