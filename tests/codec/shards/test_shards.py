"""Token shards: round trip, filters, refusals, and what `datasets` makes of them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from json_files import read_json

from codec import shards
from codec.corpus.metadata import TEXT_BYTES
from codec.shards import (
    INDEX_NAME,
    Row,
    ShardError,
    ShardWriter,
    TokenizerInfo,
    iterate_shards,
    read_index,
    read_shards,
)
from codec.shards import format as shard_format

INFO = TokenizerInfo("toy", "ab" * 32, 24_000, 12.5, (70, 2048, 65_536))


def make_rows(count: int = 25) -> list[Row]:
    random = np.random.default_rng(0)
    rows = []
    for number in range(count):
        frames = int(random.integers(1, 40))
        codes = np.stack([random.integers(0, size, frames) for size in INFO.codebook_sizes], axis=1)
        rows.append(
            Row(
                id=f"clip-{number}",
                codes=codes,
                duration=frames / 12.5,
                text=f"Text {number}: “ß”" if number % 2 else None,
                captions=[] if number % 2 else ["One caption.", "Another."],
                speaker="slt" if number % 2 else None,
                domain="speech" if number % 2 else "music",
                split=("train", "valid", "test")[number % 3],
                sha256=f"{number:064x}",
                licence="CC0",
            )
        )
    return rows


def write(folder: Path, rows: list[Row]) -> Path:
    with ShardWriter(folder, INFO, rows_per_shard=10) as writer:
        for row in rows:
            writer.add(row)
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write(tmp_path / "tokens", make_rows())


def test_round_trip(folder: Path) -> None:
    rows = make_rows()
    assert sorted(path.name for path in folder.iterdir()) == [
        INDEX_NAME,
        "shard-00000.parquet",
        "shard-00001.parquet",
        "shard-00002.parquet",
    ]
    back = read_shards(folder)
    for row, again in zip(rows, back, strict=True):
        assert again.codes.dtype == np.uint16 and again.codes.shape == (row.n_frames, 3)
        assert np.array_equal(again.codes, row.codes)
        assert {**vars(again), "codes": None} == {**vars(row), "codes": None}
    assert back[0].caption == "One caption." and back[1].caption is None
    index = read_index(folder)
    assert index.tokenizer == INFO and (index.name, index.levels) == ("toy", 3)
    assert [(row.id, row.split, row.domain, row.n_frames) for row in index.rows] == [
        (row.id, row.split, row.domain, row.n_frames) for row in rows
    ]
    music = [row for row in rows if row.split == "test" and row.domain == "music"]
    assert index.totals["test"]["music"]["clips"] == len(music)
    assert index.totals["test"]["music"]["hours"] == pytest.approx(sum(row.duration for row in music) / 3600)


def test_filters(folder: Path) -> None:
    rows = make_rows()
    chosen = [row.id for row in read_shards(folder, splits=["train", "valid"], domains=["speech"])]
    assert chosen == [row.id for row in rows if row.split != "test" and row.domain == "speech"]
    assert [row.id for row in iterate_shards(folder, splits="test")] == [row.id for row in rows if row.split == "test"]
    with pytest.raises(ShardError, match=r"no split \['dev'\]; it has \['test', 'train', 'valid'\]"):
        read_shards(folder, splits=["dev"])


def test_datasets_reads_the_shards(tmp_path: Path) -> None:
    rows = make_rows()
    folder = write(tmp_path / "tokens", rows)
    table = datasets.load_dataset(
        "parquet", data_files=str(folder / "*.parquet"), split="train", cache_dir=str(tmp_path / "cache")
    )
    assert table.num_rows == len(rows)
    for row, again in zip(rows, table, strict=True):
        assert (again["id"], again["text"], again["captions"]) == (row.id, row.text, row.captions)
        assert np.array_equal(np.asarray(again["codes"]).reshape(again["n_frames"], 3), row.codes)


@pytest.mark.parametrize(
    ("codes", "reason"),
    [
        (np.zeros((4, 2), np.int64), r"must be integers \[frames, 3\]"),
        (np.zeros((4, 3), np.float32), "must be integers"),
        (np.zeros((0, 3), np.int64), "no frames"),
        (np.full((4, 3), -1), "code -1 at frame 0 is not in level 0"),
        (np.array([[0, 0, 0], [0, 2048, 0]]), r"code 2048 at frame 1 is not in level 1 \(0 to 2047\)"),
    ],
)
def test_codes_that_do_not_fit_are_refused(tmp_path: Path, codes: np.ndarray, reason: str) -> None:
    writer = ShardWriter(tmp_path, INFO)
    with pytest.raises(ShardError, match=reason):
        writer.add(Row("a", codes, 1.0))


def test_second_id_and_used_folder_are_refused(tmp_path: Path) -> None:
    folder = write(tmp_path / "tokens", make_rows(3))
    with pytest.raises(ShardError, match="already holds token shards"):
        ShardWriter(folder, INFO)
    writer = ShardWriter(tmp_path / "other", INFO)
    writer.add(make_rows(1)[0])
    with pytest.raises(ShardError, match="added twice"):
        writer.add(make_rows(1)[0])


def test_unfinished_and_damaged_folders_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ShardError, match="holds no token shards"):
        read_index(tmp_path)
    whole = (folder / INDEX_NAME).read_text()

    def refused(reason: str) -> None:
        with pytest.raises(ShardError, match=reason) as caught:
            read_shards(folder)
        assert "\n" not in str(caught.value)

    (folder / INDEX_NAME).unlink()
    refused("did not finish; run codec/encode.py again")
    (folder / INDEX_NAME).write_text(whole[: len(whole) // 2])
    refused("damaged")
    (folder / INDEX_NAME).write_text(json.dumps({**json.loads(whole), "format": 99}))
    refused("format 99")
    content = json.loads(whole)
    (folder / INDEX_NAME).write_text(json.dumps({**content, "rows": content["rows"][:-1]}))
    refused("differ in number")
    content["tokenizer"]["fingerprint"] = "cd" * 32
    (folder / INDEX_NAME).write_text(json.dumps(content))
    refused("was made by toy abababababab, not by toy cdcdcdcdcdcd")
    (folder / INDEX_NAME).write_text(whole)
    shard = folder / "shard-00001.parquet"
    shard.write_bytes(shard.read_bytes()[:200])
    refused("not a whole parquet file")
    shard.unlink()
    refused("lacks shard-00001.parquet")


@pytest.mark.slow
def test_a_damaged_byte_is_refused_or_changes_nothing(tmp_path: Path) -> None:
    """Also where pyarrow by itself ends the process, or reads texts that are none."""
    shard = write(tmp_path / "tokens", make_rows(10)) / "shard-00000.parquet"
    whole, outcomes = shard.read_bytes(), set()
    rows = [(row.codes.tolist(), {**vars(row), "codes": None}) for row in read_shards(shard.parent)]
    for place in range(0, len(whole), 12):
        shard.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        try:
            assert [(r.codes.tolist(), {**vars(r), "codes": None}) for r in read_shards(shard.parent)] == rows, place
            outcomes.add("read")
        except ShardError as error:
            assert "shard-00000.parquet" in str(error) and str(error).isprintable(), place
            outcomes.add("refused")
    assert outcomes == {"read", "refused"}


def test_an_error_inside_the_writer_leaves_no_index(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="stop"), ShardWriter(tmp_path, INFO, rows_per_shard=2) as writer:
        for row in make_rows(5):
            writer.add(row)
        raise RuntimeError("stop")
    with pytest.raises(ShardError, match="did not finish"):
        read_index(tmp_path)


def alter_shard(folder: Path, change: Callable[[dict[str, Any]], object], **types: pa.DataType) -> None:
    """Change columns of the first shard, and the types of some; what its schema says of the tokenizer stays."""
    path = folder / "shard-00000.parquet"
    table = pq.read_table(path)
    columns = table.to_pydict()
    change(columns)
    fields = [(name, types.get(name) or table.schema.field(name).type) for name in columns]
    schema = pa.schema(fields, metadata=table.schema.metadata)
    pq.write_table(pa.Table.from_pydict(columns, schema=schema), path, row_group_size=4)


Change = Callable[[dict[str, Any]], object]  # of the columns of a shard, or of an index


def cell(column: str, value: Any) -> Change:
    return lambda columns: columns[column].__setitem__(5, value)


def code(value: Any, place: int = 2) -> Change:
    return lambda columns: columns["codes"][5].__setitem__(place, value)


def field(place: int, value: Any) -> Change:
    return lambda index: index["rows"][1].__setitem__(place, value)


def tokenizer(**values: Any) -> Change:
    return lambda index: index["tokenizer"].update(values)


def shard(**values: Any) -> Change:
    return lambda index: index["shards"][0].update(values)


@pytest.mark.parametrize(
    ("change", "types", "reason"),
    [
        (code(-5), {"codes": pa.list_(pa.int64())}, r"column codes is list<.*int64>, not list<.*uint16>"),
        (code(1.9), {"codes": pa.list_(pa.float64())}, r"column codes is list<.*double>"),
        (code(None), {}, "column codes has empty cells"),
        (cell("codes", None), {}, "column codes has empty cells"),
        (
            code(70, 0),
            {},
            r"clip 'clip-5': code 70 at frame 0 is not in level 0 \(0 to 69",
        ),
        (lambda c: c["codes"][5].pop(), {}, r"clip 'clip-5' has \d+ codes, not \d+ frames of 3"),
        (cell("n_frames", 2**31 - 1), {}, r"its index says .*'clip-5'"),
        (cell("id", "clip-6"), {}, r"it holds .*'clip-6'.* its index says .*'clip-5'"),
        (cell("split", "train"), {}, r"its index says .*'test'"),
        (cell("id", None), {}, "column id has empty cells"),
        (cell("speaker", "a\u202eb"), {}, r"the speaker 'a\\u202eb' cannot be used: it has"),
        (cell("licence", "\x1b[2J"), {}, r"the licence '\\x1b\[2J' cannot be used: it has"),
        (cell("duration", float("nan")), {}, "lasts nan s"),
        (cell("duration", float("inf")), {}, "lasts inf s"),
        (cell("duration", 1e9), {}, r"lasts 1e\+09 s, and its frames"),
        (cell("captions", [None]), {}, "column captions has empty cells"),
        (lambda c: c.pop("licence"), {}, "has no column licence"),
        (lambda c: None, {"text": pa.large_string()}, "column text is large_string"),
    ],
)
def test_what_a_shard_holds_is_checked(
    change: Change, types: dict[str, pa.DataType], reason: str, folder: Path
) -> None:
    alter_shard(folder, lambda columns: None)
    assert len(read_shards(folder)) == 25
    alter_shard(folder, change, **types)
    with pytest.raises(ShardError, match=reason) as caught:
        read_shards(folder)
    assert "shard-00000.parquet" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (shard(file="../tokens/shard-00000.parquet"), "not the plain name"),
        (shard(file="/etc/passwd"), "not the plain name"),
        (shard(file="index.json"), "not the plain name"),
        (shard(file=7), "7 is not the plain name"),
        (shard(rows=-10), "has -10 rows"),
        (lambda c: c["shards"].append(c["shards"][0]), "lists a shard twice"),
        (field(0, "clip-0"), "lists a clip twice"),
        (field(3, 1.5), r"lists IndexRow\(.*1.5"),
        (field(0, None), r"lists IndexRow\(id=None"),
        (
            field(0, "../../victim"),
            "the id '../../victim' cannot be used: it leads out of",
        ),
        (field(0, "/etc/victim"), "the id '/etc/victim' cannot be used: it is a path of"),
        (field(0, "a\u202eb"), r"the id 'a\\u202eb' cannot be used: it has control"),
        (field(1, "\x1b[2J"), r"the split '\\x1b\[2J' cannot be used: it has control"),
        (field(2, "a\u2067"), r"the domain 'a\\u2067' cannot be used: it has control"),
        (lambda c: c["rows"][1].pop(), "is damaged"),
        (tokenizer(codebook_sizes=[]), "codebook_sizes"),
        (tokenizer(codebook_sizes=[70, "2048", 65_536]), "codebook_sizes"),
        (tokenizer(codebook_sizes=[70, 2048, 1 << 40]), "codebook_sizes"),
        (tokenizer(frame_rate=float("nan")), "frame_rate nan"),
        (tokenizer(sample_rate=0), "sample_rate 0"),
        (tokenizer(extra=1), "is damaged"),
        (lambda c: c.update(totals=[]), "is damaged"),
        (lambda c: c["totals"]["train"].update(speech={"clips": "many"}), "is damaged"),
        (lambda c: c.pop("corpus"), "it has no 'corpus'"),
    ],
)
def test_what_an_index_says_is_checked(change: Change, reason: str, folder: Path) -> None:
    content = read_json(folder / INDEX_NAME)
    change(content)
    (folder / INDEX_NAME).write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(ShardError, match=reason) as caught:
        read_shards(folder)
    assert str(folder) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["[" * 100_000, "9" * 5000, '{"format": 1, "shards": "\ud800"}', "[]", "null", ""])
def test_an_index_that_is_no_index_is_refused(text: str, folder: Path) -> None:
    (folder / INDEX_NAME).write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(ShardError, match="is damaged"):
        read_index(folder)


def test_a_small_shard_that_unpacks_to_much_is_refused_unread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shard_format, "CODES_PER_GROUP", 1 << 21)
    folder = write(tmp_path / "tokens", make_rows(10))
    table = pq.read_table(folder / "shard-00000.parquet")
    count = (1 << 21) // 10 + 2  # codes of each clip: a little too many together
    codes = pa.ListArray.from_arrays(np.arange(11) * count, pa.array(np.zeros(10 * count, np.uint16)))
    table = table.set_column(1, table.schema.field("codes"), codes)
    pq.write_table(table, folder / "shard-00000.parquet", compression="zstd")
    assert (folder / "shard-00000.parquet").stat().st_size < 10_000
    monkeypatch.delattr(pq.ParquetFile, "read_row_group")
    with pytest.raises(ShardError, match=r"the codes of 10 rows are 2097\d+ values; a row group holds at most 2097152"):
        read_shards(folder)


def test_a_long_text_that_many_rows_share_is_refused_before_it_is_copied(tmp_path: Path) -> None:
    rows = make_rows(2)
    for row in rows:
        row.text = "a" * (TEXT_BYTES + 1)
    folder = write(tmp_path / "tokens", rows)
    with pytest.raises(ShardError, match="column text has a text of 1048577 bytes"):
        read_shards(folder)


def test_long_clips_are_written_in_groups_that_can_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (shards, shard_format):
        monkeypatch.setattr(module, "CODES_PER_GROUP", 150)
    rows = make_rows()
    folder = write(tmp_path / "tokens", rows)
    assert pq.ParquetFile(folder / "shard-00000.parquet").num_row_groups > 1
    assert [row.id for row in read_shards(folder)] == [row.id for row in rows]
    with pytest.raises(ShardError, match="has 300 codes; shards hold at most 150 per clip"):
        ShardWriter(tmp_path / "other", INFO).add(Row("a", np.zeros((100, 3), np.int64), 8.0))
