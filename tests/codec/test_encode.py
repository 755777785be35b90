"""Encoding a corpus: damaged files, what is current, what changes meanwhile, batches that do not fit."""

import errno
import os
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from json_files import read_lines, write_lines
from tiny_encoding import LoudnessTokenizer, Meddling, contents, make_corpus
from torch import Tensor

from codec.corpus import CorpusError, read_audio
from codec.encode import encode_corpus
from codec.interface import Codes
from codec.shards import ShardError, read_shards
from codec.shards.token_source import OWNER, token_folder
from training.lock import LockError


def rejected(folder: Path) -> dict[str, str]:
    lines = read_lines(folder / "rejected.jsonl")
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


@pytest.mark.slow
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
    write_lines(root / "metadata.jsonl", lines)

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
    for damage in ("{", "[]", '{"id": 1}'):  # the lists are written again from what the shards say
        (folder / "rejected.jsonl").write_text(damage)
        (folder / "duplicates.jsonl").write_text(damage)
        assert encode_corpus(root, tokenizer, folder, clips_per_shard=8).encoded == 0 and contents(folder) == before

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
