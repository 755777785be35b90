"""LibriSpeech: SUBSET/SPEAKER/CHAPTER/S-C-NNNN.flac with transcripts in S-C.trans.txt."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from preparation.recipe import Item, PreparationError, Recipe

COUNTS = {
    "dev-clean": 2703, "dev-other": 2864, "test-clean": 2620, "test-other": 2939,
    "train-clean-100": 28539, "train-clean-360": 104014, "train-other-500": 148688,
}  # fmt: skip
# The "other" sets keep a name of their own: their error rates are reported beside those of "clean".
SPLITS = {"dev-clean": "valid", "dev-other": "valid-other", "test-clean": "test", "test-other": "test-other"}


def subsets(root: Path) -> list[Path]:
    """Folders of ``root``, or of the folder in it, that are named as published subsets."""
    places = [root, *sorted(p for p in root.iterdir() if p.is_dir())] if root.is_dir() else []
    for place in places:
        found = [place / name for name in COUNTS if (place / name).is_dir()]
        if found:
            return found
    raise PreparationError(f"{root} has none of the folders {', '.join(COUNTS)}")


def read(root: Path) -> Iterator[Item]:
    """Clips of the subsets that are there."""
    for subset in subsets(root):
        transcripts = sorted(subset.glob("*/*/*.trans.txt"))
        if not transcripts:
            raise PreparationError(f"{subset} has no SPEAKER/CHAPTER/*.trans.txt")
        for transcript in transcripts:
            for line in transcript.read_text(encoding="utf-8").splitlines():
                name, _, text = line.partition(" ")
                yield Item(
                    name, transcript.parent / f"{name}.flac", SPLITS.get(subset.name, "train"), text=text,
                    speaker=name.split("-")[0], subset=subset.name,
                )  # fmt: skip


RECIPE = Recipe("LibriSpeech", "https://www.openslr.org/12", "CC BY 4.0", read, COUNTS)
