"""MLS, one language: {train,dev,test}/transcripts.txt and audio/SPEAKER/BOOK/ID.flac (or .opus)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from preparation.recipe import Item, PreparationError, Recipe, first_file

SPLITS = {"train": "train", "dev": "valid", "test": "test"}


def read(root: Path) -> Iterator[Item]:
    """Clips of the splits that are there; every line of the transcripts must have its file."""
    found = [(name, root / name) for name in SPLITS if (root / name / "transcripts.txt").is_file()]
    if not found:
        raise PreparationError(f"{root} has none of train/transcripts.txt, dev/transcripts.txt, test/transcripts.txt")
    for name, folder in found:
        with (folder / "transcripts.txt").open(encoding="utf-8") as lines:
            for line in lines:
                clip, _, text = line.rstrip("\n").partition("\t")
                parts = clip.split("_")
                if len(parts) != 3:
                    raise PreparationError(f"{folder / 'transcripts.txt'}: '{clip}' is not SPEAKER_BOOK_NUMBER")
                place = folder / "audio" / parts[0] / parts[1] / clip
                path = first_file(Path(f"{place}{suffix}") for suffix in (".flac", ".opus"))
                yield Item(clip, path, SPLITS[name], text=text, speaker=parts[0])


RECIPE = Recipe("Multilingual LibriSpeech", "https://www.openslr.org/94", "CC BY 4.0", read)
