"""Token shards: a tokenised corpus on disk, parquet files with one row per clip and an `index.json`.

    with ShardWriter(folder, TokenizerInfo.of(tokenizer)) as writer:
        writer.add(Row(id="a", codes=codes, duration=3.2, text="hello", domain="speech"))
    index = read_index(folder)
    rows = read_shards(folder, splits=["train"])

Codes are raw (no vocabulary offset) and lie frame by frame: [frames, levels] flattened. Every file is written
to a temporary name and renamed, the index last: a folder with an index is whole, one without is unfinished.
"""

import json
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, astuple, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

FORMAT_VERSION = 1
INDEX_NAME = "index.json"
ROWS_PER_SHARD = 1024  # about an hour of utterances: what a killed encoding has to repeat at most
ROWS_PER_GROUP = 256  # what a reader holds in memory at a time

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
        return cls(**{**fields, "codebook_sizes": tuple(fields["codebook_sizes"])})

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
    def sample_rate(self) -> int:
        return self.tokenizer.sample_rate

    @property
    def frame_rate(self) -> float:
        return self.tokenizer.frame_rate

    @property
    def codebook_sizes(self) -> tuple[int, ...]:
        return self.tokenizer.codebook_sizes

    @property
    def levels(self) -> int:
        return self.tokenizer.levels


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Lets `write` fill a temporary file beside `path`, flushes it to the disk and renames it."""
    temporary = path.with_name(f".{path.name}.tmp")
    write(temporary)
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    os.replace(temporary, path)


def write_shard(path: Path, rows: list[Row], info: TokenizerInfo, notes: dict[bytes, bytes] | None = None) -> None:
    """Writes one shard; `notes` join the schema metadata. Raises ShardError for codes that do not fit."""
    for row in rows:
        _check_codes(row, info)
    columns = {
        "id": [row.id for row in rows],
        "codes": [np.ascontiguousarray(row.codes, dtype=np.uint16).reshape(-1) for row in rows],
        "n_frames": [row.n_frames for row in rows],
        **{
            name: [getattr(row, name) for row in rows]
            for name in SCHEMA.names
            if name not in {"id", "codes", "n_frames"}
        },
    }
    schema = SCHEMA.with_metadata({INFO_KEY: json.dumps(asdict(info)).encode(), **(notes or {})})
    table = pa.Table.from_pydict(columns, schema=schema)
    write_atomically(
        path,
        lambda temporary: pq.write_table(table, temporary, compression="zstd", row_group_size=ROWS_PER_GROUP),
    )


def _check_codes(row: Row, info: TokenizerInfo) -> None:
    codes = row.codes
    if codes.ndim != 2 or codes.shape[1] != info.levels or not np.issubdtype(codes.dtype, np.integer):
        raise ShardError(
            f"clip {row.id!r}: codes must be integers [frames, {info.levels}], not {codes.dtype} {list(codes.shape)}"
        )
    if len(codes) == 0:
        raise ShardError(f"clip {row.id!r} has no frames")
    if max(info.codebook_sizes) > 65_536:
        raise ShardError(f"{info.name} has a codebook of {max(info.codebook_sizes)} codes; shards hold at most 65536")
    outside = (codes < 0) | (codes >= np.asarray(info.codebook_sizes))
    if outside.any():
        frame, level = np.argwhere(outside)[0]
        raise ShardError(
            f"clip {row.id!r}: code {codes[frame, level]} at frame {frame} is not in level {level} "
            f"(0 to {info.codebook_sizes[level] - 1}); shards hold raw codes without a vocabulary offset"
        )


class ShardWriter:
    """Writes rows into shards of bounded size; `close()` writes the index that makes the folder readable."""

    def __init__(self, folder: str | Path, info: TokenizerInfo, rows_per_shard: int = ROWS_PER_SHARD) -> None:
        self.folder = Path(folder)
        self.info = info
        self.rows_per_shard = rows_per_shard
        self.folder.mkdir(parents=True, exist_ok=True)
        if any(self.folder.glob("shard-*.parquet")) or (self.folder / INDEX_NAME).exists():
            raise ShardError(f"{self.folder} already holds token shards; remove it or write into another folder")
        self._pending: list[Row] = []
        self._ids: set[str] = set()
        self._shards = 0

    def add(self, row: Row) -> None:
        """Takes one row; raises ShardError for a second one with the same id or for codes that do not fit."""
        if row.id in self._ids:
            raise ShardError(f"clip id {row.id!r} was added twice")
        _check_codes(row, self.info)
        self._ids.add(row.id)
        self._pending.append(row)
        if len(self._pending) >= self.rows_per_shard:
            self._flush()

    def close(self) -> Index:
        """Writes what is pending and the index."""
        if self._pending:
            self._flush()
        return write_index(self.folder, self.info)

    def _flush(self) -> None:
        write_shard(self.folder / shard_name(self._shards), self._pending, self.info)
        self._pending = []
        self._shards += 1

    def __enter__(self) -> "ShardWriter":
        return self

    def __exit__(self, exception_type: type[BaseException] | None, *_: object) -> None:
        if exception_type is None:  # after an error the folder stays without an index, that is unfinished
            self.close()


def shard_name(number: int) -> str:
    return f"shard-{number:05d}.parquet"


def write_index(folder: str | Path, info: TokenizerInfo, corpus: str | None = None) -> Index:
    """Builds `index.json` from the shard files of `folder`. Raises ShardError for an id that occurs twice."""
    folder = Path(folder)
    shards: list[tuple[str, int]] = []
    rows: list[IndexRow] = []
    totals: dict[str, dict[str, dict[str, float]]] = {}
    seen: set[str] = set()
    for path in sorted(folder.glob("shard-*.parquet")):
        check_shard(path, info)
        table = pq.read_table(path, columns=["id", "split", "domain", "n_frames", "duration"])
        shards.append((path.name, table.num_rows))
        for row in table.to_pylist():
            if row["id"] in seen:
                raise ShardError(f"clip id {row['id']!r} occurs twice in {folder}; remove the folder and encode again")
            seen.add(row["id"])
            rows.append(IndexRow(row["id"], row["split"], row["domain"], row["n_frames"]))
            total = totals.setdefault(row["split"], {}).setdefault(
                row["domain"], {"clips": 0, "hours": 0.0, "frames": 0}
            )
            total["clips"] += 1
            total["hours"] += row["duration"] / 3600
            total["frames"] += row["n_frames"]
    index = Index(info, shards, rows, totals, corpus)
    content = {
        "format": FORMAT_VERSION,
        "tokenizer": asdict(info),
        "levels": info.levels,
        "corpus": corpus,
        "totals": totals,
        "shards": [{"file": name, "rows": count} for name, count in shards],
    }
    # One row per line: an index of a large corpus stays readable and compares well.
    head = json.dumps(content, indent=1, ensure_ascii=False)
    lines = ",\n".join(f"  {json.dumps(astuple(row), ensure_ascii=False)}" for row in rows)
    text = f'{head[:-2]},\n "rows": [\n{lines}\n ]\n}}\n'
    write_atomically(folder / INDEX_NAME, lambda temporary: _write_text(temporary, text))
    return index


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def check_shard(path: Path, info: TokenizerInfo) -> dict[bytes, bytes]:
    """The notes in a shard's schema. Raises ShardError when it is damaged or another tokenizer's."""
    try:
        notes = pq.read_schema(path).metadata or {}
    except (pa.ArrowInvalid, OSError) as error:
        raise ShardError(f"{path} is not a whole parquet file ({error}); remove it and encode again") from error
    made_by = TokenizerInfo.from_dict(json.loads(notes[INFO_KEY])) if INFO_KEY in notes else None
    if made_by != info:
        other = f"{made_by.name} {made_by.fingerprint[:12]}" if made_by else "a tokenizer it does not name"
        raise ShardError(
            f"{path} was made by {other}, not by {info.name} {info.fingerprint[:12]}; encode into another folder"
        )
    return notes


def read_index(folder: str | Path) -> Index:
    """The index of a shard folder. Raises ShardError when it is missing, damaged or unlike the shards."""
    folder = Path(folder)
    path = folder / INDEX_NAME
    if not path.is_file():
        if any(folder.glob("shard-*.parquet")):
            raise ShardError(
                f"{folder} has shards but no {INDEX_NAME}: its encoding did not finish; run codec/encode.py again"
            )
        raise ShardError(f"{folder} holds no token shards; make them with python codec/encode.py")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        version = content["format"]
        if version != FORMAT_VERSION:
            raise ShardError(
                f"{path} has format {version}, this version reads {FORMAT_VERSION}; encode the corpus again"
            )
        index = Index(
            tokenizer=TokenizerInfo.from_dict(content["tokenizer"]),
            shards=[(shard["file"], shard["rows"]) for shard in content["shards"]],
            rows=[IndexRow(*row) for row in content["rows"]],
            totals=content["totals"],
            corpus=content["corpus"],
        )
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise ShardError(f"{path} is damaged ({error!r}); remove it and run codec/encode.py again") from error
    if sum(count for _, count in index.shards) != len(index.rows):
        raise ShardError(
            f"{path} contradicts itself: its shards and its rows differ in number; encode the corpus again"
        )
    for name, _ in index.shards:
        if not (folder / name).is_file():
            raise ShardError(f"{folder} lacks {name}, which its index lists; encode the corpus again")
    return index


def iterate_shards(
    folder: str | Path, splits: Iterable[str] | None = None, domains: Iterable[str] | None = None
) -> Iterator[Row]:
    """The rows of a shard folder one by one in index order, holding one row group in memory at a time."""
    folder = Path(folder)
    index = read_index(folder)
    wanted_splits = _wanted(splits, "split", {row.split for row in index.rows}, folder)
    wanted_domains = _wanted(domains, "domain", {row.domain for row in index.rows}, folder)
    start = 0
    for name, count in index.shards:
        listed = index.rows[start : start + count]
        start += count
        if not any(row.split in wanted_splits and row.domain in wanted_domains for row in listed):
            continue
        check_shard(folder / name, index.tokenizer)
        with pq.ParquetFile(folder / name) as parquet:
            if parquet.metadata.num_rows != count:
                raise ShardError(
                    f"{folder / name} has {parquet.metadata.num_rows} rows, its index says {count}; "
                    "encode the corpus again"
                )
            for group in range(parquet.num_row_groups):
                yield from _rows(parquet.read_row_group(group), index.levels, wanted_splits, wanted_domains)


def _wanted(names: Iterable[str] | None, kind: str, present: set[str], folder: Path) -> set[str]:
    if names is None:
        return present
    if isinstance(names, str):
        names = [names]
    wanted = set(names)
    missing = wanted - present
    if missing == wanted:
        raise ShardError(f"{folder} has no {kind} {sorted(missing)}; it has {sorted(present)}")
    return wanted


def _rows(table: pa.Table, levels: int, splits: set[str], domains: set[str]) -> Iterator[Row]:
    codes = table.column("codes").combine_chunks()
    values = codes.values.to_numpy(zero_copy_only=False)
    offsets = codes.offsets.to_numpy()
    for number, columns in enumerate(table.drop_columns(["codes"]).to_pylist()):
        if columns["split"] not in splits or columns["domain"] not in domains:
            continue
        n_frames = columns.pop("n_frames")
        # A copy: a view would keep the codes of the whole row group alive.
        flat = values[offsets[number] : offsets[number + 1]].copy()
        if len(flat) != n_frames * levels:
            raise ShardError(
                f"clip {columns['id']!r} has {len(flat)} codes, not {n_frames} frames of {levels}; "
                "encode the corpus again"
            )
        yield Row(codes=flat.reshape(n_frames, levels), **{**columns, "captions": columns["captions"] or []})


def read_shards(
    folder: str | Path, splits: Iterable[str] | None = None, domains: Iterable[str] | None = None
) -> list[Row]:
    """All rows of a shard folder, or those of the named splits and domains, in index order.

    At 12.5 frames/s and 3 levels 1,000 hours take 270 MB; use `iterate_shards` where that is too much.
    Raises ShardError when the folder is unfinished or damaged, or has none of the named splits or domains.
    """
    return list(iterate_shards(folder, splits, domains))
