"""Reading corpora and audio files: conventions, rejects with reasons, formats, rates, damaged files."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
import soxr

from codec.corpus import AudioError, Clip, CorpusError, audio_info, read_audio, read_audio_and_hash, read_corpus, spread


def tone(seconds: float = 0.5, rate: int = 16_000, hertz: float = 440.0) -> np.ndarray:
    """A sine at half scale, float32 [samples]."""
    return (0.5 * np.sin(2 * np.pi * hertz * np.arange(int(seconds * rate)) / rate)).astype(np.float32)


def write_metadata(root: Path, rows: list[dict], name: str = "metadata.jsonl") -> None:
    if name.endswith(".jsonl"):
        (root / name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
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
    columns = {
        "id": 7,
        "caption": ["One.", "Two."],
        "domain": "music",
        "split": "validation",
        "licence": "CC0",
    }
    write_metadata(tmp_path, [{"file_name": "a.wav", **columns}])
    (clip,), _ = read_corpus(tmp_path)
    assert (clip.id, clip.captions, clip.domain, clip.split, clip.licence) == (
        "7",
        ["One.", "Two."],
        "music",
        "valid",
        "CC0",
    )


def test_folder_without_metadata_and_metadata_per_split(tmp_path: Path) -> None:
    for split in ("train", "validation", "test"):
        (tmp_path / split).mkdir()
        soundfile.write(tmp_path / split / "a.wav", tone(), 16_000)
    (tmp_path / "notes.txt").write_text("not audio, not a clip")
    clips, rejects = read_corpus(tmp_path)
    assert [(clip.id, clip.split) for clip in clips] == [
        ("test/a", "test"),
        ("train/a", "train"),
        ("validation/a", "valid"),
    ]
    assert rejects == []
    for split in ("train", "validation", "test"):
        write_metadata(tmp_path / split, [{"file_name": "a.wav", "text": f"in {split}"}])
    clips, rejects = read_corpus(tmp_path)
    assert [(clip.id, clip.split, clip.text) for clip in clips] == [
        ("test/a", "test", "in test"),
        ("train/a", "train", "in train"),
        ("validation/a", "valid", "in validation"),
    ]


def test_rejects_have_reasons(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", tone(), 16_000)
    (tmp_path / "metadata.jsonl").write_text(
        '{"file_name": "a.wav", "id": "a"}\n'
        '{"file_name": "a.wav", "id": \n'
        "\n"
        '["a.wav"]\n'
        '{"text": "no file"}\n'
        '{"file_name": "gone.wav"}\n'
        '{"file_name": "a.wav", "id": "a"}\n'
        '{"file_name": "a.wav", "id": "b", "text": 5}\n'
        '{"file_name": "a.wav", "id": "c", "caption": {"en": "x"}}\n'
    )
    clips, rejects = read_corpus(tmp_path)
    assert [clip.id for clip in clips] == ["a"]
    expected = [
        "metadata.jsonl line 2 is not valid JSON",
        "metadata.jsonl line 4 is not a JSON object",
        "metadata.jsonl line 5 has no file_name",
        "metadata.jsonl line 6: the file does not exist",
        "metadata.jsonl line 7: the id 'a' is already taken by metadata.jsonl line 1",
        "metadata.jsonl line 8: text must be a string, not int",
        "metadata.jsonl line 9: caption must be a string or a list of strings",
    ]
    assert len(rejects) == len(expected)
    for reject, reason in zip(rejects, expected, strict=True):
        assert reject.reason.startswith(reason)


def test_unusable_folders_are_errors(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="does not exist"):
        read_corpus(tmp_path / "nowhere")
    with pytest.raises(CorpusError, match="neither metadata"):
        read_corpus(tmp_path)
    (tmp_path / "metadata.jsonl").write_text("")
    (tmp_path / "metadata.csv").write_text("")
    with pytest.raises(CorpusError, match=r"metadata.jsonl and metadata.csv; keep one"):
        read_corpus(tmp_path)


@pytest.mark.parametrize(
    ("name", "subtype", "error"),
    [
        ("a.wav", "PCM_U8", 1e-2),
        ("a.wav", "PCM_16", 1e-4),
        ("a.wav", "PCM_24", 1e-6),
        ("a.wav", "PCM_32", 1e-6),
        ("a.wav", "FLOAT", 1e-7),
        ("a.wav", "DOUBLE", 1e-7),
        ("a.flac", "PCM_16", 1e-4),
        ("a.flac", "PCM_24", 1e-6),
        ("a.ogg", "VORBIS", 0.05),
        ("a.mp3", "MPEG_LAYER_III", 0.05),
    ],
)
def test_formats_and_bit_depths(tmp_path: Path, name: str, subtype: str, error: float) -> None:
    soundfile.write(tmp_path / name, tone(), 16_000, subtype=subtype)
    wav = read_audio(tmp_path / name, 16_000)
    assert wav.dtype == np.float32 and wav.shape == (8_000,)
    middle = slice(2_000, 6_000)  # lossy formats ring at the ends
    assert np.abs(wav[middle] - tone()[middle]).max() < error
    info = audio_info(tmp_path / name)
    assert (info.frames, info.sample_rate, info.channels, info.seconds) == (8_000, 16_000, 1, 0.5)


@pytest.mark.parametrize("rate", [8_000, 11_025, 22_050, 44_100, 48_000])
def test_resampling_in_blocks_equals_soxr_in_one_go(tmp_path: Path, rate: int) -> None:
    stereo = np.random.default_rng(0).uniform(-0.5, 0.5, (rate * 8 + 123, 2)).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", stereo, rate, subtype="FLOAT")
    expected = soxr.resample(stereo.mean(axis=1), rate, 24_000, quality="HQ")
    wav = read_audio(tmp_path / "a.wav", 24_000)
    assert wav.shape == expected.shape
    np.testing.assert_allclose(wav, expected, atol=1e-6)
    both = read_audio(tmp_path / "a.wav", 24_000, mono=False)
    assert both.shape == (2, len(expected))
    np.testing.assert_allclose(both.mean(axis=0), expected, atol=1e-5)


def test_hash_is_of_the_content(tmp_path: Path) -> None:
    samples = (tone() * 32_000).astype(np.int16)
    soundfile.write(tmp_path / "a.wav", samples, 16_000)
    soundfile.write(tmp_path / "a.flac", samples, 16_000)
    soundfile.write(tmp_path / "b.wav", samples[::-1], 16_000)
    hashes = [read_audio_and_hash(tmp_path / name, 24_000)[1] for name in ("a.wav", "a.flac", "b.wav")]
    assert hashes[0] == hashes[1] != hashes[2]


def check_refused(path: Path, reason: str) -> None:
    with pytest.raises(AudioError, match=reason) as caught:
        read_audio(path, 16_000)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_damaged_audio_is_refused_with_the_reason(tmp_path: Path) -> None:
    check_refused(tmp_path / "gone.wav", "does not exist")

    (tmp_path / "empty.wav").touch()
    check_refused(tmp_path / "empty.wav", r"empty file \(0 bytes\)")

    soundfile.write(tmp_path / "none.wav", np.zeros(0, np.float32), 16_000)
    check_refused(tmp_path / "none.wav", "no audio")

    (tmp_path / "text.wav").write_text("This is a text file and not audio.\n" * 20)
    check_refused(tmp_path / "text.wav", "not audio that soundfile can read")

    for number, value in enumerate((np.nan, np.inf)):
        wav = tone()
        wav[4_000] = value
        soundfile.write(tmp_path / f"{number}.wav", wav, 16_000, subtype="FLOAT")
        check_refused(tmp_path / f"{number}.wav", r"NaN or infinite \(the first at 0.250 s\)")


@pytest.mark.parametrize("kind", ["WAV", "RF64"])
def test_truncated_wav_names_what_is_missing(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, tone(2.0), 16_000, format=kind, subtype="PCM_16")
    assert len(read_audio(path, 16_000)) == 32_000
    path.write_bytes(path.read_bytes()[: -int(1.5 * 32_000)])
    check_refused(path, "truncated: its header promises 2.000 s, 0.500 s are there, 1.500 s are missing")
    with pytest.raises(AudioError, match="truncated"):
        audio_info(path)
    path.write_bytes(path.read_bytes()[:30])
    check_refused(path, "truncated")


def test_truncated_flac_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.flac"
    soundfile.write(path, np.random.default_rng(0).uniform(-0.5, 0.5, 32_000), 16_000)
    path.write_bytes(path.read_bytes()[:20_000])
    check_refused(path, "truncated|damaged")


def test_wav_of_open_length_is_read(tmp_path: Path) -> None:
    """ffmpeg leaves the sizes open when it writes a WAV into a pipe."""
    path = tmp_path / "a.wav"
    soundfile.write(path, tone(), 16_000, subtype="PCM_16")
    content = bytearray(path.read_bytes())
    at = content.index(b"data") + 4
    content[4:8] = content[at : at + 4] = b"\xff\xff\xff\xff"
    path.write_bytes(content)
    assert len(read_audio(path, 16_000)) == 8_000


def test_twenty_minutes_are_read_in_blocks(tmp_path: Path) -> None:
    path = tmp_path / "long.wav"
    soundfile.write(path, np.tile(tone(1.0, 8_000), 1_200), 8_000, subtype="PCM_U8")
    assert audio_info(path).seconds == 1_200
    assert len(read_audio(path, 16_000)) == 1_200 * 16_000


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
