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
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path, PurePosixPath
from typing import Any, Protocol, TypeVar

from codec.audio_files import (
    AUDIO_SUFFIXES,
    AudioError,
    AudioInfo,
    audio_info,
    read_audio,
    read_audio_and_hash,
    read_pieces,
)

__all__ = [
    "AUDIO_SUFFIXES",
    "AudioError",
    "AudioInfo",
    "Clip",
    "CorpusError",
    "METADATA_NAMES",
    "Reject",
    "SPLIT_NAMES",
    "audio_info",
    "corpus_folder",
    "holds_audio",
    "read_audio",
    "read_audio_and_hash",
    "read_corpus",
    "read_usable_corpus",
    "read_pieces",
    "spread",
]

METADATA_NAMES = ("metadata.jsonl", "metadata.csv", "metadata.parquet")
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


class _Named(Protocol):
    id: str


Kind = TypeVar("Kind", bound=_Named)


class CorpusError(ValueError):
    """The corpus folder as a whole cannot be read."""


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


def corpus_folder(root: str | Path) -> Path:
    """``root`` as a path. Raises CorpusError where there is no such folder, or none was named."""
    if not str(root or "").strip():  # an empty path would be the working directory, with all that lies in it
        raise CorpusError(f"no corpus folder was named (data.root={root}); give the folder that holds the audio files")
    if not Path(root).is_dir():
        raise CorpusError(
            f"corpus folder {root} does not exist; give the folder that holds metadata.jsonl or audio files"
        )
    return Path(root)


def read_corpus(root: str | Path) -> tuple[list[Clip], list[Reject]]:
    """The clips of the corpus folder `root` in the order of its metadata, and what was rejected.

    A metadata file in `root` wins; else those in sub-folders are read (one per split, as AudioFolder allows);
    a folder without any is read as plain audio files. Audio is not opened here: `read_audio` does that.
    Raises CorpusError when the folder is missing or empty, or a metadata file cannot be parsed at all.
    """
    root = corpus_folder(root)
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


def read_usable_corpus(root: str | Path) -> tuple[list[Clip], list[Reject]]:
    """As `read_corpus`; raises CorpusError also where nothing but rejects is left."""
    clips, rejects = read_corpus(root)
    if not clips:
        raise CorpusError(f"no clip of {root} can be used, the first because: {rejects[0].reason}")
    return clips, rejects


def holds_audio(root: str | Path) -> bool:
    """Whether the folder has metadata or an audio file, in itself or further down; reads neither.

    Raises:
        CorpusError: there is no such folder.
    """
    root = corpus_folder(root)
    return bool(_metadata_files(root)) or next(_plain_files(root), None) is not None


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


def spread(clips: Sequence[Kind], limit: int, group: Callable[[Kind], object] = attrgetter("speaker")) -> list[Kind]:
    """``limit`` of the clips (0: all), in their order, chosen by a hash of their ids; equally many of each ``group`` as
    far as they go. The first clips of a corpus are often one speaker's; and these stay when clips are added.
    """
    if not limit or limit >= len(clips):
        return list(clips)
    turns: Counter[object] = Counter()
    order: list[tuple[int, int, str]] = []
    for clip in sorted(clips, key=lambda clip: hashlib.blake2b(clip.id.encode("utf-8", "surrogateescape")).digest()):
        turns[group(clip)] += 1
        order.append((turns[group(clip)], len(order), clip.id))
    chosen = {identity for *_, identity in sorted(order)[:limit]}
    return [clip for clip in clips if clip.id in chosen]
