"""MusicCaps: musiccaps-public.csv, and audio that one makes: audio/YTID.wav or audio/[YTID]-[START-END].wav."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from preparation.recipe import AUDIO, Item, Recipe, first_file, read_table, require


def read(root: Path) -> Iterator[Item]:
    """All clips; those of AudioSet's evaluation set are test, as in the publication."""
    folder = require(root, "musiccaps-public.csv")
    columns = ("ytid", "start_s", "end_s", "caption", "is_audioset_eval")
    for row in read_table(folder / "musiccaps-public.csv", columns):
        names = [row["ytid"], f"[{row['ytid']}]-[{row['start_s']}-{row['end_s']}]"]
        path = first_file(folder / "audio" / f"{name}{end}" for name in names for end in AUDIO)
        split = "test" if row["is_audioset_eval"].lower() == "true" else "train"
        yield Item(row["ytid"], path, split, captions=[row["caption"].strip()], domain="music")


RECIPE = Recipe(
    "MusicCaps", "https://www.kaggle.com/datasets/googleai/musiccaps", "captions CC BY-SA 4.0, audio of YouTube", read,
    {"train": 2663, "test": 2858},
)  # fmt: skip
