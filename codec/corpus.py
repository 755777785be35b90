"""Reads a corpus of audio: a folder in the Hugging Face AudioFolder convention, and the audio files in it.

    clips, rejects = read_corpus("data/mini")
    wav = read_audio(clips[0].path, sample_rate=24_000)     # float32 [samples], mono

`metadata.jsonl`, `metadata.csv` or `metadata.parquet` names the files; see docs/data.md for the columns. What
cannot be used comes back as a `Reject` with its reason and is never dropped silently.
"""

import csv
import hashlib
import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import soundfile
import soxr

METADATA_NAMES = ("metadata.jsonl", "metadata.csv", "metadata.parquet")
AUDIO_SUFFIXES = frozenset({".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".aifc", ".au", ".w64"})
SPLIT_NAMES = {  # folder or column value -> the name that the rest of the framework uses
    "train": "train",
    "valid": "valid",
    "validation": "valid",
    "val": "valid",
    "dev": "valid",
    "test": "test",
}
KNOWN_COLUMNS = frozenset(
    {"file_name", "id", "text", "caption", "captions", "speaker", "domain", "split", "licence", "license"}
)
# Frames per read: a 20-minute file never stands in memory at its own rate and channels.
BLOCK_FRAMES = 1 << 18
# A writer that cannot seek back (a pipe) leaves the size open: ffmpeg writes 0xFFFFFFFF, sox 0x7FFFF024.
OPEN_WAV_SIZE = 0x7FFFF000
UNKNOWN_FRAMES = 1 << 62  # libsndfile reports 2^63 - 1 where the header does not say how long the file is


class CorpusError(ValueError):
    """The corpus folder as a whole cannot be read."""


class AudioError(ValueError):
    """One audio file cannot be used; the message says why in one sentence."""


@dataclass
class Clip:
    """One audio file and what is known about it; `text` is a transcript, `captions` are descriptions."""

    id: str
    path: Path
    text: str | None = None
    captions: list[str] = field(default_factory=list)
    speaker: str | None = None
    domain: str = "sound"  # speech | sound | music
    split: str = "train"  # train | valid | test, or a name of the corpus' own
    licence: str | None = None
    extra: dict[str, Any] = field(default_factory=dict)  # columns that the framework does not read


@dataclass
class Reject:
    """What was left out of a corpus: `id` and `file` where they are known, and the reason in one sentence."""

    id: str | None
    file: str | None
    reason: str


@dataclass
class AudioInfo:
    """What the header of an audio file says. `frames` counts samples per channel at the file's own rate."""

    frames: int
    sample_rate: int
    channels: int

    @property
    def seconds(self) -> float:
        return self.frames / self.sample_rate


def read_corpus(root: str | Path) -> tuple[list[Clip], list[Reject]]:
    """The clips of the corpus folder `root` in the order of its metadata, and what was rejected.

    A metadata file in `root` wins; else those in sub-folders are read (one per split, as AudioFolder allows);
    a folder without any is read as plain audio files. Audio is not opened here: `read_audio` does that.
    Raises CorpusError when the folder is missing or empty, or a metadata file cannot be parsed at all.
    """
    root = Path(root)
    if not root.is_dir():
        raise CorpusError(
            f"corpus folder {root} does not exist; give the folder that holds metadata.jsonl or audio files"
        )
    sources = _metadata_files(root)
    rejects: list[Reject] = []
    entries = _plain_files(root)
    if sources:
        entries = itertools.chain.from_iterable(_read_metadata(source, rejects) for source in sources)
    clips: list[Clip] = []
    seen: dict[str, str] = {}  # id -> where it was met first
    for folder, place, columns in entries:
        clip = _clip(root, folder, place, columns)
        if isinstance(clip, Reject):
            rejects.append(clip)
        elif clip.id in seen:
            reason = f"{place}: the id {clip.id!r} is already taken by {seen[clip.id]}"
            rejects.append(Reject(clip.id, str(columns["file_name"]), reason))
        else:
            seen[clip.id] = place
            clips.append(clip)
    if not clips and not rejects:
        raise CorpusError(
            f"corpus folder {root} has neither metadata.jsonl|csv|parquet nor audio files, or they are empty"
        )
    return clips, rejects


def _metadata_files(root: Path) -> list[Path]:
    """The metadata files that describe `root`: its own, or else one per sub-folder."""
    for folders in ([root], sorted(path for path in root.rglob("*") if path.is_dir())):
        found = []
        for folder in folders:
            names = [folder / name for name in METADATA_NAMES if (folder / name).is_file()]
            if len(names) > 1:
                listed = " and ".join(path.name for path in names)
                raise CorpusError(f"{folder} has {listed}; keep one of them, which one counts cannot be guessed")
            found += names
        if found:
            return found
    return []


Entry = tuple[Path, str, dict[str, Any]]  # folder that file_name is relative to, place for messages, columns


def _plain_files(root: Path) -> Iterator[Entry]:
    for path in sorted(root.rglob("*")):
        if path.suffix.lower() in AUDIO_SUFFIXES and path.is_file():
            name = path.relative_to(root).as_posix()
            yield root, name, {"file_name": name}


def _read_metadata(source: Path, rejects: list[Reject]) -> Iterator[Entry]:
    if source.suffix == ".jsonl":
        with source.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                if not line.strip():
                    continue
                place = f"{source.name} line {number}"
                try:
                    columns = json.loads(line.decode("utf-8-sig"))
                except (json.JSONDecodeError, UnicodeDecodeError) as error:
                    rejects.append(Reject(None, None, f"{place} is not valid JSON ({error})"))
                    continue
                if not isinstance(columns, dict):
                    rejects.append(Reject(None, None, f"{place} is not a JSON object"))
                    continue
                yield source.parent, place, columns
    elif source.suffix == ".csv":
        with source.open(newline="", encoding="utf-8-sig") as lines:
            table = csv.DictReader(lines)
            try:
                for columns in table:
                    place = f"{source.name} line {table.line_num}"
                    if None in columns:
                        rejects.append(
                            Reject(None, columns.get("file_name"), f"{place} has more cells than the header")
                        )
                        continue
                    yield source.parent, place, columns
            except (csv.Error, UnicodeDecodeError) as error:
                raise CorpusError(f"{source} is not a readable CSV file in UTF-8 ({error})") from error
    else:
        import pyarrow
        import pyarrow.parquet

        try:
            parquet = pyarrow.parquet.ParquetFile(source)
        except pyarrow.ArrowInvalid as error:
            raise CorpusError(f"{source} is not a readable parquet file ({error})") from error
        number = 0
        for batch in parquet.iter_batches():
            for columns in batch.to_pylist():
                number += 1
                yield source.parent, f"{source.name} row {number}", columns


def _clip(root: Path, folder: Path, place: str, columns: dict[str, Any]) -> Clip | Reject:
    """The clip that one metadata row describes, or why it is none."""
    name = columns.get("file_name")
    if not isinstance(name, str) or not name.strip():
        return Reject(_name(columns.get("id")), None, f"{place} has no file_name")
    path = folder / name
    # Id and split follow from the place below the corpus root, also where the metadata lies in train/.
    inside = PurePosixPath((folder.relative_to(root) / name).as_posix())
    identity = _name(columns.get("id")) or str(inside.with_suffix(""))

    def reject(reason: str) -> Reject:
        return Reject(identity, name, f"{place}: {reason}")

    text = columns.get("text")
    if text is not None and not isinstance(text, str):
        return reject(f"text must be a string, not {type(text).__name__}")
    captions = columns.get("caption")
    if captions is None:
        captions = columns.get("captions")
    captions = [captions] if isinstance(captions, str) else captions or []
    if not isinstance(captions, list) or not all(isinstance(caption, str) for caption in captions):
        return reject("caption must be a string or a list of strings")
    if not path.is_file():
        return reject("the file is a folder" if path.is_dir() else "the file does not exist")
    text = text.strip() if text and text.strip() else None
    split = _name(columns.get("split")) or next((part for part in inside.parts[:-1] if part in SPLIT_NAMES), "train")
    return Clip(
        id=identity,
        path=path,
        text=text,
        captions=[caption.strip() for caption in captions if caption.strip()],
        speaker=_name(columns.get("speaker")),
        domain=_name(columns.get("domain")) or ("speech" if text else "sound"),
        split=SPLIT_NAMES.get(split, split),
        licence=_name(columns.get("licence")) or _name(columns.get("license")),
        extra={key: value for key, value in columns.items() if key not in KNOWN_COLUMNS},
    )


def _name(value: Any) -> str | None:
    """A name from a metadata cell: numbers become strings, empty cells None."""
    return None if value is None or str(value).strip() == "" else str(value).strip()


def audio_info(path: str | Path) -> AudioInfo:
    """Length, rate and channels of an audio file from its header, without decoding it (milliseconds).

    Raises AudioError for what the header already shows: missing, empty, truncated or not audio at all.
    """
    path = Path(path)
    with _open(path) as file:
        frames = file.frames
        if frames >= UNKNOWN_FRAMES:  # a streamed FLAC: only decoding tells
            frames = sum(len(block) for block in _blocks(file, path))
        if frames == 0:
            raise AudioError(f"{path} holds no audio (0 samples)")
        return AudioInfo(frames, file.samplerate, file.channels)


def read_audio(path: str | Path, sample_rate: int, mono: bool = True) -> np.ndarray:
    """The samples of an audio file at `sample_rate` Hz (soxr, high quality), float32 in [-1, 1].

    Any rate, bit depth and format that libsndfile reads. Returns [samples], the mean of the channels; with
    `mono=False` [channels, samples]. Raises AudioError with one sentence when the file is missing, empty,
    truncated, not audio, or holds NaN or infinite samples.
    """
    return read_audio_and_hash(path, sample_rate, mono)[0]


def read_audio_and_hash(path: str | Path, sample_rate: int, mono: bool = True) -> tuple[np.ndarray, str]:
    """As `read_audio`, with the SHA-256 (hex) of the audio's content.

    The hash covers rate, channels and decoded samples, not the file's bytes, so the same recording stored as
    WAV and as FLAC is found to be the same.
    """
    digest = hashlib.sha256()
    wav = np.concatenate(list(_pieces(Path(path), sample_rate, mono, digest)))
    return (wav[:, 0] if mono else np.ascontiguousarray(wav.T)), digest.hexdigest()


def read_pieces(path: str | Path, sample_rate: int) -> Iterator[np.ndarray]:
    """As `read_audio`, mono, piece by piece (some seconds each): a recording of hours never stands in memory."""
    for piece in _pieces(Path(path), sample_rate, True, hashlib.sha256()):
        yield piece[:, 0]


def _pieces(path: Path, sample_rate: int, mono: bool, digest: "hashlib._Hash") -> Iterator[np.ndarray]:
    """Resampled pieces [samples, channels] of a file; `digest` takes in its rate, channels and samples."""
    with _open(path) as file:
        channels = 1 if mono else file.channels
        digest.update(f"{file.samplerate} {file.channels}\n".encode())
        stream = None
        if file.samplerate != sample_rate:
            stream = soxr.ResampleStream(file.samplerate, sample_rate, channels, dtype="float32", quality="HQ")
        frames = samples = 0
        for block in _blocks(file, path):  # [frames, channels]
            finite = np.isfinite(block)
            if not finite.all():
                bad = int(np.argmin(finite.all(axis=1)))
                second = (frames + bad) / file.samplerate
                raise AudioError(f"{path} holds samples that are NaN or infinite (the first at {second:.3f} s)")
            digest.update(block.tobytes())
            frames += len(block)
            piece = block.mean(axis=1, keepdims=True) if mono else block
            piece = stream.resample_chunk(piece) if stream else piece
            samples += len(piece)
            yield piece
        if frames == 0:
            raise AudioError(f"{path} holds no audio (0 samples)")
        if file.frames < UNKNOWN_FRAMES and frames < file.frames:
            raise _truncated(path, file.frames / file.samplerate, frames / file.samplerate)
        if stream:
            piece = stream.resample_chunk(np.zeros((0, channels), np.float32), last=True)
            samples += len(piece)
            yield piece
    if samples == 0:
        raise AudioError(f"{path} is too short: {frames} samples leave none at {sample_rate} Hz")


def _open(path: Path) -> soundfile.SoundFile:
    if not path.is_file():
        raise AudioError(f"{path} does not exist")
    size = path.stat().st_size
    if size == 0:
        raise AudioError(f"{path} is an empty file (0 bytes)")
    _check_wav_length(path, size)
    try:
        return soundfile.SoundFile(path)
    except (soundfile.SoundFileError, TypeError) as error:
        # soundfile takes a .raw suffix for headerless audio and asks for its rate with a TypeError.
        reason = getattr(error, "error_string", str(error)).strip().rstrip(".")
        raise AudioError(f"{path} is not audio that soundfile can read ({reason})") from error


def _blocks(file: soundfile.SoundFile, path: Path) -> Iterator[np.ndarray]:
    """Blocks of samples, float32 [frames, channels], until the file ends."""
    while True:
        try:
            block = file.read(BLOCK_FRAMES, dtype="float32", always_2d=True)
        except soundfile.SoundFileError as error:
            reason = getattr(error, "error_string", str(error)).strip().rstrip(".")
            raise AudioError(f"{path} is damaged and cannot be decoded to its end ({reason})") from error
        if len(block) == 0:
            return
        yield block


def _truncated(path: Path, promised: float, held: float) -> AudioError:
    missing = promised - held
    return AudioError(
        f"{path} is truncated: its header promises {promised:.3f} s, "
        f"{held:.3f} s are there, {missing:.3f} s are missing"
    )


def _check_wav_length(path: Path, size: int) -> None:
    """Raises AudioError when a WAV header promises more samples than the file holds.

    libsndfile shortens such a file without a word, so the chunks of RIFF and RF64 files are walked here.
    """
    with path.open("rb") as file:
        head = file.read(12)
        if head[:4] not in (b"RIFF", b"RF64") or head[8:] != b"WAVE":
            return
        bytes_per_second = 0
        long_size: int | None = None  # RF64 keeps the real size in its ds64 chunk
        position = 12
        while position + 8 <= size:
            file.seek(position)
            name, promised = file.read(4), int.from_bytes(file.read(4), "little")
            position += 8
            if name == b"ds64":
                long_size = int.from_bytes(file.read(16)[8:16], "little")
            elif name == b"fmt ":
                bytes_per_second = int.from_bytes(file.read(12)[8:12], "little")
            elif name == b"data":
                promised = long_size if head[:4] == b"RF64" and long_size else promised
                is_open = long_size is None and promised >= OPEN_WAV_SIZE
                if promised > size - position and not is_open:
                    rate = max(bytes_per_second, 1)
                    raise _truncated(path, promised / rate, (size - position) / rate)
                return
            position += promised + promised % 2  # chunks start at even bytes
        raise AudioError(f"{path} is truncated: the WAV header ends before any samples begin")
