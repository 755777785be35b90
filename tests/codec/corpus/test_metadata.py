"""Every line, row and page of a corpus' metadata is a clip or a reject with its reason, and stops nothing."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from codec.corpus import CorpusError, metadata, read_corpus, read_usable_corpus
from tests.codec.corpus.test_corpus_folder import found, write

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
    '["c.wav"]': "is not a JSON object",
    '{"text": "no file"}': "has no file_name",
    '{"file_name": "b.wav", "id": "a"}': "the id 'a' is already taken by metadata.jsonl line 2",
    '{"file_name": "b.wav", "id": "c", "text": 5}': "text must be a string, not int",
    '{"file_name": "b.wav", "id": "c", "caption": {"en": "x"}}': "caption must be a string or a list of strings",
}


@pytest.mark.parametrize("line", BAD_LINES, ids=lambda line: line[:60])
def test_one_bad_line_is_a_reject_and_stops_nothing(line: str, tmp_path: Path) -> None:
    root = tmp_path / "corpus"
    write(root / "a.wav", root / "b.wav", tmp_path / "outside.wav")
    (root / "metadata.jsonl").write_text('\n{"file_name": "a.wav"}\n' + line + '\n{"file_name": "b.wav"}\n')
    clips, rejects = read_usable_corpus(root)
    assert [clip.id for clip in clips] == ["a", "b"]
    if "c.wav" in line and "text" not in line:  # the file is another matter
        write(root / "c.wav")
        clips, rejects = read_corpus(root)
    (reject,) = [reject for reject in rejects if "is not named" not in reject.reason]
    assert reject.reason.startswith("metadata.jsonl line 3") and BAD_LINES[line] in reject.reason
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


def test_a_damaged_byte_of_a_parquet_file_is_told_in_one_sentence(tmp_path: Path) -> None:
    """Also where pyarrow by itself ends the process, or finds no such text."""
    write(*(tmp_path / f"{number}.wav" for number in range(3)))
    path = tmp_path / "metadata.parquet"
    rows = [{"file_name": f"{number}.wav", "captions": [f"ä {number}", "b"]} for number in range(3)]
    pq.write_table(pa.Table.from_pylist(rows), path)
    whole, outcomes = path.read_bytes(), set()
    for place in range(0, len(whole), 3):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        try:
            _, rejects = read_corpus(tmp_path)
            said = [reject.reason for reject in rejects]
            outcomes.add("a reject" if rejects else "read")
        except CorpusError as error:
            said = [str(error)]
            outcomes.add("refused")
        assert all(map(str.isprintable, said)), said
    assert outcomes == {"read", "a reject", "refused"}


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
