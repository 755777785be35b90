"""Token shards of a training on a new voice: its clips, and as much of the voices that the model already knows.

A model that hears one voice alone forgets the others (catastrophic forgetting); rehearsal, old examples among the new,
is what keeps them (Robins 1995). Held-out clips are in the shards, too: evaluations read them there.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig

from codec.corpus import spread
from codec.encode import encode_corpus
from codec.interface import AudioTokenizer
from codec.shards import Row, ShardWriter, TokenizerInfo, read_index, read_shards
from codec.shards.token_source import check_corpus, shipped_shards, token_folder
from training.checkpoint import save_folder


def known_rows(data: DictConfig, tokenizer: AudioTokenizer, speakers: Sequence[str]) -> list[Row]:
    """Training rows of ``speakers`` in the corpus ``data``: of the shards inside it, else of its audio, encoded once.

    Raises:
        CorpusError: no such corpus.
        ShardError: shards that cannot be read.
    """
    audio, shipped = check_corpus(data), shipped_shards(data)
    if shipped is not None and read_index(shipped).is_of(tokenizer):
        folder = shipped
    elif audio:
        folder = token_folder(data.root, tokenizer, name=data.name)
        encode_corpus(data.root, tokenizer, folder)
    else:
        return []
    rows = [row for row in read_shards(folder) if row.split == "train" and row.domain == "speech"]
    return [row for row in rows if row.text and row.speaker in speakers]


def rehearsal(rows: Sequence[Row], seconds: float) -> list[Row]:
    """Some of ``rows``, of all speakers alike, that last about ``seconds`` together."""
    whole = sum(row.duration for row in rows)
    return list(rows) if whole <= seconds else spread(rows, max(1, round(len(rows) * seconds / whole)))


def mix(new: Sequence[Row], old: Sequence[Row], out: Path, tokenizer: AudioTokenizer) -> None:
    """Write the shards ``out``, in place of what was there. Raises ShardError, CheckpointError."""
    names = {row.id for row in new}

    def write(folder: Path) -> None:
        with ShardWriter(folder, TokenizerInfo.of(tokenizer)) as writer:
            for row in (*new, *(row for row in old if row.id not in names)):
                writer.add(row)

    save_folder(out, write)
