"""Token shards: a tokenised corpus on disk, parquet files with one row per clip and an `index.json`.

    with ShardWriter(folder, TokenizerInfo.of(tokenizer)) as writer:
        writer.add(Row(id="a", codes=codes, duration=3.2, text="hello", domain="speech"))
    index = read_index(folder)
    rows = read_shards(folder, splits=["train"])

Codes are raw (no vocabulary offset) and lie frame by frame: [frames, levels] flattened. Every file is written
to a temporary name and renamed, the index last: a folder with an index is whole, one without is unfinished.
What is read is checked (codec/shards/format.py).
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, astuple
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from codec.corpus.metadata import TEXT_BYTES, open_parquet
from codec.shards.format import (
    CODES_PER_GROUP,
    FORMAT_VERSION,
    INDEX_NAME,
    INFO_KEY,
    NEVER_NULL,
    ROWS_PER_GROUP,
    ROWS_PER_SHARD,
    SCHEMA,
    Index,
    IndexRow,
    Row,
    ShardError,
    TokenizerInfo,
    check_codes,
    check_group,
    check_schema,
    fault_of_names,
    read_json,
)
from training.checkpoint import write_atomically, write_file
from training.identity import first_line

__all__ = [
    "INDEX_NAME",
    "ROWS_PER_SHARD",
    "Index",
    "IndexRow",
    "Row",
    "ShardError",
    "ShardWriter",
    "TokenizerInfo",
    "check_shard",
    "iterate_shards",
    "parse_index",
    "read_columns",
    "read_index",
    "read_shards",
    "shard_name",
    "write_index",
    "write_shard",
    "writing",
]

BROKEN = (pa.ArrowException, OSError, UnicodeDecodeError)  # what pyarrow raises over a damaged file


@contextmanager
def writing(place: str | Path) -> Iterator[None]:
    """What the system refuses inside the ``with`` block, as a full disk does, is a ShardError in one sentence."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or first_line(error)
        raise ShardError(
            f"{place} cannot be written ({reason}): make room there or give another folder; what is finished there "
            "stays, and the same command goes on from it"
        ) from error


def write_shard(path: Path, rows: list[Row], info: TokenizerInfo, notes: dict[bytes, bytes] | None = None) -> None:
    """Writes one shard; `notes` join the schema metadata. Raises ShardError for codes that do not fit."""
    for row in rows:
        check_codes(row.id, row.codes, info)
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
    size = _rows_per_group([row.codes.size for row in rows])
    with writing(path):
        write_atomically(
            path,
            lambda temporary: pq.write_table(
                table, temporary, compression="zstd", row_group_size=size, write_page_checksum=True
            ),
        )


def _rows_per_group(sizes: list[int]) -> int:
    """ROWS_PER_GROUP, or fewer where long clips would make a group that `check_group` refuses."""
    count = ROWS_PER_GROUP
    while count > 1 and any(sum(sizes[i : i + count]) > CODES_PER_GROUP for i in range(0, len(sizes), count)):
        count //= 2
    return count


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
        check_codes(row.id, row.codes, self.info)
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
        table = read_columns(path, ["id", "split", "domain", "n_frames", "duration"])
        shards.append((path.name, len(table)))
        for row in table:
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
    with writing(folder / INDEX_NAME):
        write_file(folder / INDEX_NAME, text)
    return index


def check_shard(path: Path, info: TokenizerInfo) -> dict[bytes, bytes]:
    """The notes in a shard's schema. Raises ShardError when it is damaged, no shard, or another tokenizer's."""
    try:
        schema = pq.read_schema(path)
    except BROKEN as error:
        raise ShardError(
            f"{path} is not a whole parquet file ({first_line(error)}); remove it and encode again"
        ) from error
    notes = schema.metadata or {}
    try:
        check_schema(schema)
        made_by = read_json(notes[INFO_KEY].decode(), TokenizerInfo.from_dict) if INFO_KEY in notes else None
    except ValueError as error:
        raise ShardError(f"{path} is no token shard ({first_line(error)}); remove it and encode again") from error
    if made_by != info:
        other = f"{made_by.name} {made_by.fingerprint[:12]}" if made_by else "a tokenizer it does not name"
        raise ShardError(
            f"{path} was made by {other}, not by {info.name} {info.fingerprint[:12]}; encode into another folder"
        )
    return notes


def read_columns(path: Path, columns: Sequence[str]) -> list[dict[str, Any]]:
    """Some columns of a shard, a dictionary per row. Raises ShardError where it is damaged."""
    try:
        return pq.read_table(path, columns=list(columns), page_checksum_verification=True).to_pylist()
    except BROKEN as error:
        raise ShardError(f"{path} is damaged ({first_line(error)}); remove it and encode again") from error


