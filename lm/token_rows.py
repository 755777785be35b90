"""Where the token rows of a training come from: shards that ship with a corpus, and audio that is encoded
here.

A corpus can hold token shards of more than its audio (``data.tokens``), made by one tokenizer and
carrying its fingerprint. They are used when the chosen tokenizer is that one. The corpus' own audio is
encoded once and cached by fingerprint under ``runs/tokens/``. Clips that stand in both are counted once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from accelerate import Accelerator

from codec.corpus import METADATA_NAMES
from codec.encode import encode_corpus, token_folder
from codec.interface import AudioTokenizer
from codec.shards import INDEX_NAME, Row, read_index, read_shards


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


def find_token_rows(
    corpus_name: str,
    corpus_root: Path,
    shipped: Path | None,
    tokenizer: AudioTokenizer,
    accelerator: Accelerator,
    say: Callable[[str], None],
) -> TokenRows:
    """All rows of the corpus in the tokens of ``tokenizer``; encodes the audio when its tokens are missing.

    Args:
        corpus_root: AudioFolder; may have no audio when ``shipped`` holds everything.
        shipped: folder of token shards that come with the corpus, or None.
        say: prints one line.

    Raises:
        TokenRowsError: neither tokens nor audio.
    """
    found: dict[str, Row] = {}
    sources: list[str] = []
    if shipped is not None and not Path(shipped).is_dir():
        raise TokenRowsError(f"data.tokens={shipped}: no such folder; null takes the audio of data.root alone.")
    has_audio = any((Path(corpus_root) / name).is_file() for name in METADATA_NAMES)
    if has_audio:
        cache = token_folder(corpus_name, tokenizer)
        # encode_corpus is quick when nothing changed: it compares the corpus' files with what it encoded.
        if not (cache / INDEX_NAME).is_file():
            say(f"no tokens of {corpus_root} by {tokenizer.name} yet: encoding its audio into {cache}")
        summary = encode_corpus(corpus_root, tokenizer, cache)
        if summary.rejected:
            say(f"{len(summary.rejected)} clips were rejected, the reasons stand in {cache}/rejected.jsonl")
        for row in read_shards(cache):
            found[row.id] = row
        sources.append(f"{len(found)} clips encoded from {corpus_root} ({cache})")
    if shipped is not None and (Path(shipped) / INDEX_NAME).is_file():
        index = read_index(shipped)
        if index.fingerprint == tokenizer.fingerprint:
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
        raise TokenRowsError(
            f"'{corpus_root}' has neither audio with metadata nor token shards: build a corpus with "
            "`python scripts/make_corpus.py`, or give data.root=FOLDER (and data.tokens=FOLDER for token shards)."
        )
    accelerator.wait_for_everyone()
    return TokenRows(sorted(found.values(), key=lambda row: row.id), sources)
