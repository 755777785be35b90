"""Where the token rows of a training come from (codec/shards/token_source.py): the corpus' own audio, encoded once and
cached, and the shards that ship inside the corpus, where the chosen tokenizer made them. Clips that stand in both are
counted once. Shards that are named (``data.tokens=FOLDER``) stand instead of a corpus.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from accelerate import Accelerator
from omegaconf import DictConfig

from codec.corpus import CorpusError, holds_audio
from codec.encode import encode_corpus
from codec.interface import AudioTokenizer
from codec.shards import INDEX_NAME, Row, read_index, read_shards
from codec.shards.token_source import check_corpus, named_shards, shipped_shards, token_folder


class TokenRowsError(ValueError):
    """A corpus that gives no token rows, with the cure."""


@dataclass
class TokenRows:
    """Rows of all splits and where they come from (one plain sentence each)."""

    rows: list[Row]
    sources: list[str]

    def split(self, name: str) -> list[Row]:
        """Rows of one split."""
        return [row for row in self.rows if row.split == name]


def hours(rows: Iterable[Row]) -> str:
    """``8.64 h of speech (train), 0.20 h of speech (valid)``: what there is, by split and domain."""
    seconds: dict[tuple[str, str], float] = {}
    for row in rows:
        key = (row.split, row.domain)
        seconds[key] = seconds.get(key, 0.0) + row.duration
    order = ("train", "valid", "test")
    keys = sorted(seconds, key=lambda key: (order.index(key[0]) if key[0] in order else len(order), key))
    return ", ".join(f"{seconds[key] / 3600:.2f} h of {key[1]} ({key[0]})" for key in keys)


def left_out(rows: Sequence[Row], chosen: Sequence[Row]) -> str:
    """``5184 of 17716 (3200 sound, 1984 music)``: the rows that are not among the chosen; empty where all are."""
    kept = {row.id for row in chosen}
    counts = Counter(row.domain for row in rows if row.id not in kept)
    listed = ", ".join(f"{count} {domain}" for domain, count in counts.most_common())
    return f"{sum(counts.values())} of {len(rows)} ({listed})" if counts else ""


def find_token_rows(
    data: DictConfig, tokenizer: AudioTokenizer, accelerator: Accelerator, say: Callable[[str], None]
) -> TokenRows:
    """All rows of the corpus in the tokens of ``tokenizer``; encodes the audio when its tokens are missing.

    Args:
        data: ``root``, ``name`` and ``tokens`` (configs/data/).
        say: prints one line.

    Raises:
        TokenRowsError: no such corpus, no tokens, or those of another tokenizer.
        ShardError: shards that cannot be read.
    """
    found: dict[str, Row] = {}
    sources: list[str] = []
    named = named_shards(data)
    if named is not None:
        index = read_index(named)
        if not index.is_of(tokenizer):
            raise TokenRowsError(
                f"data.tokens={data.tokens}: its shards were made by {index.name} ({index.fingerprint[:12]}), not by "
                f"{tokenizer.name} ({tokenizer.fingerprint[:12]}): choose that tokenizer, or encode with this one."
            )
        found = {row.id: row for row in read_shards(named)}
        sources.append(f"{len(found)} clips of the token shards {named}, which stand instead of a corpus")
    else:
        try:
            with_audio, shipped = check_corpus(data), shipped_shards(data)
            if with_audio:
                cache = token_folder(data.root, tokenizer, name=data.name)
                # encode_corpus is quick when nothing changed: it compares the corpus' files with what it encoded.
                if not (cache / INDEX_NAME).is_file():
                    say(f"no tokens of {data.root} by {tokenizer.name} yet: encoding its audio into {cache}")
                summary = encode_corpus(data.root, tokenizer, cache)
                if summary.rejected:
                    say(f"{len(summary.rejected)} clips were rejected, the reasons stand in {cache}/rejected.jsonl")
                found = {row.id: row for row in read_shards(cache)}
                sources.append(f"{len(found)} clips encoded from {data.root} ({cache})")
            elif holds_audio(data.root):
                say(f"none of the files that the metadata of {data.root} names is there: its shards alone are used")
        except CorpusError as error:
            raise TokenRowsError(f"{error}.") from None
        if shipped is not None:
            index = read_index(shipped)
            if index.is_of(tokenizer):
                before = len(found)
                for row in read_shards(shipped):
                    found.setdefault(row.id, row)
                sources.append(f"{len(found) - before} more clips from the token shards {shipped}")
            else:
                say(
                    f"the token shards in {shipped} were made by {index.name} ({index.fingerprint[:12]}), not by "
                    f"{tokenizer.name} ({tokenizer.fingerprint[:12]}), and are NOT used: for as many hours with this "
                    "tokenizer rebuild the audio with `python scripts/make_corpus.py --hours 8.5 --times 8 --out "
                    "FOLDER` and train with data.root=FOLDER"
                )
    if not found:
        raise TokenRowsError(f"{data.root} gives no tokens by {tokenizer.name}: its shards are another tokenizer's.")
    sources.append(hours(found.values()))
    accelerator.wait_for_everyone()
    return TokenRows(sorted(found.values(), key=lambda row: row.id), sources)
