"""Every audio file below a corpus folder, and every line of its metadata, is a clip or a reject with its reason."""

import json
import os
import unicodedata
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile

from codec.corpus import Clip, CorpusError, Reject, holds_audio, metadata, read_corpus, read_usable_corpus
from codec.encode import encode_corpus


def write(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, np.full(800, 0.1, np.float32), 16_000, format="WAV")


def found(root: Path) -> tuple[dict[str, Clip], dict[str, str]]:
    """Clips by id, reasons by file."""
    clips, rejects = read_corpus(root)
    return {clip.id: clip for clip in clips}, {str(reject.file): reject.reason for reject in rejects}


def dead_link(root: Path) -> None:
    (root / "b.wav").symlink_to("gone.wav")


def dead_folder(root: Path) -> None:
    (root / "b").symlink_to("/no/such/folder")


def link_to_itself(root: Path) -> None:
    (root / "b.wav").symlink_to("b.wav")


def link_to_file(root: Path) -> None:
    write(root.parent / "elsewhere/b.wav")
    (root / "b.wav").symlink_to(root.parent / "elsewhere/b.wav")


def link_to_folder(root: Path) -> None:
    write(root.parent / "elsewhere/b.wav")
    (root / "b").symlink_to(root.parent / "elsewhere")


def pipe(root: Path) -> None:
    os.mkfifo(root / "b.wav")


def unread_suffix(root: Path) -> None:
    write(root / "b.G726")


def archive(root: Path) -> None:
    write(root / "b.zip")


def packed(root: Path) -> None:
    write(root / "b.wav.gz")
    write(root / "notes.txt.gz")  # and nothing of this


def upper_case(root: Path) -> None:
    write(root / "b.WAVE")


def not_utf8(root: Path) -> None:
    write(root / "b.wav")
    os.rename(root / "b.wav", os.fsencode(root) + b"/b\xe9.wav")


def folder_not_utf8(root: Path) -> None:
    write(root / "b/b.wav")
    os.rename(root / "b", os.fsencode(root) + b"/b\xe9")


def new_line(root: Path) -> None:
    write(root / "b\n.wav")


def longest_name(root: Path) -> None:
    write(root / f"{'b' * 251}.wav")


PLACES: dict[Callable[[Path], None], tuple[str | None, str]] = {  # maker → (id of the clip) or (None, reason)
    dead_link: (None, "b.wav: it is a link that leads nowhere"),
    dead_folder: (None, "b: it is a link that leads nowhere"),
    link_to_itself: (None, "b.wav: it is a link that leads nowhere"),
    link_to_file: ("b", ""),
    link_to_folder: ("b/b", ""),
    pipe: (None, "b.wav: it is neither a file nor a folder"),
    unread_suffix: (None, "b.G726: .G726 is audio that soundfile does not read: convert it"),
    archive: (None, "b.zip: what is in an archive is not read: unpack it"),
    packed: (None, "b.wav.gz: what is in an archive is not read: unpack it"),
    upper_case: ("b", ""),
    not_utf8: (None, "b\\udce9.wav: its name is not UTF-8: rename it"),
    folder_not_utf8: (None, "b\\udce9/b.wav: its name is not UTF-8: rename it"),
    new_line: (None, "b\\n.wav: the id 'b\\n' cannot be used: it has control characters"),
    longest_name: ("b" * 251, ""),
}


