"""Token shards: round trip, filters, refusals, and what `datasets` makes of them."""

import json
from pathlib import Path

import datasets
import numpy as np
import pytest

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


def test_round_trip(tmp_path: Path) -> None:
    rows = make_rows()
    folder = write(tmp_path / "tokens", rows)
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


def test_filters(tmp_path: Path) -> None:
    rows = make_rows()
    folder = write(tmp_path / "tokens", rows)
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


def test_unfinished_and_damaged_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ShardError, match="holds no token shards"):
        read_index(tmp_path)
    folder = write(tmp_path / "tokens", make_rows())
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


def test_an_error_inside_the_writer_leaves_no_index(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="stop"), ShardWriter(tmp_path, INFO, rows_per_shard=2) as writer:
        for row in make_rows(5):
            writer.add(row)
        raise RuntimeError("stop")
    with pytest.raises(ShardError, match="did not finish"):
        read_index(tmp_path)
