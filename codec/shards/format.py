"""What a folder of token shards must be: its schema, its limits, and the content of `index.json`, checked.

Shards are downloaded and handed on, so nothing in them is believed: what is read is checked against this.
"""

import json
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from codec.corpus.metadata import TooLarge, check_unpacked
from training.identity import fault_of_id, fault_of_name

FORMAT_VERSION = 1
INDEX_NAME = "index.json"
ROWS_PER_SHARD = 1024  # about an hour of utterances: what a killed encoding has to repeat at most
ROWS_PER_GROUP = 256  # what a reader holds in memory at a time
# A few kilobytes of parquet can hold billions of equal codes: what more than this must be unpacked for is refused.
CODES_PER_GROUP = 1 << 27  # 268 MB; a clip of 40 days at 12.5 frames/s and 3 levels, of 12 hours at 86 Hz and 32
LARGEST_CODEBOOK = 65_536

SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("codes", pa.list_(pa.uint16())),
        ("n_frames", pa.int32()),
        ("duration", pa.float64()),
        ("text", pa.string()),
        ("captions", pa.list_(pa.string())),
        ("speaker", pa.string()),
        ("domain", pa.string()),
        ("split", pa.string()),
        ("sha256", pa.string()),
        ("licence", pa.string()),
    ]
)
NEVER_NULL = ("id", "codes", "n_frames", "duration", "domain", "split")
INFO_KEY = b"tokenizer"  # of the parquet schema's metadata: a shard says by itself which tokenizer made it


class ShardError(ValueError):
    """A shard folder or a row cannot be used; the message says why and what to do."""


@dataclass(frozen=True)
class TokenizerInfo:
    """What is kept about the tokenizer that made the codes; `frame_rate` in Hz, a codebook size per level."""

    name: str
    fingerprint: str
    sample_rate: int
    frame_rate: float
    codebook_sizes: tuple[int, ...]

    @classmethod
    def of(cls, tokenizer: Any) -> "TokenizerInfo":
        """From an AudioTokenizer (codec/interface.py)."""
        return cls(
            name=str(tokenizer.name),
            fingerprint=str(tokenizer.fingerprint),
            sample_rate=int(tokenizer.sample_rate),
            frame_rate=float(tokenizer.frame_rate),
            codebook_sizes=tuple(int(size) for size in tokenizer.codebook_sizes),
        )

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> "TokenizerInfo":
        """From JSON. Raises ValueError, TypeError or KeyError where it is no tokenizer."""
        sizes = fields["codebook_sizes"]
        info = cls(**{**fields, "codebook_sizes": tuple(sizes)})
        _want(isinstance(info.name, str) and isinstance(info.fingerprint, str), "the tokenizer has no name")
        _want(_is_count(info.sample_rate, 1), f"sample_rate {info.sample_rate!r} is none")
        rate = info.frame_rate
        _want(isinstance(rate, int | float) and math.isfinite(rate) and rate > 0, f"frame_rate {rate!r} is none")
        sound = bool(sizes) and all(_is_count(size, 1) and size <= LARGEST_CODEBOOK for size in sizes)
        _want(sound, f"codebook_sizes {str(sizes)[:80]} are not whole numbers from 1 to {LARGEST_CODEBOOK}")
        return info

    @property
    def levels(self) -> int:
        return len(self.codebook_sizes)


@dataclass
class Row:
    """One tokenised clip. `codes`: uint16 [frames, levels]; `duration`: seconds of the source audio."""

    id: str
    codes: np.ndarray
    duration: float
    text: str | None = None
    captions: list[str] = field(default_factory=list)
    speaker: str | None = None
    domain: str = "sound"
    split: str = "train"
    sha256: str | None = None  # of the source audio's content (codec.corpus.read_audio_and_hash)
    licence: str | None = None

    @property
    def n_frames(self) -> int:
        return len(self.codes)

    @property
    def caption(self) -> str | None:
        """The first caption, if there is one."""
        return self.captions[0] if self.captions else None


@dataclass(frozen=True)
class IndexRow:
    """What the index knows of a clip without opening its shard."""

    id: str
    split: str
    domain: str
    n_frames: int

    def is_sound(self) -> bool:
        """Whether all is of its type, and the clip has a name and a frame."""
        named = isinstance(self.id, str) and isinstance(self.split, str) and isinstance(self.domain, str)
        return named and self.id != "" and _is_count(self.n_frames, 1)