@pytest.mark.parametrize("described", [False, True], ids=["plain", "with metadata"])
@pytest.mark.parametrize("make", PLACES, ids=lambda make: make.__name__)
def test_every_audio_file_below_the_root_is_a_clip_or_a_reject(
    make: Callable[[Path], None], described: bool, tmp_path: Path
) -> None:
    root = tmp_path / "corpus"
    write(root / "a.wav")
    make(root)
    if described:  # metadata that names another file only
        (root / "metadata.csv").write_text("file_name,text\na.wav,hello\n")
    clips, rejects = read_corpus(root)
    identity, reason = PLACES[make]
    assert len(clips) + len(rejects) == 2
    if (
        described
        and "nowhere" not in reason
        and "neither" not in reason
        and "UTF-8" not in reason
        and "archive" not in reason
    ):
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
    (root / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    clips, _ = found(root)
    assert {clip.path.stem: clip.split for clip in clips.values()} == {"a": "train", "b": "train", "c": "valid"}
    assert "a" in clips and not any(identity.startswith("/") for identity in clips)


BAD_LINES = {  # of metadata.jsonl → what is said
    '{"file_name": "%s.wav"}' % ("x" * 300): "the file cannot be opened (File name too long)",
    '{"file_name": ".."}': "the file is a folder",
    '{"file_name": "."}': "the file is a folder",
    '{"file_name": "../outside.wav"}': "the id '../outside' cannot be used: it leads out of its folder; give",
    '{"file_name": "c.wav\\u0000"}': "the file cannot be opened (embedded null byte)",
    '{"file_name": "file:///etc/passwd"}': "the file does not exist",
    '{"file_name": "c.wav", "id": "../../../victim"}': "id '../../../victim' cannot be used: it leads out of",
    '{"file_name": "c.wav", "id": "a/../../b"}': "leads out of its folder",
    '{"file_name": "c.wav", "id": "/etc/passwd"}': "it is a path of its own",
    '{"file_name": "c.wav", "id": "..\\\\..\\\\b"}': "leads out of its folder",
    '{"file_name": "c.wav", "id": "a//b"}': "it has a part without a name",
    '{"file_name": "c.wav", "id": "a\\nb"}': "it has control characters",
    '{"file_name": "c.wav", "id": "a\\u202eb"}': "it has control characters, invisible ones",
    '{"file_name": "c.wav", "speaker": "a\\u202eb"}': "the speaker 'a\\u202eb' cannot be used: it has control",
    '{"file_name": "c.wav", "domain": "\\u001b[2Jspeech"}': "the domain '\\x1b[2Jspeech' cannot be used: it has",
    '{"file_name": "c.wav", "split": "tr\\u00adain"}': "the split 'tr\\xadain' cannot be used: it has",
    '{"file_name": "c.wav", "licence": "\\u2066MIT"}': "the licence '\\u2066MIT' cannot be used: it has",
    '{"file_name": "c.wav", "id": "%s"}' % ("x" * 3000): "it is longer than 1024 bytes",
    '{"file_name": "c.wav", "id": ["c"]}': "id must be a string or a number, not list",
    '{"file_name": "c.wav", "split": {"a": 1}}': "split must be a string or a number, not dict",
    '{"file_name": "c.wav", "text": "\\ud800"}': "is not UTF-8",
    '{"file_name": "c.wav", "\\udfff": 1}': "is not UTF-8",
    "[" * 100_000: "is nested too deeply",
    '{"file_name": "c.wav", "id": %s}' % ("9" * 5000): "has a number of too many digits",
    '{"file_name": "c.wav"': "is not valid JSON",
    '{"file_name": "c\\q.wav"}': "is not valid JSON",
}


@pytest.mark.parametrize("line", BAD_LINES, ids=lambda line: line[:60])
def test_one_bad_line_is_a_reject_and_stops_nothing(line: str, tmp_path: Path) -> None:
    root = tmp_path / "corpus"
    write(root / "a.wav", root / "b.wav", tmp_path / "outside.wav")
    (root / "metadata.jsonl").write_text('{"file_name": "a.wav"}\n' + line + '\n{"file_name": "b.wav"}\n')
    clips, rejects = read_usable_corpus(root)
    assert [clip.id for clip in clips] == ["a", "b"]
    if "c.wav" in line and "text" not in line:  # the file is another matter
        write(root / "c.wav")
        clips, rejects = read_corpus(root)
    (reject,) = [reject for reject in rejects if "is not named" not in reject.reason]
    assert reject.reason.startswith("metadata.jsonl line 2") and BAD_LINES[line] in reject.reason
    assert len(reject.reason) < 250 and json.dumps(reject.file, ensure_ascii=False).encode()


CSV = {  # metadata.csv → (texts by file, what the rejects say by file)
    "open quotation mark": (
        'file_name,text\na.wav,"so he said\nb.wav,two\nc.wav,"three ""quoted"" words"\n',
        {"b.wav": "two", "c.wav": 'three "quoted" words'},
        {"a.wav": "line 2 opens a quotation mark that is not closed"},
    ),
    "open quotation mark, closed by the next row": (
        'file_name,text\na.wav,"so he said\nb.wav,"two"\nc.wav,three"\n',
        {"b.wav": "two", "c.wav": 'three"'},
        {"a.wav": "line 2 opens a quotation mark that is not closed"},
    ),
    "open quotation mark at the end": (
        'file_name,text\na.wav,one\nb.wav,two\nc.wav,"three\n',
        {"a.wav": "one", "b.wav": "two"},
        {"c.wav": "line 4 opens a quotation mark that is not closed"},
    ),
    "cells of several lines": (
        'file_name,text\r\na.wav,"one,\r\nand, ""another"""\r\nb.wav,two\r\nc.wav,three\r\n',
        {"a.wav": 'one,\r\nand, "another"', "b.wav": "two", "c.wav": "three"},
        {},
    ),
    "semicolons": (
        "file_name;text\na.wav;one, and\nb.wav;two\nc.wav;three\n",
        {"a.wav": "one, and", "b.wav": "two", "c.wav": "three"},
        {},
    ),
    "tabs, the name in the second column, a byte-order mark": (
        "\ufefftext\tfile_name\none\ta.wav\n\ntwo\tb.wav\nthree\tc.wav\n",
        {"a.wav": "one", "b.wav": "two", "c.wav": "three"},
        {},
    ),
    "more cells than the header": (
        "file_name,text\na.wav,one, and\nb.wav,two\nc.wav\n",
        {"b.wav": "two", "c.wav": None},
        {"a.wav": "line 2 has more cells than the header"},
    ),
    "a cell of a megabyte": (
        f"file_name,text\na.wav,{'x' * 1_000_000}\nb.wav,two\nc.wav,three\n",
        {"b.wav": "two", "c.wav": "three"},
        {"None": "line 2 cannot be read (field larger than field limit"},
    ),
    "latin-1": (
        "file_name,text\na.wav,caf\udce9\nb.wav,two\nc.wav,three\n",
        {"b.wav": "two", "c.wav": "three"},
        {"a.wav": "line 2 is not UTF-8"},
    ),
}


@pytest.mark.parametrize("name", CSV)
def test_every_row_of_a_csv_is_accounted_for(name: str, tmp_path: Path) -> None:
    content, texts, said = CSV[name]
    write(*(tmp_path / file for file in ("a.wav", "b.wav", "c.wav")))
    (tmp_path / "metadata.csv").write_bytes(content.encode("utf-8", "surrogateescape"))
    clips, reasons = found(tmp_path)
    assert {clip.path.name: clip.text for clip in clips.values()} == texts
    for file, reason in said.items():
        assert reason in reasons.pop(file)
    assert all(reason.endswith("is not named in metadata.csv") for reason in reasons.values())


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("name,text\na.wav,one\n", "metadata.csv has no column file_name in its first line: name, text"),
        ("file_name,text,text\na.wav,one,two\n", "metadata.csv has two columns 'text'"),
    ],
)
def test_a_header_that_does_not_fit_is_said_once(content: str, reason: str, tmp_path: Path) -> None:
    write(tmp_path / "a.wav")
    (tmp_path / "metadata.csv").write_text(content)
    with pytest.raises(CorpusError, match=f"the first because: {reason}"):
        read_usable_corpus(tmp_path)