def parse_index(data: bytes, place: str) -> Index:
    """The index whose bytes these are; ``place`` names it in messages. Raises ShardError."""

    def parse(content: Any) -> Index:
        if content["format"] != FORMAT_VERSION:
            raise ShardError(
                f"{place} has format {content['format']}, this version reads {FORMAT_VERSION}; encode the corpus again"
            )
        return Index.from_dict(content)

    try:
        return read_json(data.decode("utf-8"), parse)
    except ShardError:
        raise
    except ValueError as error:
        raise ShardError(
            f"{place} is damaged ({first_line(error)}); remove it and run codec/encode.py again"
        ) from error


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

    index = parse_index(path.read_bytes(), str(path))
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
        for row in _read_shard(folder / name, listed, index.tokenizer):
            if row.split in wanted_splits and row.domain in wanted_domains:
                yield row


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


def _read_shard(path: Path, listed: Sequence[IndexRow], info: TokenizerInfo) -> Iterator[Row]:
    """The rows of one shard, which its index lists. Raises ShardError."""
    try:
        with open_parquet(path) as parquet:
            if parquet.metadata.num_rows != len(listed):
                raise ShardError(f"it has {parquet.metadata.num_rows} rows, its index says {len(listed)}")
            start = 0
            for number in range(parquet.num_row_groups):
                check_group(parquet, number)
                table = parquet.read_row_group(number, columns=SCHEMA.names)
                table.validate(full=True)  # numbers beyond a dictionary would be read beyond its memory
                yield from _rows(table, listed[start : start + table.num_rows], info)
                start += table.num_rows
    except ShardError as error:
        raise ShardError(f"{path}: {error}; encode the corpus again") from None
    except BROKEN as error:
        raise ShardError(f"{path} is damaged ({first_line(error)}); encode the corpus again") from error


def _rows(table: pa.Table, listed: Sequence[IndexRow], info: TokenizerInfo) -> Iterator[Row]:
    codes, captions = (table.column(name).combine_chunks() for name in ("codes", "captions"))
    empty = [name for name in NEVER_NULL if table.column(name).null_count]
    empty += [name for name, cells in (("codes", codes), ("captions", captions)) if cells.values.null_count]
    if empty:
        raise ShardError(f"its column {empty[0]} has empty cells")
    for name in ("id", "text", "speaker", "domain", "split", "sha256", "licence"):
        _check_texts(name, table.column(name).combine_chunks())
    _check_texts("captions", captions.values)
    values, offsets = codes.values.to_numpy(), codes.offsets.to_numpy()
    sizes = np.asarray(info.codebook_sizes)
    for number, columns in enumerate(table.drop_columns(["codes"]).to_pylist()):
        n_frames = columns.pop("n_frames")
        place = IndexRow(columns["id"], columns["split"], columns["domain"], n_frames)
        if place != listed[number]:
            raise ShardError(f"it holds {place}, its index says {listed[number]}")
        if not 0 <= columns["duration"] < float("inf"):
            raise ShardError(f"clip {place.id!r} lasts {columns['duration']} s")
        told = n_frames / info.frame_rate  # s; the last frame may be a part of one, or have been padded
        if abs(columns["duration"] - told) > 1 + 0.1 * told:
            raise ShardError(f"clip {place.id!r} lasts {columns['duration']:g} s, and its frames {told:g} s")
        # A copy: a view would keep the codes of the whole row group alive.
        flat = values[offsets[number] : offsets[number + 1]].copy()
        if len(flat) != n_frames * info.levels:
            raise ShardError(f"clip {place.id!r} has {len(flat)} codes, not {n_frames} frames of {info.levels}")
        own = flat.reshape(n_frames, info.levels)
        if (own >= sizes).any():
            check_codes(place.id, own, info)
        yield Row(codes=own, **{**columns, "captions": columns["captions"] or []})


def _check_texts(name: str, cells: pa.DictionaryArray) -> None:
    longest = pc.max(pc.binary_length(cells.dictionary)).as_py() or 0
    if longest > TEXT_BYTES:
        raise ShardError(f"its column {name} has a text of {longest} bytes; at most {TEXT_BYTES} are read")
    if name in ("speaker", "licence") and (fault := fault_of_names(name, filter(None, cells.dictionary.to_pylist()))):
        raise ShardError(fault)


def read_shards(
    folder: str | Path, splits: Iterable[str] | None = None, domains: Iterable[str] | None = None
) -> list[Row]:
    """All rows of a shard folder, or those of the named splits and domains, in index order.

    At 12.5 frames/s and 3 levels 1,000 hours take 270 MB; use `iterate_shards` where that is too much.
    Raises ShardError when the folder is unfinished or damaged, or has none of the named splits or domains.
    """
    return list(iterate_shards(folder, splits, domains))
