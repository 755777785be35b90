"""Data sets as `datasets` stores them: audio inside parquet or arrow, AudioFolder, archives; columns named by keys."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import soundfile
from datasets import Audio, ClassLabel, Dataset, DatasetDict, Features, Value
from json_files import read_json, read_lines, write_lines

import preparation.huggingface
import prepare
from codec.corpus import read_audio, read_corpus


def recording(number: int, audio_format: str = "FLAC") -> bytes:
    file = io.BytesIO()
    soundfile.write(file, np.full(160 + number, 0.25, np.float32), 16_000, format=audio_format)
    return file.getvalue()


def data_set(split: str, count: int, audio_format: str = "FLAC") -> Dataset:
    """With a column declared as audio, as published sets have it; made without its encoder, which needs torchcodec."""
    features = Features(
        audio={"bytes": Value("binary"), "path": Value("string")}, sentence=Value("string"),
        tags=[Value("string")], animal=ClassLabel(names=["dog", "cat"]), client=Value("int64"),
    )  # fmt: skip
    rows = [
        {
            "audio": {"bytes": recording(n, audio_format), "path": f"{split}_{n}.{audio_format.lower()}"},
            "sentence": f"{split} number {n}", "tags": ["a sound", f"sound {n}"], "animal": n % 2, "client": n,
        }
        for n in range(count)
    ]  # fmt: skip
    return Dataset.from_list(rows, features=features).cast_column("audio", Audio(decode=False))


def parquet(root: Path) -> Path:
    (root / "data").mkdir(parents=True)
    for split, count in (("train", 3), ("validation", 2)):
        rows = data_set(split, count)
        rows = rows.cast_column("audio", Audio())  # declared as decoded: what asks for torchcodec when it is read
        rows.to_parquet(root / f"data/{split}-00000-of-00001.parquet")
    return root


def run(root: Path | str, out: Path, *keys: str) -> int:
    return prepare.main(["huggingface", "--root", str(root), "--out", str(out), *keys])


KEYS = ("text=sentence", "speaker=client", "caption=tags,animal", "licence=CC0-1.0", "split.validation=held-out")


def test_audio_in_parquet_is_written_once_and_columns_are_named_by_keys(tmp_path, capsys):
    root, out = parquet(tmp_path / "published"), tmp_path / "corpus"
    assert run(root, out, *KEYS) == 0
    assert "written" in capsys.readouterr().out
    clips, rejects = read_corpus(out)
    assert not rejects and [clip.split for clip in clips] == ["train"] * 3 + ["held-out"] * 2
    clip = clips[1]
    assert (clip.id, clip.text, clip.speaker, clip.licence) == ("train/train_1", "train number 1", "1", "CC0-1.0")
    assert clip.captions == ["a sound", "sound 1", "cat"] and clip.domain == "speech"
    assert clip.path == out / "audio/train/0000/0000001.flac" and clip.path.read_bytes() == recording(1)
    assert len(read_audio(clip.path, 16_000)) == 161
    assert read_lines(out / "metadata.jsonl")[0]["file_name"].startswith("audio/train/")
    times = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    assert run(root, out, *KEYS) == 0
    assert "is current" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == times
    clips[0].path.write_bytes(b"half of it")  # what a killed run cannot leave, but a disk can
    assert run(root, out, *KEYS) == 0
    assert clips[0].path.read_bytes() == recording(0)


def test_what_no_key_names_is_kept_and_counts_are_compared(tmp_path, capsys):
    root = parquet(tmp_path / "published")
    head = "---\nlicense: mit\ndataset_info:\n  features:\n  - name: audio\n    dtype: audio\n"
    fields = "  - name: sentence\n    dtype: string\n  - name: tags\n    list: string\n  - name: animal\n    dtype:\n"
    fields += "      class_label:\n        names:\n          '0': dog\n          '1': cat\n"
    fields += "  - name: client\n    dtype: int64\n"
    splits = "  splits:\n  - name: train\n    num_examples: 3\n  - name: validation\n    num_examples: 9\n---\n"
    (root / "README.md").write_text(head + fields + splits)
    assert run(root, tmp_path / "out", "domain=sound") == 0
    printed = capsys.readouterr().out
    assert "columns: audio=audio; kept as they are: sentence, tags, animal, client" in printed
    assert "train: 3 clips, as published (3)" in printed and "validation: 2 clips of 9 published" in printed
    clips, _ = read_corpus(tmp_path / "out")
    assert {clip.split for clip in clips} == {"train", "valid"} and {clip.domain for clip in clips} == {"sound"}
    assert clips[1].extra["animal"] == "cat" and clips[1].extra["sentence"] == "train number 1"


def test_splits_can_be_chosen(tmp_path):
    assert run(parquet(tmp_path / "published"), tmp_path / "out", "splits=validation") == 0
    assert {clip.split for clip in read_corpus(tmp_path / "out")[0]} == {"valid"}


def test_a_saved_data_set(tmp_path):
    whole = DatasetDict(train=data_set("train", 2, "WAV"), test=data_set("test", 1, "WAV"))
    whole.save_to_disk(str(tmp_path / "both"))
    whole["test"].save_to_disk(str(tmp_path / "one"))
    assert run(tmp_path / "both", tmp_path / "a", "text=sentence") == 0
    assert [clip.split for clip in read_corpus(tmp_path / "a")[0]] == ["test", "train", "train"]
    assert run(tmp_path / "one", tmp_path / "b", "text=sentence") == 0
    assert read_corpus(tmp_path / "b")[0][0].path.suffix == ".wav"


def test_a_local_audiofolder_is_referenced(tmp_path):
    root = tmp_path / "published"
    (root / "test").mkdir(parents=True)
    (root / "test/a.wav").write_bytes(recording(5, "WAV"))
    (root / "metadata.csv").write_text("file_name,transcription\ntest/a.wav,hello\n")
    assert run(root, tmp_path / "out", "text=transcription") == 0
    clip = read_corpus(tmp_path / "out")[0][0]
    assert (clip.path, clip.text, clip.split, clip.domain) == (root / "test/a.wav", "hello", "test", "speech")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["metadata.jsonl"]


def test_audio_in_an_archive_is_written(tmp_path):
    root = tmp_path / "published"
    root.mkdir()
    with zipfile.ZipFile(root / "train.zip", "w") as archive:
        archive.writestr("metadata.jsonl", json.dumps({"file_name": "a.wav", "caption": "a beep"}))
        archive.writestr("a.wav", recording(7, "WAV"))
    assert run(root, tmp_path / "out") == 0
    clip = read_corpus(tmp_path / "out")[0][0]
    assert clip.captions == ["a beep"] and clip.path.read_bytes() == recording(7, "WAV")
    assert tmp_path / "out" in clip.path.parents


def test_a_column_of_paths(tmp_path):
    root = tmp_path / "published"
    root.mkdir()
    (root / "x.flac").write_bytes(recording(3))
    rows = [{"file": "x.flac", "said": "yes"}, {"file": "gone.flac", "said": "no"}, {"file": None, "said": "none"}]
    write_lines(root / "train.jsonl", rows)
    assert run(root, tmp_path / "out", "audio=file", "text=said") == 0
    assert [clip.path for clip in read_corpus(tmp_path / "out")[0]] == [root / "x.flac"]
    lost = [line["file"] for line in read_lines(tmp_path / "out/missing.jsonl")]
    assert any(name.endswith("gone.flac") for name in lost) and any("row 2 has no audio" in name for name in lost)


def test_a_data_set_that_breaks_off_is_one_sentence(tmp_path, capsys):
    root = tmp_path / "published"
    root.mkdir()
    (root / "x.flac").write_bytes(recording(3))
    good = json.dumps({"file": "x.flac", "said": "yes"})
    (root / "train.jsonl").write_text(f"{good}\n")
    (root / "test.jsonl").write_text(f'{good}\n{{"file": "x.fl')
    assert run(root, tmp_path / "out", "audio=file") == 1
    message = capsys.readouterr().err.splitlines()[-1]
    assert "published, test ends after 0 rows" in message and "run again" in message


def test_an_id_of_the_hub_goes_the_same_way(tmp_path, monkeypatch):
    root, load = parquet(tmp_path / "published"), preparation.huggingface.load_dataset_builder
    asked = []

    def hub(name: str, config: str | None = None, revision: str | None = None):
        asked.append((name, config, revision))
        return load(str(root))

    monkeypatch.setattr(preparation.huggingface, "load_dataset_builder", hub)
    assert run("owner/speech", tmp_path / "out", "text=sentence", "config=de", "revision=v2") == 0
    assert asked == [("owner/speech", "de", "v2")]
    clip = read_corpus(tmp_path / "out")[0][0]
    assert clip.extra["source"] == "https://huggingface.co/datasets/owner/speech" and clip.licence == "unknown"


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (["txt=sentence"], "did you mean text?"),
        (["text=sentenc"], "has no column 'sentenc' for text=; its columns are audio, sentence, tags"),
        (["split.dev=valid"], "has no split 'dev'; it has train, validation"),
        (["text=tags"], "published, train row 0: tags is list, not a text\n"),
        (["audio=client"], "the audio is int and no file: neither bytes nor path\n"),
        (["audio=audio,client"], "has 2 columns of audio"),
    ],
)
def test_keys_that_cannot_work_are_one_sentence(keys, message, tmp_path, capsys):
    root = parquet(tmp_path / "published")
    capsys.readouterr()  # the progress of writing it
    assert run(root, tmp_path / "out", *keys) == 1
    printed = capsys.readouterr().err
    assert message in printed and printed.count("\n") == 1 and not (tmp_path / "out/metadata.jsonl").exists()


def test_other_recipes_take_no_keys(tmp_path, capsys):
    assert prepare.main(["esc50", "--root", str(tmp_path), "--out", str(tmp_path / "out"), "text=a"]) == 1
    assert "takes no keys such as text=a" in capsys.readouterr().err


HUB_SET = "hf://datasets/owner/name@0123"
PLACES = [  # root or origin, what a row names, whether it is the data set's own
    ("folder", "a.wav", True), ("folder", "sub/a.wav", True), ("folder", "{root}/a.wav", True),
    ("folder", "file://{root}/a.wav", True), ("folder", "zip://a.wav::{root}/train.zip", True),
    ("folder", "../a.wav", False), ("folder", "sub/../../a.wav", False), ("folder", "{root}-other/a.wav", False),
    ("folder", "/etc/passwd", False), ("folder", "file:///etc/passwd", False), ("folder", "http://x.org/a.wav", False),
    ("folder", "zip://a.wav::/etc/train.zip", False), ("folder", "zip://a.wav::http://x.org/a.zip", False),
    ("folder", "filecache://::{root}/a.wav", False), ("folder", "s3://bucket/a.wav", False), ("folder", "", False),
    ("folder", "{root}", False),
    (HUB_SET, f"{HUB_SET}/a.wav", True), (HUB_SET, f"zip://a.wav::{HUB_SET}/train.zip", True),
    (HUB_SET, "hf://datasets/owner/name/a.wav", True), (HUB_SET, "hf://datasets/owner/name-2@0123/a.wav", False),
    (HUB_SET, f"{HUB_SET}/../../other/a.wav", False), (HUB_SET, "hf://datasets/other/name/a.wav", False),
    (HUB_SET, "a.wav", False), (HUB_SET, "/etc/passwd", False), (HUB_SET, "file:///etc/passwd", False),
    (HUB_SET, "https://x.org/a.wav", False), (HUB_SET, "zip://a.wav::/etc/train.zip", False),
]  # fmt: skip


@pytest.mark.parametrize(("origin", "given", "own"), PLACES)
def test_a_row_names_what_is_the_data_sets_own(origin, given, own, tmp_path):
    root = tmp_path / "folder" if origin == "folder" else Path("owner/name")
    address = preparation.huggingface.own_address(given.format(root=root), root, None if origin == "folder" else origin)
    assert (address is not None) == own
    if own and origin == "folder":
        assert address.endswith(
            str(root / ("train.zip" if "zip" in given else Path(given.format(root=root)).name))
        ) or (address == str(root / "sub/a.wav"))


@pytest.mark.parametrize("stored", ["parquet", "arrow", "json", "audiofolder"])
@pytest.mark.parametrize("address", ["file://{secret}", "{secret}", "../id_rsa", "http://127.0.0.1:9/a.wav"])
def test_a_row_cannot_have_other_files_copied(stored, address, tmp_path, monkeypatch):
    secret = tmp_path / "id_rsa"
    secret.write_bytes(recording(9, "WAV"))  # that it is audio does not matter: it is not the data set's
    named = address.format(secret=secret)
    root = tmp_path / "published"
    root.mkdir()
    (root / "a.wav").write_bytes(recording(4, "WAV"))
    if stored == "json":
        rows = [{"audio": str(root / "a.wav"), "text": "one"}, {"audio": named, "text": "two"}]
        write_lines(root / "train.jsonl", rows)
    elif stored == "audiofolder":
        rows = [{"file_name": "a.wav", "text": "one"}, {"file_name": named, "text": "two"}]
        write_lines(root / "metadata.jsonl", rows)
    else:
        features = Features(audio={"bytes": Value("binary"), "path": Value("string")}, text=Value("string"))
        rows = [
            {"audio": {"bytes": recording(4, "WAV"), "path": "a.wav"}, "text": "one"},
            {"audio": {"bytes": None, "path": named}, "text": "two"},
        ]
        table = Dataset.from_list(rows, features=features)  # declared as audio it would be opened by this writer
        if stored == "parquet":
            table.to_parquet(root / "train.parquet")
        else:
            table.save_to_disk(str(root))
    opened: list[str] = []
    monkeypatch.setattr(preparation.huggingface.fsspec, "open", lambda name, mode: opened.append(name))
    assert run(root, tmp_path / "out", "audio=audio") == 0
    clips, _ = read_corpus(tmp_path / "out")
    assert [clip.text for clip in clips] == ["one"] and not opened
    lost = [line["reason"] for line in read_lines(tmp_path / "out/missing.jsonl")]
    assert len(lost) == 1 and ("no part of the data set: it is not read" in lost[0] or stored == "audiofolder")
    written = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert not [path for path in written if path.read_bytes() == secret.read_bytes()]


@pytest.mark.parametrize("by", ["README", "split", "shard"])
def test_a_data_set_that_reads_files_of_its_reader_is_refused(by, tmp_path, capsys):
    (tmp_path / "private.jsonl").write_text('{"audio": "a.wav", "text": "a secret"}\n')
    private, root = tmp_path / "private", tmp_path / "published"
    root.mkdir()
    Dataset.from_list([{"audio": {"bytes": recording(4, "WAV"), "path": "a.wav"}}]).save_to_disk(str(private))
    (root / "a.wav").write_bytes(recording(4, "WAV"))
    if by == "README":
        head = f"---\nconfigs:\n- config_name: default\n  data_files: {tmp_path}/private.jsonl\n---\n"
        (root / "README.md").write_text(head)
    elif by == "split":
        (root / "dataset_dict.json").write_text('{"splits": ["../private"]}')
    else:
        state = read_json(private / "state.json")
        state["_data_files"] = [{"filename": str(path)} for path in private.glob("*.arrow")]
        (root / "state.json").write_text(json.dumps(state))
        (root / "dataset_info.json").write_bytes((private / "dataset_info.json").read_bytes())
    assert run(root, tmp_path / "out", "audio=audio") == 1
    assert "which is no part of it" in capsys.readouterr().err and not (tmp_path / "out").exists()