def test_metadata_that_is_no_text_in_utf8_is_refused_by_name(tmp_path: Path) -> None:
    write(tmp_path / "a.wav")
    (tmp_path / "metadata.csv").write_text("file_name,text\na.wav,one\n", encoding="utf-16")
    with pytest.raises(CorpusError, match=r"metadata.csv is UTF-16 text: save it as UTF-8"):
        read_corpus(tmp_path)
    (tmp_path / "metadata.csv").unlink()
    (tmp_path / "metadata.csv").symlink_to("gone.csv")
    with pytest.raises(CorpusError, match=r"metadata.csv is no file, or a link that leads nowhere"):
        read_corpus(tmp_path)
    (tmp_path / "metadata.csv").unlink()
    (tmp_path / "metadata.parquet").write_bytes(b"PAR1 and then nothing")
    with pytest.raises(CorpusError, match=r"metadata.parquet is not a readable parquet file"):
        read_corpus(tmp_path)


def test_a_damaged_page_costs_its_rows(tmp_path: Path) -> None:
    write(*(tmp_path / f"{number}.wav" for number in range(30)))
    path = tmp_path / "metadata.parquet"
    rows = [{"file_name": f"{number}.wav", "text": f"number {number} " * 9} for number in range(30)]
    pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=10, compression="zstd", use_dictionary=False)
    page = pq.ParquetFile(path).metadata.row_group(1).column(1).data_page_offset
    content = bytearray(path.read_bytes())
    content[page : page + 60] = b"\xff" * 60
    path.write_bytes(content)
    clips, rejects = read_corpus(tmp_path)
    assert {int(clip.id) for clip in clips} == {*range(10), *range(20, 30)}
    assert rejects[0].reason.startswith("metadata.parquet: rows 11 to 20 are damaged")
    assert len(clips) + len(rejects) == 31  # the ten files are not named elsewhere


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


