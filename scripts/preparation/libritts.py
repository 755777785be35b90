"""LibriTTS and LibriTTS-R: SUBSET/SPEAKER/CHAPTER/ID.wav with ID.normalized.txt beside it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from preparation.librispeech import SPLITS, subsets
from preparation.recipe import Item, PreparationError, Recipe

COUNTS = {
    "dev-clean": 5736, "dev-other": 4613, "test-clean": 4837, "test-other": 5120,
    "train-clean-100": 33236, "train-clean-360": 116500, "train-other-500": 205044,
}  # fmt: skip


def read(root: Path) -> Iterator[Item]:
    """Clips of the subsets that are there, with the normalised text."""
    for subset in subsets(root):
        texts = sorted(subset.glob("*/*/*.normalized.txt"))
        if not texts:
            raise PreparationError(f"{subset} has no SPEAKER/CHAPTER/*.normalized.txt")
        for path in texts:
            name = path.name.removesuffix(".normalized.txt")
            text = path.read_text(encoding="utf-8").strip()
            split = SPLITS.get(subset.name, "train")
            speaker = name.split("_")[0]
            yield Item(name, path.with_name(f"{name}.wav"), split, text=text, speaker=speaker, subset=subset.name)


SOURCE = "https://www.openslr.org/60 (LibriTTS) or https://www.openslr.org/141 (LibriTTS-R)"
RECIPE = Recipe("LibriTTS(-R)", SOURCE, "CC BY 4.0", read, COUNTS)
