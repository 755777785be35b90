"""AudioCaps 1: train.csv, val.csv, test.csv (audiocap_id, youtube_id, start_time, caption), and audio that one makes.

No audio is published. Files are looked for in audio/, audio/SPLIT/ and SPLIT/, named by what the usual downloaders
write: YOUTUBEID_START, YYOUTUBEID, YOUTUBEID or AUDIOCAPID. A clip of val and test has five captions.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from preparation.recipe import AUDIO, Item, Recipe, first_file, read_table, require

SPLITS = {"train": "train", "val": "valid", "test": "test"}


def read(root: Path) -> Iterator[Item]:
    """A clip per YouTube id and start, with all its captions."""
    folder = require(root, "train.csv", "val.csv", "test.csv")
    for name, split in SPLITS.items():
        clips: dict[tuple[str, str], list[dict[str, str]]] = {}
        for row in read_table(folder / f"{name}.csv", ("audiocap_id", "youtube_id", "start_time", "caption")):
            clips.setdefault((row["youtube_id"], row["start_time"]), []).append(row)
        for (video, start), rows in clips.items():
            names = [f"{video}_{start}", f"Y{video}", video, *[row["audiocap_id"] for row in rows]]
            places = [folder / "audio", folder / "audio" / name, folder / name]
            path = first_file(place / f"{stem}{end}" for stem in names for place in places for end in AUDIO)
            captions = [row["caption"].strip() for row in rows]
            yield Item(f"{video}_{start}", path, split, captions=captions, domain="sound")


RECIPE = Recipe(
    "AudioCaps", "https://github.com/cdjkim/audiocaps", "captions MIT, audio of YouTube", read,
    {"train": 49838, "valid": 495, "test": 975},
)  # fmt: skip