BOMBS = {  # columns of a parquet file of some kilobytes → why its second and third row are left out
    "one text in many rows": (
        {"text": pa.array(["short", *["a" * 1_100_000] * 2])}, "row 2: its text takes more than 1048576 bytes"
    ),
    "one caption many times": (
        {"captions": pa.array([["short"], *[["a" * 1000] * 2000] * 2])}, "row 2: its captions takes more than 1048576"
    ),
    "many values": (
        {"captions": pa.array([[], *[["a"] * 600] * 2])},
        "rows 1 to 3 are not read: the captions of 3 rows are 1201 values; a row group holds at most 1000",
    ),
    "much in one column": (
        {"text": pa.array([f"{number}" * 50_000 for number in range(3)])},
        "rows 1 to 3 are not read: its column text takes 150",
    ),
}  # fmt: skip


@pytest.mark.parametrize("bomb", BOMBS)
def test_metadata_that_unpacks_to_much_is_left_out_with_the_reason(
    bomb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    columns, reason = BOMBS[bomb]
    write(*(tmp_path / f"{number}.wav" for number in range(3)))
    table = pa.table({"file_name": [f"{number}.wav" for number in range(3)], **columns})
    pq.write_table(table, tmp_path / "metadata.parquet", compression="zstd")
    assert (tmp_path / "metadata.parquet").stat().st_size < 10_000
    if bomb == "many values":
        monkeypatch.setattr(metadata.check_unpacked, "__defaults__", (1000, None))
    if bomb == "much in one column":
        monkeypatch.setattr(metadata, "BYTES_PER_GROUP", 100_000)
    clips, rejects = read_corpus(tmp_path)
    assert rejects[0].reason.startswith(f"metadata.parquet{':' if 'rows' in reason else ''} {reason}")
    assert [clip.id for clip in clips] == (["0"] if "row 2" in reason else [])


def test_a_parquet_file_of_more_rows_than_can_have_names_is_not_read(tmp_path: Path) -> None:
    pq.write_table(pa.table({"file_name": pa.nulls(10_000_000, pa.string())}), tmp_path / "metadata.parquet")
    _, (reject,) = read_corpus(tmp_path)
    assert "bytes and says that it has 10000000 rows" in reject.reason
