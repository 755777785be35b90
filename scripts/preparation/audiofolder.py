"""Any AudioFolder: audio files, with metadata.jsonl, .csv or .parquet or without."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from codec.corpus import CorpusError, read_corpus
from preparation.recipe import Item, Missing, PreparationError, Recipe


def read(root: Path) -> Iterator[Item | Missing]:
    """What `codec.corpus.read_corpus` finds."""
    try:
        clips, rejects = read_corpus(root)
    except CorpusError as error:
        raise PreparationError(str(error)) from None
    for reject in rejects:
        yield Missing(reject.id, reject.file, reject.reason)
    for clip in clips:
        yield Item(
            clip.id, clip.path, clip.split, clip.text, clip.captions, clip.speaker, clip.domain, clip.licence,
            extra=clip.extra,
        )  # fmt: skip


RECIPE = Recipe("an AudioFolder", "https://huggingface.co/docs/datasets/audio_dataset", "unknown", read)
