"""Every audio file below a corpus folder, and every line of its metadata, is a clip or a reject with its reason."""

import json
import os
import unicodedata
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from json_files import write_lines

from codec.corpus import Clip, CorpusError, Reject, holds_audio, read_corpus
from codec.encode import encode_corpus


def write(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, np.full(800, 0.1, np.float32), 16_000, format="WAV")


def found(root: Path) -> tuple[dict[str, Clip], dict[str, str]]:
    """Clips by id, reasons by file."""
    clips, rejects = read_corpus(root)
    return {clip.id: clip for clip in clips}, {str(reject.file): reject.reason for reject in rejects}


def elsewhere(root: Path) -> Path:
    """A folder outside the corpus, with audio."""
    write(root.parent / "elsewhere/b.wav")
    return root.parent / "elsewhere"


def not_utf8(root: Path) -> None:
    write(root / "b.wav")
    os.rename(root / "b.wav", os.fsencode(root) + b"/b\xe9.wav")


def folder_not_utf8(root: Path) -> None:
    write(root / "b/b.wav")
    os.rename(root / "b", os.fsencode(root) + b"/b\xe9")


NOWHERE, PACKED, NOT_UTF8 = "leads nowhere", "what is in an archive is not read", "its name is not UTF-8"
PLACES: dict[str, tuple[Callable[[Path], object], str | None, str]] = {  # maker, id of the clip or None, reason
    "dead link": (lambda root: (root / "b.wav").symlink_to("gone.wav"), None, f"b.wav: it is a link that {NOWHERE}"),
    "dead folder": (lambda root: (root / "b").symlink_to("/no/such/folder"), None, f"b: it is a link that {NOWHERE}"),
    "link to itself": (lambda root: (root / "b.wav").symlink_to("b.wav"), None, f"b.wav: it is a link that {NOWHERE}"),
    "link to a file": (lambda root: (root / "b.wav").symlink_to(elsewhere(root) / "b.wav"), "b", ""),
    "link to a folder": (lambda root: (root / "b").symlink_to(elsewhere(root)), "b/b", ""),
    "pipe": (lambda root: os.mkfifo(root / "b.wav"), None, "b.wav: it is neither a file nor a folder"),
    "unread suffix": (
        lambda root: write(root / "b.G726"), None, "b.G726: .G726 is audio that soundfile does not read: convert it"
    ),
    "archive": (lambda root: write(root / "b.zip"), None, f"b.zip: {PACKED}: unpack it"),
    "packed": (  # and nothing of notes
        lambda root: write(root / "b.wav.gz", root / "notes.txt.gz"), None, f"b.wav.gz: {PACKED}: unpack it"
    ),
    "upper case": (lambda root: write(root / "b.WAVE"), "b", ""),
    "not UTF-8": (not_utf8, None, f"b\\udce9.wav: {NOT_UTF8}: rename it"),
    "folder not UTF-8": (folder_not_utf8, None, f"b\\udce9/b.wav: {NOT_UTF8}: rename it"),
    "new line": (
        lambda root: write(root / "b\n.wav"), None, "b\\n.wav: the id 'b\\n' cannot be used: it has control characters"
    ),
    "longest name": (lambda root: write(root / f"{'b' * 251}.wav"), "b" * 251, ""),
}  # fmt: skip
OF_THE_DISK = (NOWHERE, PACKED, NOT_UTF8, "neither a file nor")  # said whether metadata names the file or not


@pytest.mark.parametrize("described", [False, True], ids=["plain", "with metadata"])
@pytest.mark.parametrize("place", PLACES)
def test_every_audio_file_below_the_root_is_a_clip_or_a_reject(place: str, described: bool, tmp_path: Path) -> None:
    make, identity, reason = PLACES[place]
    root = tmp_path / "corpus"
    write(root / "a.wav")
    make(root)
    if described:  # metadata that names another file only
        (root / "metadata.csv").write_text("file_name,text\na.wav,hello\n")
    clips, rejects = read_corpus(root)
    assert len(clips) + len(rejects) == 2
    if described and not any(words in reason for words in OF_THE_DISK):
        assert [clip.id for clip in clips] == ["a"] and rejects[0].reason.endswith("is not named in metadata.csv")
    elif identity:
        assert {clip.id for clip in clips} == {"a", identity}
    else:
        assert [clip.id for clip in clips] == ["a"] and rejects[0].reason.startswith(reason)
    for reject in rejects:  # can be written and printed
        assert f"{reject.id} {reject.file} {reject.reason}".encode() and "\n" not in reject.reason
    assert holds_audio(root)


def test_a_folder_that_links_lead_to_again_is_read_once_and_the_links_are_rejects(tmp_path: Path) -> None:
    write(tmp_path / "a.wav", tmp_path / "b/b.wav")
    (tmp_path / "b/up").symlink_to("..")
    (tmp_path / "again").symlink_to("b")
    clips, reasons = found(tmp_path)
    assert set(clips) == {"a", "b/b"} and reasons == {
        name: f"{name}: it is a link to a folder that is read already" for name in ("again", "b/up")
    }


