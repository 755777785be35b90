"""Shards that are not what they say, in every program that reads some: one sentence, and no code of theirs is used."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from accelerate import Accelerator
from json_files import read_json
from tiny_models import tiny_codec
from tiny_tones import write_corpus

import text_backbone
from codec.encode import encode_corpus
from codec.shards import INDEX_NAME, ShardError
from eval import likelihood
from eval.probes import words as word_probe
from lm.recipe.token_rows import find_token_rows
from tasks.base import make_task
from training.config import compose

SHARD = "shard-00000.parquet"


def rewrite(folder: Path, change: Callable[[dict[str, Any]], object], kind: pa.DataType | None = None) -> None:
    """Change the columns of the only shard."""
    table = pq.read_table(folder / SHARD)
    columns = table.to_pydict()
    change(columns)
    fields = [pa.field("codes", pa.list_(kind)) if kind and f.name == "codes" else f for f in table.schema]
    schema = pa.schema(fields, metadata=table.schema.metadata)
    pq.write_table(pa.Table.from_pydict(columns, schema=schema), folder / SHARD)


def code_outside(folder: Path) -> None:
    rewrite(folder, lambda columns: columns["codes"][-1].__setitem__(0, 32))


def code_between(folder: Path) -> None:
    rewrite(folder, lambda columns: columns["codes"][-1].__setitem__(0, 1.9), pa.float64())


def file_elsewhere(folder: Path) -> None:
    (folder / SHARD).rename(folder.parent / SHARD)
    text = (folder / INDEX_NAME).read_text(encoding="utf-8")
    (folder / INDEX_NAME).write_text(text.replace(SHARD, f"../{SHARD}"), encoding="utf-8")


def larger_codebooks(folder: Path) -> None:
    """Both the index and the shard say so: the codes are in range, and beyond every model's vocabulary."""
    index = read_json(folder / INDEX_NAME)
    index["tokenizer"]["codebook_sizes"] = [65_536] * 3
    (folder / INDEX_NAME).write_text(json.dumps(index), encoding="utf-8")
    table = pq.read_table(folder / SHARD)
    metadata = {**table.schema.metadata, b"tokenizer": json.dumps(index["tokenizer"]).encode()}
    pq.write_table(table.replace_schema_metadata(metadata), folder / SHARD)


def train_on_named(root: Path) -> None:
    data = compose("lm_train", [f"data.tokens={root}/tokens"]).data
    find_token_rows(data, tiny_codec(), Accelerator(cpu=True), print)  # lm/train.py refuses by its ShardError


def train_on_shipped(root: Path) -> None:
    find_token_rows(compose("lm_train", [f"data.root={root}"]).data, tiny_codec(), Accelerator(cpu=True), print)


def predict(root: Path) -> None:
    cfg = compose("eval_likelihood", ["task=tts", f"data.root={root}"])
    likelihood.find_rows(cfg, tiny_codec(), make_task(cfg.task))


def probe(root: Path) -> None:
    word_probe.read_tokens(root / "tokens", tiny_codec())


def train_text(root: Path) -> None:
    text_backbone.sentences_of(compose("ablate_lm", [f"data.root={root}"]))


READERS = (train_on_named, train_on_shipped, predict, probe, train_text)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("attack", "reason"),
    [
        (code_outside, "code 32 at frame 0 is not in level 0"),
        (code_between, "column codes is list<"),
        (file_elsewhere, "is not the plain name of a .parquet file"),
        (larger_codebooks, "codebook_sizes (65536, 65536, 65536), not (32, 32, 32)"),
    ],
)
@pytest.mark.parametrize("reader", READERS)
def test_shards_that_are_not_what_they_say_are_refused(
    reader: Callable[[Path], None], attack: Callable[[Path], None], reason: str,
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    root = tmp_path / "corpus"
    write_corpus(root)
    encode_corpus(root, tiny_codec(), root / "tokens")
    reader(root)  # whole, they are read
    if reader is train_text and attack is larger_codebooks:
        return  # of their texts it learns, and of no code
    attack(root / "tokens")
    with pytest.raises((ShardError, SystemExit)) as refused:
        reader(root)
    said = capsys.readouterr().err if isinstance(refused.value, SystemExit) else str(refused.value)
    assert reason in said and len(said.strip().splitlines()) == 1
