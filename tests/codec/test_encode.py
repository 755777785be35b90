"""Encoding a corpus: damaged files, resuming after a kill, determinism, memory.

The tokenizer here is a toy (loudness and zero crossings per frame), so that nothing waits for a model.
"""

import errno
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import psutil
import pytest
import soundfile
import torch
from fsspec.implementations.memory import MemoryFileSystem
from torch import Tensor

from codec.corpus import CorpusError, read_audio
from codec.encode import encode_corpus
from codec.encode import main as encode_command
from codec.interface import AudioTokenizer, Codes
from codec.shards import ShardError, read_index, read_shards
from codec.shards.remote import publish
from codec.shards.token_source import OWNER, token_folder
from training.config import compose
from training.lock import LockError

REPOSITORY = Path(__file__).resolve().parents[2]


class LoudnessTokenizer(AudioTokenizer):
    """Two levels per 80 ms: loudness and zero crossings. Kills its process at batch `kill_at`."""

    name = "toy/loudness"
    sample_rate = 16_000
    codebook_sizes = (64, 2_000)
    causal = True

    def __init__(self, kill_at: int | None = None, fingerprint: str = "0123456789ab" * 5) -> None:
        self.kill_at = kill_at
        self._fingerprint = fingerprint
        self.batches: list[tuple[int, int]] = []  # shapes of the batches that were encoded

    @property
    def samples_per_frame(self) -> int:
        return 1_280

    @property
    def fingerprint(self) -> str:
        return self._fingerprint

    def encode(self, wav: Tensor, lengths: Tensor | None = None) -> Codes:
        self.batches.append((wav.shape[0], wav.shape[1]))
        if len(self.batches) == self.kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        lengths = torch.full((len(wav),), wav.shape[1]) if lengths is None else lengths
        frames = -(-lengths // self.samples_per_frame)
        total = int(frames.max()) * self.samples_per_frame
        padded = torch.nn.functional.pad(wav, (0, total - wav.shape[1])).reshape(len(wav), -1, self.samples_per_frame)
        loudness = (padded.abs().mean(-1) * 63).long().clamp(0, 63)
        crossings = ((padded[..., 1:] > 0) != (padded[..., :-1] > 0)).sum(-1)
        codes = torch.stack([loudness, crossings], dim=1)
        valid = torch.arange(codes.shape[2]) < frames[:, None]
        return Codes(codes * valid[:, None], frames, lengths)

    def decode(self, codes: Codes) -> Tensor:
        assert codes.samples is not None
        wav = (codes.codes[:, 0] / 63).repeat_interleave(self.samples_per_frame, dim=1)
        return wav[:, : int(codes.samples.max())]


class NotingTokenizer(LoudnessTokenizer):
    """Writes how many clips this process has encoded to PATH-<process id>."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.notes, self.clips = Path(f"{path}-{os.getpid()}"), 0

    def encode(self, wav: Tensor, lengths: Tensor | None = None) -> Codes:
        self.clips += len(wav)
        self.notes.write_text(str(self.clips))
        return super().encode(wav, lengths)


def load_noting(path: str, device: str = "cpu", window: int | None = None) -> NotingTokenizer:
    """Stands for codec.interface.load in the command-line test."""
    return NotingTokenizer(path)


def make_corpus(root: Path, count: int, seconds: tuple[float, float] = (0.1, 1.0), rate: int = 16_000) -> Path:
    """Noise bursts of random length and loudness with texts, in three splits."""
    random = np.random.default_rng(0)
    root.mkdir(parents=True)
    lines = []
    for number in range(count):
        samples = int(random.uniform(*seconds) * rate)
        wav = random.uniform(-1, 1, samples) * random.uniform(0.05, 1)
        soundfile.write(root / f"{number:05d}.wav", wav, rate, subtype="PCM_16")
        split = ("train", "train", "valid", "test")[number % 4]
        lines.append(
            {
                "file_name": f"{number:05d}.wav",
                "id": f"clip-{number}",
                "text": f"No. {number}",
                "split": split,
            }
        )
    (root / "metadata.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return root


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if not path.name.startswith(".")}


def rejected(folder: Path) -> dict[str, str]:
    lines = [json.loads(line) for line in (folder / "rejected.jsonl").read_text().splitlines()]
    return {line["id"]: line["reason"] for line in lines}


def test_encodes_every_clip_as_alone(tmp_path: Path) -> None:
    root = make_corpus(tmp_path / "corpus", 40)
    tokenizer = LoudnessTokenizer()
    summary = encode_corpus(root, tokenizer, tmp_path / "tokens", batch_seconds=3, clips_per_shard=16)
    rows = read_shards(tmp_path / "tokens")
    assert [row.id for row in rows] == [f"clip-{number}" for number in range(40)]
    for number, row in enumerate(rows):
        wav = read_audio(root / f"{number:05d}.wav", 16_000)
        assert row.duration * 16_000 == pytest.approx(len(wav))
        assert np.array_equal(row.codes, LoudnessTokenizer().encode(torch.from_numpy(wav)[None]).clip(0).numpy())
        assert (row.text, row.domain) == (f"No. {number}", "speech")
    assert summary.encoded == 40 and not summary.current and not summary.rejected
    assert {split: domains["speech"]["clips"] for split, domains in summary.index.totals.items()} == {
        "train": 20,
        "valid": 10,
        "test": 10,
    }
    # Length buckets: batches are within the bound and hardly padded.
    assert all(clips * samples <= 3 * 16_000 for clips, samples in tokenizer.batches)
    padded = sum(clips * samples for clips, samples in tokenizer.batches)
    assert padded < 1.25 * sum(row.duration for row in rows) * 16_000
    assert "speech" in summary.table() and len(tokenizer.batches) < 20


def test_damaged_corpus_is_encoded_around_the_damage(tmp_path: Path) -> None:
    """Empty, truncated, text, NaN and missing files, a duplicate id; odd bit depths, rates and lengths."""
    root = tmp_path / "corpus"
    root.mkdir()
    random = np.random.default_rng(0)
    wav = random.uniform(-0.5, 0.5, 16_000)
    stereo = random.uniform(-0.5, 0.5, (44_100, 2))
    soundfile.write(root / "8bit.wav", wav, 16_000, subtype="PCM_U8")
    soundfile.write(root / "24bit.wav", wav, 16_000, subtype="PCM_24")
    soundfile.write(root / "float.wav", wav, 16_000, subtype="FLOAT")
    soundfile.write(root / "stereo.wav", stereo, 44_100)
    soundfile.write(root / "long.wav", np.tile(random.uniform(-0.5, 0.5, 8_000), 1_200), 8_000, subtype="PCM_U8")
    (root / "empty.wav").touch()
    soundfile.write(root / "truncated.wav", wav, 16_000, subtype="PCM_16")
    (root / "truncated.wav").write_bytes((root / "truncated.wav").read_bytes()[:16_044])
    (root / "text.wav").write_text("These are words and not samples.\n" * 9)
    broken = wav.copy()
    broken[8_000] = np.nan
    soundfile.write(root / "nan.wav", broken, 16_000, subtype="FLOAT")
    good = ["8bit", "24bit", "float", "stereo", "long"]
    names = [*good, "empty", "truncated", "text", "nan", "missing"]
    lines = [{"file_name": f"{name}.wav", "id": name} for name in names] + [{"file_name": "float.wav", "id": "8bit"}]
    (root / "metadata.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))

    summary = encode_corpus(root, LoudnessTokenizer(), tmp_path / "tokens")
    rows = read_shards(tmp_path / "tokens")
    assert [row.id for row in rows] == good
    assert [row.duration for row in rows] == [1, 1, 1, 1, 1_200]
    assert [row.n_frames for row in rows] == [13, 13, 13, 13, 15_000]
    reasons = rejected(tmp_path / "tokens")
    assert set(reasons) == {"empty", "truncated", "text", "nan", "missing", "8bit"}
    for name, reason in {
        "empty": "empty file (0 bytes)",
        "truncated": "promises 1.000 s, 0.500 s are there, 0.500 s are missing",
        "text": "not audio that soundfile can read",
        "nan": "NaN or infinite (the first at 0.500 s)",
        "missing": "does not exist",
        "8bit": "already taken",
    }.items():
        assert reason in reasons[name]
    assert len(summary.rejected) == 6 and "rejected: 6 " in summary.table()
    # The 24-bit and the float file differ in their last bits, so they are no duplicates.
    assert summary.duplicates == []


def test_nothing_is_done_when_current_and_only_what_changed_otherwise(tmp_path: Path) -> None:
    root = make_corpus(tmp_path / "corpus", 20)
    (root / "bad.wav").write_text("no audio")
    with (root / "metadata.jsonl").open("a") as lines:
        lines.write('{"file_name": "bad.wav"}\n')
    folder = tmp_path / "tokens"
    first = encode_corpus(root, LoudnessTokenizer(), folder, clips_per_shard=8)
    before = contents(folder)
    tokenizer = LoudnessTokenizer()
    again = encode_corpus(root, tokenizer, folder, clips_per_shard=8)
    assert again.current and again.encoded == 0 and tokenizer.batches == []
    assert (again.index, again.rejected) == (first.index, first.rejected) and len(again.rejected) == 1
    assert contents(folder) == before

    soundfile.write(root / "00010.wav", np.zeros(16_000), 16_000)  # in the second of three portions
    changed = encode_corpus(root, tokenizer, folder, clips_per_shard=8)
    assert (changed.current, changed.encoded) == (False, 8)
    after = contents(folder)
    assert {name for name in before if before[name] != after[name]} == {"shard-00001.parquet", "index.json"}
    assert len(changed.rejected) == 1

    fresh = encode_corpus(root, tokenizer, folder, clips_per_shard=8, resume=False)
    assert fresh.encoded == 20 and contents(folder) == after


def test_another_tokenizer_does_not_touch_the_folder(tmp_path: Path) -> None:
    root = make_corpus(tmp_path / "corpus", 3)
    encode_corpus(root, LoudnessTokenizer(), tmp_path / "tokens")
    before = contents(tmp_path / "tokens")
    other = LoudnessTokenizer(fingerprint="ba9876543210" * 5)
    with pytest.raises(ShardError, match="holds tokens of toy/loudness 0123456789ab, not of"):
        encode_corpus(root, other, tmp_path / "tokens")
    assert contents(tmp_path / "tokens") == before
    assert token_folder("data/mini", other) == Path("runs/tokens/data-mini/toy-loudness-ba9876543210")
    assert token_folder("data/mini", other, name="mini") == Path("runs/tokens/mini/toy-loudness-ba9876543210")


def test_splits_and_duplicates(tmp_path: Path) -> None:
    root = make_corpus(tmp_path / "corpus", 8)
    (root / "00003.wav").write_bytes((root / "00007.wav").read_bytes())
    summary = encode_corpus(root, LoudnessTokenizer(), tmp_path / "tokens", splits=["test"])
    assert [row.id for row in read_shards(tmp_path / "tokens")] == ["clip-3", "clip-7"]
    assert summary.duplicates == [["clip-3", "clip-7"]] and "1 clips repeat" in summary.table()
    with pytest.raises(CorpusError, match=r"no split \['dev'\]; it has \['test', 'train', 'valid'\]"):
        encode_corpus(root, LoudnessTokenizer(), tmp_path / "other", splits=["dev"])


def test_a_corpus_without_usable_audio_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus/a.wav").write_text("no audio")
    for _ in range(2):  # the second time the folder is finished, and still nothing is in it
        with pytest.raises(CorpusError, match=r"no clip of .* can be used, the first because: .*not audio"):
            encode_corpus(tmp_path / "corpus", LoudnessTokenizer(), tmp_path / "tokens")


class Meddling(LoudnessTokenizer):
    """Calls ``meddle`` when it is to encode a batch."""

    def __init__(self, meddle: Callable[[], object]) -> None:
        super().__init__()
        self.meddle = meddle

    def encode(self, wav: Tensor, lengths: Tensor | None = None) -> Codes:
        self.meddle()
        return super().encode(wav, lengths)


@pytest.mark.parametrize("what", ["a file changes", "a file goes", "a file comes", "the metadata goes"])
def test_a_corpus_that_changes_while_it_is_encoded_is_not_finished(what: str, tmp_path: Path) -> None:
    root, folder = make_corpus(tmp_path / "corpus", 6), tmp_path / "tokens"

    def meddle() -> None:
        if what == "a file changes":
            soundfile.write(root / "00001.wav", np.zeros(16_000), 16_000)
        elif what == "a file goes":
            (root / "00001.wav").unlink(missing_ok=True)
        elif what == "the metadata goes":
            (root / "metadata.jsonl").unlink(missing_ok=True)
        else:
            soundfile.write(root / "new.wav", np.zeros(16_000), 16_000)
            lines = (root / "metadata.jsonl").read_text()
            (root / "metadata.jsonl").write_text(lines + '{"file_name": "new.wav"}\n')

    with pytest.raises(CorpusError, match="corpus changed while it was encoded: run the command again"):
        encode_corpus(root, Meddling(meddle), folder, clips_per_shard=2)
    assert not (folder / "index.json").exists()
    encode_corpus(root, LoudnessTokenizer(), folder, clips_per_shard=2)
    encode_corpus(root, LoudnessTokenizer(), tmp_path / "fresh", clips_per_shard=2)
    assert contents(folder) == contents(tmp_path / "fresh")


@pytest.mark.parametrize("what", ["no folder", "full at a shard", "full at the index"])
def test_a_folder_that_cannot_be_written_is_one_sentence_and_keeps_what_is_finished(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, folder = make_corpus(tmp_path / "corpus", 6), tmp_path / "tokens"
    replace, room = os.replace, {"full at a shard": 1, "full at the index": 5}

    def full(source: Path, target: Path) -> None:
        if len(contents(folder)) >= room[what]:
            raise OSError(errno.ENOSPC, "No space left on device")
        replace(source, target)

    if what == "no folder":
        folder.write_text("a file")
    else:
        monkeypatch.setattr("training.checkpoint.os.replace", full)
    with pytest.raises((ShardError, LockError), match="cannot be written") as refused:
        encode_corpus(root, LoudnessTokenizer(), folder, clips_per_shard=2)
    assert "\n" not in str(refused.value) and "make room " in str(refused.value)
    monkeypatch.undo()
    if what == "no folder":
        return
    assert not list(folder.glob(".*.tmp")) and len(contents(folder)) == room[what]
    again = encode_corpus(root, LoudnessTokenizer(), folder, clips_per_shard=2)
    assert again.encoded == {"full at a shard": 4, "full at the index": 0}[what]


def test_shards_of_an_unnamed_corpus_are_not_replaced(tmp_path: Path) -> None:
    mine, other, folder = make_corpus(tmp_path / "mine", 4), make_corpus(tmp_path / "other", 4), tmp_path / "tokens"
    encode_corpus(mine, LoudnessTokenizer(), folder, clips_per_shard=2)
    (folder / OWNER).unlink()  # as versions left it that did not write it
    before = contents(folder)
    for resume in (True, False):
        with pytest.raises(ShardError, match="has shards of a corpus that it does not name, and none fits .*other"):
            encode_corpus(other, LoudnessTokenizer(), folder, clips_per_shard=2, resume=resume)
    assert contents(folder) == before
    soundfile.write(mine / "00003.wav", np.zeros(16_000), 16_000)
    assert encode_corpus(mine, LoudnessTokenizer(), folder, clips_per_shard=2).encoded == 2


TWICE = """
import sys
from test_encode import LoudnessTokenizer, encode_corpus
print(encode_corpus(sys.argv[1], LoudnessTokenizer(), sys.argv[2]).encoded, "clips encoded here")
"""


@pytest.mark.slow
def test_two_encodings_of_one_corpus_at_once_do_the_work_once(tmp_path: Path) -> None:
    root, folder = make_corpus(tmp_path / "corpus", 6), tmp_path / "tokens"
    others: list[subprocess.Popen] = []
    said: list[str] = []

    def begin_another() -> None:
        if not others:
            others.append(start(TWICE, root, folder, stdout=subprocess.PIPE, text=True))
            assert others[0].stdout is not None
            said.append(others[0].stdout.readline())

    assert encode_corpus(root, Meddling(begin_another), folder).encoded == 6
    said.append(others[0].communicate(timeout=120)[0])
    assert "is being written by process" in said[0] and said[1] == "0 clips encoded here\n"


def start(code: str, *arguments: object, **more: Any) -> subprocess.Popen:
    """Runs `code` in another Python that can import the repository and this file."""
    path = os.pathsep.join([str(REPOSITORY), str(Path(__file__).parent)])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, "-c", code, *map(str, arguments)], env=environment, **more)


KILLED_ENCODE = """
import sys
from test_encode import LoudnessTokenizer, encode_corpus
tokenizer = LoudnessTokenizer(kill_at=int(sys.argv[3]))
encode_corpus(sys.argv[1], tokenizer, sys.argv[2], batch_seconds=1, clips_per_shard=6)
"""


@pytest.mark.slow
def test_killed_encoding_ends_with_the_same_files(tmp_path: Path) -> None:
    root = make_corpus(tmp_path / "corpus", 60)
    undisturbed = tmp_path / "undisturbed"
    encode_corpus(root, LoudnessTokenizer(), undisturbed, batch_seconds=1, clips_per_shard=6)

    folder = tmp_path / "killed"
    assert start(KILLED_ENCODE, root, folder, 25).wait() == -signal.SIGKILL
    finished = {path.name: path.stat().st_mtime_ns for path in folder.glob("shard-*.parquet")}
    assert 1 < len(finished) < 10
    with pytest.raises(ShardError, match="did not finish"):
        read_index(folder)
    (folder / ".shard-00009.parquet.tmp").write_bytes(b"half a shard")

    summary = encode_corpus(root, LoudnessTokenizer(), folder, batch_seconds=1, clips_per_shard=6)
    assert contents(folder) == contents(undisturbed)
    assert summary.encoded == 60 - 6 * len(finished)
    assert all((folder / name).stat().st_mtime_ns == written for name, written in finished.items())


@pytest.mark.slow
def test_five_random_kills_end_with_the_same_files(tmp_path: Path) -> None:
    root = make_corpus(tmp_path / "corpus", 90)
    settings = {"batch_seconds": 1, "clips_per_shard": 3}
    encode_corpus(root, LoudnessTokenizer(), tmp_path / "undisturbed", **settings)
    folder = tmp_path / "killed"
    random = np.random.default_rng(5)
    for _ in range(5):
        code = KILLED_ENCODE.replace("clips_per_shard=6", "clips_per_shard=3")
        assert start(code, root, folder, int(random.integers(2, 12))).wait() == -signal.SIGKILL
        assert not (folder / "index.json").exists()
    finished = len(list(folder.glob("shard-*.parquet")))
    assert 0 < finished < 30
    summary = encode_corpus(root, LoudnessTokenizer(), folder, **settings)
    assert contents(folder) == contents(tmp_path / "undisturbed")
    assert summary.encoded == 90 - 3 * finished


def test_a_batch_that_does_not_fit_is_halved(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    class Small(LoudnessTokenizer):
        def encode(self, wav: Tensor, lengths: Tensor | None = None) -> Codes:
            if len(wav) > 3:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return super().encode(wav, lengths)

    root = make_corpus(tmp_path / "corpus", 20)
    encode_corpus(root, LoudnessTokenizer(), tmp_path / "a")
    tokenizer = Small()
    encode_corpus(root, tokenizer, tmp_path / "b")
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert max(clips for clips, _ in tokenizer.batches) <= 3
    assert "out of memory with 20 clips" in capsys.readouterr().out

    class Full(LoudnessTokenizer):
        def encode(self, wav: Tensor, lengths: Tensor | None = None) -> Codes:
            raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(torch.OutOfMemoryError):
        encode_corpus(root, Full(), tmp_path / "c")


def test_shards_are_copied_to_another_file_system(tmp_path: Path) -> None:
    root = make_corpus(tmp_path / "corpus", 9)
    encode_corpus(root, LoudnessTokenizer(), tmp_path / "tokens", clips_per_shard=3)
    address = f"memory://{tmp_path.name}/tokens"
    assert publish(tmp_path / "tokens", address) == (6, 0)
    assert publish(tmp_path / "tokens", address) == (0, 6)
    system, target = fsspec.core.url_to_fs(address)
    files = {Path(entry["name"]).name: system.cat_file(entry["name"]) for entry in system.ls(target)}
    assert files == contents(tmp_path / "tokens")
    soundfile.write(root / "00008.wav", np.zeros(16_000), 16_000)
    encode_corpus(root, LoudnessTokenizer(), tmp_path / "tokens", clips_per_shard=5)
    publish(tmp_path / "tokens", address)
    files = {Path(entry["name"]).name: system.cat_file(entry["name"]) for entry in system.ls(target)}
    assert files == contents(tmp_path / "tokens") and "shard-00002.parquet" not in files


def remote_files(address: str) -> dict[str, bytes]:
    system, target = fsspec.core.url_to_fs(address)
    return {Path(entry["name"]).name: system.cat_file(entry["name"]) for entry in system.ls(target)}


@pytest.mark.parametrize("whole", range(6))
def test_an_interrupted_copy_goes_on(whole: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = make_corpus(tmp_path / "corpus", 9)
    encode_corpus(root, LoudnessTokenizer(), tmp_path / "tokens", clips_per_shard=3)
    address = f"memory://{tmp_path.name}/tokens"
    put, calls = MemoryFileSystem.put_file, itertools.count()

    def failing(system: MemoryFileSystem, local: str, remote: str, **more: object) -> None:
        if next(calls) == whole:
            if part := Path(local).read_bytes()[:20]:
                system.pipe_file(remote, part)
            raise ConnectionError("the line went dead")
        put(system, local, remote, **more)

    monkeypatch.setattr(MemoryFileSystem, "put_file", failing)
    with pytest.raises(ShardError, match=f"ConnectionError after {whole} files were sent and 0 were there"):
        publish(tmp_path / "tokens", address)
    monkeypatch.undo()
    assert publish(tmp_path / "tokens", address) == (6 - whole, whole)
    assert remote_files(address) == contents(tmp_path / "tokens")


def test_a_file_of_the_same_size_is_sent_where_its_bytes_differ(tmp_path: Path) -> None:
    root = make_corpus(tmp_path / "corpus", 9)
    encode_corpus(root, LoudnessTokenizer(), tmp_path / "tokens", clips_per_shard=3)
    address = f"memory://{tmp_path.name}/tokens"
    publish(tmp_path / "tokens", address)
    system, target = fsspec.core.url_to_fs(address)
    system.rm_file(f"{target}/index.json")  # as an interrupted copy leaves it
    shard = tmp_path / "tokens/shard-00001.parquet"
    system.pipe_file(f"{target}/{shard.name}", bytes(shard.stat().st_size))
    assert publish(tmp_path / "tokens", address) == (2, 4)
    assert remote_files(address) == contents(tmp_path / "tokens")


@pytest.mark.parametrize("what", ["tokenizer", "clips"])
def test_a_copy_never_replaces_other_tokens(what: str, tmp_path: Path) -> None:
    root = make_corpus(tmp_path / "corpus", 4)
    encode_corpus(root, LoudnessTokenizer(), tmp_path / "tokens")
    address = f"memory://{tmp_path.name}/tokens"
    publish(tmp_path / "tokens", address)
    table = root / "metadata.jsonl"
    if what == "clips":
        table.write_text(table.read_text().replace("clip-", "other-"))
    encode_corpus(
        root, LoudnessTokenizer(fingerprint="f" * 60 if what == "tokenizer" else "0123456789ab" * 5), tmp_path / "b"
    )
    with pytest.raises(ShardError, match=r"holds (tokens of toy/loudness 0123|the tokens of another corpus)"):
        publish(tmp_path / "b", address)
    assert remote_files(address) == contents(tmp_path / "tokens")


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


@pytest.mark.slow
def test_thousands_of_short_clips_in_constant_memory(tmp_path: Path) -> None:
    """4,000 clips through a real, tiny codec: the last half of them adds next to nothing."""
    from tiny_models import tiny_codec  # here: other processes of these tests import this file without tests/

    root = make_corpus(tmp_path / "corpus", 200, seconds=(0.05, 0.15))
    lines = (root / "metadata.jsonl").read_text().splitlines()
    more = [json.dumps({**json.loads(line), "id": f"{n}-{k}"}) for k in range(20) for n, line in enumerate(lines)]
    (root / "metadata.jsonl").write_text("\n".join(more) + "\n")
    codec = tiny_codec()
    process = psutil.Process()
    memory: list[int] = []
    encode = codec.encode

    def watched(wav: Tensor, lengths: Tensor | None = None) -> Codes:
        memory.append(process.memory_info().rss)
        return encode(wav, lengths)

    codec.encode = watched  # type: ignore[method-assign]
    summary = encode_corpus(root, codec, tmp_path / "tokens", batch_seconds=10, clips_per_shard=200)
    assert summary.encoded == 4_000 and len(summary.duplicates) == 200
    assert sum(total["hours"] for split in summary.index.totals.values() for total in split.values()) > 0.09
    assert max(memory) - max(memory[: len(memory) // 2]) < 20e6


def test_memory_does_not_grow_with_the_number_of_clips(tmp_path: Path) -> None:
    """Waveforms of 600 clips (77 MB at 16 kHz) pass through a process that grows by far less."""
    root = make_corpus(tmp_path / "corpus", 100, seconds=(1.9, 2.1), rate=4_000)
    lines = (root / "metadata.jsonl").read_text().splitlines()
    more = [json.dumps({**json.loads(line), "id": f"{n}-{k}"}) for k in range(6) for n, line in enumerate(lines)]
    (root / "metadata.jsonl").write_text("\n".join(more) + "\n")
    process = psutil.Process()
    peaks: list[int] = []

    class Watched(LoudnessTokenizer):
        def encode(self, wav: Tensor, lengths: Tensor | None = None) -> Codes:
            peaks.append(process.memory_info().rss)
            return super().encode(wav, lengths)

    encode_corpus(root, Watched(), tmp_path / "tokens", batch_seconds=20, clips_per_shard=100)
    assert len(peaks) >= 60
    assert max(peaks) - peaks[len(peaks) // 4] < 20e6


@pytest.mark.slow
@pytest.mark.parametrize("machines", [1, 2])
def test_command_line_with_two_processes_encodes_every_clip_once(machines: int, tmp_path: Path) -> None:
    """Two processes of one launcher; then two launchers with one process each, as on two machines with one disk."""
    root = make_corpus(tmp_path / "corpus", 30)
    encode_corpus(root, LoudnessTokenizer(), tmp_path / "one", clips_per_shard=4)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    launch = "from accelerate.commands.accelerate_cli import main; main()"
    arguments = ["launch", "--multi_gpu", "--num_processes=2", f"--num_machines={machines}", "--mixed_precision=no"]
    arguments += ["--dynamo_backend=no", "--num_cpu_threads_per_process=1", f"--main_process_port={port}"]
    arguments += ["--main_process_ip=127.0.0.1"] if machines == 2 else []
    command = [str(REPOSITORY / "codec/encode.py"), f"data.root={root}", f"out={tmp_path / 'two'}"]
    command += ["clips_per_shard=4", "tokenizer._target_=test_encode.load_noting", f"tokenizer.path={tmp_path / 'log'}"]
    launchers = [start(launch, *arguments, f"--machine_rank={rank}", *command) for rank in range(machines)]
    assert [launcher.wait(timeout=600) for launcher in launchers] == [0] * machines
    assert contents(tmp_path / "two") == contents(tmp_path / "one")
    counts = [int(path.read_text()) for path in tmp_path.glob("log-*")]
    assert len(counts) == 2 and sum(counts) == 30 and min(counts) >= 14  # really two, and no clip in both