@dataclass
class Index:
    """The content of `index.json`: the tokenizer, the shard files in order, and their rows in that order."""

    tokenizer: TokenizerInfo
    shards: list[tuple[str, int]]  # file name, rows in it
    rows: list[IndexRow]
    totals: dict[str, dict[str, dict[str, float]]]  # split -> domain -> {"clips", "hours", "frames"}
    corpus: str | None = None  # hash of the corpus' metadata, where an encoding made the shards

    @property
    def name(self) -> str:
        return self.tokenizer.name

    @property
    def fingerprint(self) -> str:
        return self.tokenizer.fingerprint

    @property
    def levels(self) -> int:
        return self.tokenizer.levels

    def is_of(self, tokenizer: Any) -> bool:
        """Whether the AudioTokenizer made the codes. Raises ShardError where only the fingerprint says so."""
        if self.fingerprint != tokenizer.fingerprint:
            return False
        here, there = TokenizerInfo.of(tokenizer), self.tokenizer
        for name in ("codebook_sizes", "frame_rate", "sample_rate"):
            if getattr(here, name) != getattr(there, name):
                raise ShardError(
                    f"the shards bear the fingerprint of {here.name} {here.fingerprint[:12]} and say {name} "
                    f"{getattr(there, name)}, not {getattr(here, name)}: encode the corpus again"
                )
        return True

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> "Index":
        """From the JSON of `index.json`. Raises ValueError, TypeError or KeyError where it is no index."""
        shards = [(shard["file"], shard["rows"]) for shard in content["shards"]]
        for name, count in shards:
            _want(isinstance(name, str) and _is_plain(name), f"{name!r} is not the plain name of a .parquet file")
            _want(_is_count(count, 0), f"{name} has {count!r} rows")
        _want(len({name for name, _ in shards}) == len(shards), "it lists a shard twice")
        rows = [IndexRow(*row) for row in content["rows"]]
        wrong = next((row for row in rows if not row.is_sound()), None)
        _want(wrong is None, f"it lists {str(wrong)[:120]}")
        for row in rows:
            if fault := fault_of_id(row.id):
                raise ValueError(f"the id {row.id[:120]!r} cannot be used: {fault}")
        for kind in ("split", "domain"):
            fault = fault_of_names(kind, {getattr(row, kind) for row in rows})
            _want(fault is None, str(fault))
        _want(len({row.id for row in rows}) == len(rows), "it lists a clip twice")
        _want(sum(count for _, count in shards) == len(rows), "its shards and its rows differ in number")
        totals = content["totals"]
        for domains in totals.values():
            for total in domains.values():
                _want(all(math.isfinite(total[key]) for key in ("clips", "hours", "frames")), "its totals are none")
        corpus = content["corpus"]
        _want(corpus is None or isinstance(corpus, str), "its corpus is none")
        return cls(TokenizerInfo.from_dict(content["tokenizer"]), shards, rows, totals, corpus)


def _want(held: bool, otherwise: str) -> None:
    if not held:
        raise ValueError(otherwise)


def fault_of_names(kind: str, names: Iterable[str]) -> str | None:
    """Which of the names is not what one sees of it, in a sentence; None where all are."""
    faults = ((name, fault_of_name(name)) for name in names)
    return next((f"the {kind} {name[:120]!r} cannot be used: {fault}" for name, fault in faults if fault), None)


def _is_count(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _is_plain(name: str) -> bool:
    """Whether it is the name of a parquet file, and of none in another folder."""
    return PurePosixPath(name).name == name and not set(name) & set("\\:\0") and name.endswith(".parquet")


def check_codes(identity: str, codes: np.ndarray, info: TokenizerInfo) -> None:
    """Refuse codes that a shard cannot hold. Raises ShardError."""
    if codes.ndim != 2 or codes.shape[1] != info.levels or not np.issubdtype(codes.dtype, np.integer):
        raise ShardError(
            f"clip {identity!r}: codes must be integers [frames, {info.levels}], not {codes.dtype} {list(codes.shape)}"
        )
    if len(codes) == 0:
        raise ShardError(f"clip {identity!r} has no frames")
    if codes.size > CODES_PER_GROUP:
        raise ShardError(f"clip {identity!r} has {codes.size} codes; shards hold at most {CODES_PER_GROUP} per clip")
    if max(info.codebook_sizes) > LARGEST_CODEBOOK:
        raise ShardError(
            f"{info.name} has a codebook of {max(info.codebook_sizes)} codes; shards hold at most {LARGEST_CODEBOOK}"
        )
    outside = (codes < 0) | (codes >= np.asarray(info.codebook_sizes))
    if outside.any():
        frame, level = np.argwhere(outside)[0]
        raise ShardError(
            f"clip {identity!r}: code {codes[frame, level]} at frame {frame} is not in level {level} "
            f"(0 to {info.codebook_sizes[level] - 1}); shards hold raw codes without a vocabulary offset"
        )


def check_schema(schema: pa.Schema) -> None:
    """Refuse columns that are missing or of another type. Raises ShardError; further columns are not read."""
    for column in SCHEMA:
        number = schema.get_field_index(column.name)
        if number < 0:
            raise ShardError(f"it has no column {column.name}")
        found, wanted = schema.field(number).type, column.type
        same = pa.types.is_list(found) and found.value_type == wanted.value_type if pa.types.is_list(wanted) else False
        if found != wanted and not same:
            raise ShardError(f"its column {column.name} is {found}, not {wanted}")


def check_group(parquet: pq.ParquetFile, number: int) -> None:
    """Refuse a row group that would take too much memory; reads none of it. Raises ShardError."""
    try:
        check_unpacked(parquet, number, CODES_PER_GROUP, [name for name in SCHEMA.names if name != "codes"])
    except TooLarge as error:
        raise ShardError(str(error)) from None


def read_json(text: str, make: Callable[[Any], Any]) -> Any:
    """``make(JSON)``. Raises ValueError with the reason, whatever is wrong with the text."""
    try:
        return make(json.loads(text))
    except KeyError as error:
        raise ValueError(f"it has no {error}") from None
    except (TypeError, AttributeError, RecursionError) as error:
        raise ValueError(str(error)) from None
