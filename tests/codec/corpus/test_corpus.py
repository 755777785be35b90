"""Reading corpora and audio files: conventions, rejects with reasons, formats, rates, damaged files."""

from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
from json_files import write_lines
from tiny_tones import tone

from codec.corpus import Clip, CorpusError, read_corpus, spread


def write_metadata(root: Path, rows: list[dict], name: str = "metadata.jsonl") -> None:
    if name.endswith(".jsonl"):
        write_lines(root / name, rows)
    elif name.endswith(".csv"):
        lines = [",".join(rows[0])] + [",".join(f'"{cell}"' for cell in row.values()) for row in rows]
        (root / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    else:
        pq.write_table(pa.Table.from_pylist(rows), root / name)


@pytest.mark.parametrize("name", ["metadata.jsonl", "metadata.csv", "metadata.parquet"])
def test_metadata_formats_give_the_same_clips(tmp_path: Path, name: str) -> None:
    (tmp_path / "train").mkdir()
    (tmp_path / "test").mkdir()
    soundfile.write(tmp_path / "train/a.wav", tone(), 16_000)
    soundfile.write(tmp_path / "test/b.flac", tone(), 16_000)
    rows = [
        {"file_name": "train/a.wav", "text": "Hello, you.", "speaker": "slt", "caption": "", "mood": "calm"},
        {"file_name": "test/b.flac", "text": "", "speaker": "", "caption": "A tone", "mood": ""},
    ]
    write_metadata(tmp_path, rows, name)
    (first, second), rejects = read_corpus(tmp_path)
    assert rejects == []
    assert (first.id, first.text, first.captions, first.speaker) == ("train/a", "Hello, you.", [], "slt")
    assert (first.domain, first.split, first.extra) == ("speech", "train", {"mood": "calm"})
    assert (second.id, second.text, second.captions, second.speaker) == ("test/b", None, ["A tone"], None)
    assert (second.domain, second.split) == ("sound", "test")


def test_all_columns_are_read(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", tone(), 16_000)
    columns = {"id": 7, "caption": ["One.", "Two."], "domain": "music", "split": "validation", "licence": "CC0"}
    write_metadata(tmp_path, [{"file_name": "a.wav", **columns}])
    (clip,), _ = read_corpus(tmp_path)
    assert (clip.id, clip.captions) == ("7", ["One.", "Two."])
    assert (clip.domain, clip.split, clip.licence) == ("music", "valid", "CC0")


def test_unusable_folders_are_errors(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="does not exist"):
        read_corpus(tmp_path / "nowhere")
    with pytest.raises(CorpusError, match="neither metadata"):
        read_corpus(tmp_path)
    (tmp_path / "metadata.jsonl").write_text("")
    (tmp_path / "metadata.csv").write_text("")
    with pytest.raises(CorpusError, match=r"metadata.jsonl and metadata.csv; keep one"):
        read_corpus(tmp_path)


def test_a_limit_takes_of_all_speakers_alike() -> None:
    """A sorted corpus begins with one speaker; so many clips of it must not be that speaker's."""
    clips = [Clip(f"{speaker}-{n}", Path("a.wav"), speaker=speaker) for speaker in "abc" for n in range(20)]
    chosen = spread(clips, 9)
    assert Counter(clip.speaker for clip in chosen) == {"a": 3, "b": 3, "c": 3}
    assert [clip.id for clip in chosen] == [clip.id for clip in clips if clip in chosen], "in the corpus' order"
    assert spread(clips[::-1], 9) == chosen[::-1] and spread(clips, 0) == clips == spread(clips, 99)
    assert {clip.id for clip in spread([*clips, Clip("d-0", Path("d.wav"), speaker="d")], 12)} >= {"d-0"}
    few = [*clips[:1], *clips[20:]]
    assert Counter(clip.speaker for clip in spread(few, 9)) == {"a": 1, "b": 4, "c": 4}
    assert {clip.id for clip in spread(clips, 3)} < {clip.id for clip in chosen}
    seeds = [spread(clips, 9, seed=seed) for seed in (0, 1, 0)]
    assert seeds[0] == seeds[2] != seeds[1] and Counter(clip.speaker for clip in seeds[1]) == {"a": 3, "b": 3, "c": 3}
