"""Copies of shards on another file system: whole, gone on with, and never over other tokens."""

import itertools
from collections.abc import Callable
from pathlib import Path

import fsspec
import numpy as np
import pytest
import soundfile
from fsspec.implementations.memory import MemoryFileSystem
from tiny_encoding import LoudnessTokenizer, contents, make_corpus

from codec.encode import encode_corpus
from codec.encode import main as encode_command
from codec.shards import ShardError
from codec.shards.remote import publish
from training.config import compose


def encoded(tmp_path: Path, clips: int = 9) -> tuple[Path, str]:
    """Shards of three clips each, and where to copy them."""
    encode_corpus(make_corpus(tmp_path / "corpus", clips), LoudnessTokenizer(), tmp_path / "tokens", clips_per_shard=3)
    return tmp_path / "tokens", f"memory://{tmp_path.name}/tokens"


def remote_files(address: str) -> dict[str, bytes]:
    system, target = fsspec.core.url_to_fs(address)
    return {Path(entry["name"]).name: system.cat_file(entry["name"]) for entry in system.ls(target)}


def test_shards_are_copied_to_another_file_system(tmp_path: Path) -> None:
    tokens, address = encoded(tmp_path)
    assert publish(tokens, address) == (6, 0)
    assert publish(tokens, address) == (0, 6)
    assert remote_files(address) == contents(tokens)
    soundfile.write(tmp_path / "corpus/00008.wav", np.zeros(16_000), 16_000)
    encode_corpus(tmp_path / "corpus", LoudnessTokenizer(), tokens, clips_per_shard=5)
    publish(tokens, address)
    assert remote_files(address) == contents(tokens) and not (tokens / "shard-00002.parquet").exists()


def interrupted_copy(folder: Path, address: str, whole: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Copy ``folder`` until the line goes dead in the file after ``whole`` files."""
    put, calls = MemoryFileSystem.put_file, itertools.count()

    def failing(system: MemoryFileSystem, local: str, remote: str, **more: object) -> None:
        if next(calls) == whole:
            if part := Path(local).read_bytes()[:20]:
                system.pipe_file(remote, part)
            raise ConnectionError("the line went dead")
        put(system, local, remote, **more)

    with monkeypatch.context() as patched:
        patched.setattr(MemoryFileSystem, "put_file", failing)
        with pytest.raises(ShardError, match=f"ConnectionError after {whole} files were sent and 0 were there"):
            publish(folder, address)


@pytest.mark.parametrize("whole", range(6))
def test_an_interrupted_copy_goes_on(whole: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokens, address = encoded(tmp_path)
    interrupted_copy(tokens, address, whole, monkeypatch)
    assert publish(tokens, address) == (6 - whole, whole)
    assert remote_files(address) == contents(tokens)


def test_a_file_of_the_same_size_is_sent_where_its_bytes_differ(tmp_path: Path) -> None:
    tokens, address = encoded(tmp_path)
    publish(tokens, address)
    system, target = fsspec.core.url_to_fs(address)
    system.rm_file(f"{target}/index.json")  # as an interrupted copy leaves it
    shard = tokens / "shard-00001.parquet"
    system.pipe_file(f"{target}/{shard.name}", bytes(shard.stat().st_size))
    assert publish(tokens, address) == (2, 4)
    assert remote_files(address) == contents(tokens)


def test_what_is_no_shard_stays_beside_a_copy(tmp_path: Path) -> None:
    tokens, address = encoded(tmp_path)
    system, target = fsspec.core.url_to_fs(address)
    others = {"README.md", "shard-notes.txt", "shard-00000.parquet.bak", "shard-00009.parquet/x"}
    for name in (*others, "shard-00007.parquet"):
        system.pipe_file(f"{target}/{name}", b"x")
    publish(tokens, address)
    found = {name.removeprefix(f"{target}/") for name in system.find(target)}
    assert found == others | set(contents(tokens))


@pytest.mark.parametrize("is_whole", [True, False])
@pytest.mark.parametrize("what", ["tokenizer", "clips"])
def test_a_copy_never_replaces_other_tokens(
    what: str, is_whole: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens, address = encoded(tmp_path, 6)
    if is_whole:
        publish(tokens, address)
    else:
        interrupted_copy(tokens, address, 2, monkeypatch)
    before = remote_files(address)
    table = tmp_path / "corpus/metadata.jsonl"
    if what == "clips":
        table.write_text(table.read_text().replace("clip-", "other-"))
    other = LoudnessTokenizer(fingerprint="f" * 60) if what == "tokenizer" else LoudnessTokenizer()
    encode_corpus(tmp_path / "corpus", other, tmp_path / "b")
    with pytest.raises(ShardError, match=r"holds (tokens of toy/loudness 0123|the tokens of another corpus)"):
        publish(tmp_path / "b", address)
    assert remote_files(address) == before


@pytest.mark.parametrize("address", ["nope://bucket/tokens", "gopher://bucket/tokens"])
def test_an_address_that_cannot_be_used_is_refused_before_any_work(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refusal: Callable[..., str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("codec.encode.load_tokenizer", lambda *_: LoudnessTokenizer())
    monkeypatch.setattr("codec.encode.encode_corpus", None)
    assert f"error: out={address} cannot be used (Protocol not known" in refusal(
        encode_command.__wrapped__, compose("encode", [f"out={address}"])
    )