def test_a_folder_that_cannot_be_listed_is_a_reject(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "a.wav", tmp_path / "shut/b.wav")
    scandir = os.scandir

    def refuse(path: Path) -> object:
        if str(path).endswith("shut"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    clips, reasons = found(tmp_path)
    assert list(clips) == ["a"] and reasons == {"shut": "shut: the folder cannot be read (Permission denied)"}


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_folder_without_metadata_beside_one_that_has_it(split: str, tmp_path: Path) -> None:
    other = {"train": "test", "test": "train"}[split]
    write(tmp_path / split / "a.wav", tmp_path / other / "deep/b.wav", tmp_path / "c.wav")
    (tmp_path / "notes.txt").write_text("not audio, not a clip")
    (tmp_path / split / "metadata.csv").write_text("file_name,text\na.wav,hello\n")
    clips, reasons = found(tmp_path)
    assert {clip.id: (clip.split, clip.text) for clip in clips.values()} == {
        f"{split}/a": (split, "hello"),
        f"{other}/deep/b": (other, None),
        "c": ("train", None),
    }
    assert not reasons


NAMES = {  # as `datasets` has them; letters of either case
    "train": ["train", "training", "train-clean", "my_train_set", "TRAIN"],
    "valid": ["valid", "validation", "dev", "val", "dev-clean", "val2017", "Dev"],
    "test": ["test", "testing", "eval", "evaluation", "test-clean", "test_other", "my-test.1", "Test", "EVAL"],
    "": ["attest", "latest", "devices", "trained", "evaluated", "contest", "intervals"],  # no split: training
}


@pytest.mark.parametrize(("split", "name"), [(split, name) for split, names in NAMES.items() for name in names])
@pytest.mark.parametrize("metadata", [False, True])
def test_splits_follow_from_the_names_of_folders(split: str, name: str, metadata: bool, tmp_path: Path) -> None:
    write(tmp_path / name / "a.wav", tmp_path / name / "test/b.wav")
    if metadata:
        (tmp_path / name / "metadata.csv").write_text("file_name\na.wav\ntest/b.wav\n")
    clips, _ = found(tmp_path)
    assert clips[f"{name}/a"].split == (split or "train")
    assert clips[f"{name}/test/b"].split == (split or "test")  # the outermost that says so


@pytest.mark.parametrize("value", ["Test", "testing", "EVAL", "evaluation"])
def test_a_column_says_the_split_with_the_same_words(value: str, tmp_path: Path) -> None:
    write(tmp_path / "train/a.wav", tmp_path / "train/b.wav")
    (tmp_path / "metadata.csv").write_text(f"file_name,split\ntrain/a.wav,{value}\ntrain/b.wav,test-other\n")
    clips, _ = found(tmp_path)
    assert (clips["train/a"].split, clips["train/b"].split) == ("test", "test-other")  # others are names of one's own


@pytest.mark.parametrize(
    ("names", "splits"),
    [
        (["train_1", "test_1", "dev-2"], ["valid", "test", "train"]),
        (["test", "test-2"], ["train", "train"]),  # a word that means nothing
        (["train_1", "test_1", "hello"], ["train", "train", "train"]),
    ],
)
def test_file_names_say_the_split_where_all_do(names: list[str], splits: list[str], tmp_path: Path) -> None:
    write(*(tmp_path / f"{name}.wav" for name in names))
    assert [clip.split for clip in read_corpus(tmp_path)[0]] == splits


def test_the_place_of_the_corpus_says_nothing_of_its_splits(tmp_path: Path) -> None:
    root = tmp_path / "test/eval"
    write(root / "a.wav", tmp_path / "test/audio/b.wav", tmp_path / "test/dev-clean/c.wav")
    rows = [{"file_name": str(path)} for path in sorted((tmp_path / "test").rglob("*.wav"))]
    write_lines(root / "metadata.jsonl", rows)
    clips, _ = found(root)
    assert {clip.path.stem: clip.split for clip in clips.values()} == {"a": "train", "b": "train", "c": "valid"}
    assert "a" in clips and not any(identity.startswith("/") for identity in clips)


def test_accents_may_be_composed_in_the_metadata_and_not_on_the_disk(tmp_path: Path) -> None:
    for form, other in (("NFC", "NFD"), ("NFD", "NFC")):
        root = tmp_path / form
        write(root / unicodedata.normalize(form, "café.wav"))
        name = unicodedata.normalize(other, "café.wav")
        (root / "metadata.jsonl").write_text(json.dumps({"file_name": name, "text": "coffee"}))
        clips, rejects = read_corpus(root)
        assert [(clip.text, clip.path.is_file()) for clip in clips] == [("coffee", True)] and not rejects


def test_names_that_only_case_or_accents_tell_apart_are_clips_of_their_own(tmp_path: Path) -> None:
    names = ["A", "a", unicodedata.normalize("NFC", "é"), unicodedata.normalize("NFD", "é")]
    write(*(tmp_path / f"{name}.wav" for name in names))
    clips, reasons = found(tmp_path)
    assert sorted(clips) == sorted(names) and not reasons


def test_an_encoding_lists_what_it_could_not_name(tmp_path: Path) -> None:
    from tiny_models import tiny_codec

    root = tmp_path / "corpus"
    write(root / "a.wav", root / f"{'b' * 251}.wav")
    not_utf8(root)
    summary = encode_corpus(root, tiny_codec(), tmp_path / "tokens")
    assert [row.id for row in summary.index.rows] == ["a", "b" * 251] and len(summary.rejected) == 1
    assert "its name is not UTF-8" in (tmp_path / "tokens/rejected.jsonl").read_text(encoding="utf-8")


def test_a_corpus_whose_own_path_is_not_utf8_is_refused(tmp_path: Path) -> None:
    root = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9"))
    root.mkdir()
    with pytest.raises(CorpusError, match=r"caf\\udce9: its path is not UTF-8; rename it"):
        read_corpus(root)


def test_rejects_can_be_printed_whatever_they_name() -> None:
    reject = Reject("a\udce9", "b\x1b[2J\udce9", "c\x1b[2J\nd")
    assert reject.id == "a\\udce9" and reject.reason == "c\\x1b[2J\\nd" and str(reject.file).encode()
