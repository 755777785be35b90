"""Medley-solos-DB: Medley-solos-DB_metadata.csv and Medley-solos-DB_SUBSET-INSTRUMENTID_UUID.wav."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from preparation.recipe import Item, Recipe, first_file, read_table, require

SPLITS = {"training": "train", "validation": "valid", "test": "test"}


def read(root: Path) -> Iterator[Item]:
    """All clips; the caption is the instrument."""
    folder = require(root, "Medley-solos-DB_metadata.csv")
    columns = ("subset", "instrument", "instrument_id", "song_id", "uuid4")
    for row in read_table(folder / "Medley-solos-DB_metadata.csv", columns):
        name = f"Medley-solos-DB_{row['subset']}-{row['instrument_id']}_{row['uuid4']}.wav"
        path = first_file([folder / "Medley-solos-DB" / name, folder / name])
        yield Item(
            row["uuid4"], path, SPLITS.get(row["subset"], row["subset"]), captions=[row["instrument"]], domain="music",
            subset=row["subset"], extra={"instrument": row["instrument"], "song": row["song_id"]},
        )  # fmt: skip


RECIPE = Recipe(
    "Medley-solos-DB", "https://zenodo.org/records/3464194", "CC BY 4.0", read,
    {"training": 5841, "validation": 3494, "test": 12236},
)  # fmt: skip
