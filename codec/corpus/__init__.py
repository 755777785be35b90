"""Reads a corpus of audio: a folder in the Hugging Face AudioFolder convention, and the audio files in it.

    clips, rejects = read_corpus("data/mini")
    wav = read_audio(clips[0].path, sample_rate=24_000)     # float32 [samples], mono

`metadata.jsonl`, `metadata.csv` or `metadata.parquet` names the files; see docs/data.md for the columns. Every audio
file of the folder and every line of its metadata is a clip, or comes back as a `Reject` with its reason.
"""

import hashlib
import os
import posixpath
import stat
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path
from typing import Any, Protocol, TypeVar

from codec.audio.files import (
    AUDIO_SUFFIXES,
    OTHER_AUDIO_SUFFIXES,
    AudioError,
    AudioInfo,
    audio_info,
    read_audio,
    read_audio_and_hash,
    read_pieces,
)
from codec.audio.folder import AudioTree, walk
from codec.corpus.metadata import METADATA_NAMES, CorpusError, Line, read_metadata
from codec.corpus.splits import own_name, split_of
from training.identity import fault_of_id, fault_of_name, is_unicode, printable
from training.places import beside_code

__all__ = [
    "AUDIO_SUFFIXES",
    "AudioError",
    "AudioInfo",
    "Clip",
    "CorpusError",
    "Reject",
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

KNOWN_COLUMNS = frozenset(
    {"file_name", "id", "text", "caption", "captions", "speaker", "domain", "split", "licence", "license"}
)
NAME_COLUMNS = ("id", "speaker", "domain", "split", "licence", "license")  # texts on one line, or numbers


class _Named(Protocol):
    id: str


Kind = TypeVar("Kind", bound=_Named)


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

    def __post_init__(self) -> None:
        """What a name holds that is no text must not stop whoever writes or prints this."""
        self.id, self.file = (text and text.encode(errors="backslashreplace").decode() for text in (self.id, self.file))
        self.reason = printable(self.reason)


def corpus_folder(root: str | Path) -> Path:
    """``root`` as a path. Raises CorpusError where there is no such folder, or none was named."""
    if not str(root or "").strip():  # an empty path would be the working directory, with all that lies in it
        raise CorpusError(f"no corpus folder was named (data.root={root}); give the folder that holds the audio files")
    if not is_unicode(str(root)):
        raise CorpusError(f"corpus folder {printable(str(root))}: its path is not UTF-8; rename it")
    if not (folder := beside_code(root)).is_dir():
        raise CorpusError(
            f"corpus folder {root} does not exist; give the folder that holds metadata.jsonl or audio files"
        )
    return folder


def read_corpus(root: str | Path) -> tuple[list[Clip], list[Reject]]:
    """The clips of the corpus folder `root` in the order of its metadata, and what was rejected.

    A metadata file in `root` wins; else those in sub-folders are read (one per split, as AudioFolder allows). Audio
    files in folders that no metadata describes are clips too. Audio is not opened here: `read_audio` does that.
    Raises CorpusError when the folder is missing or empty, or a metadata file cannot be read at all.
    """
    root = corpus_folder(root)
    tree = walk(root)
    sources = _metadata_files(tree)
    clips: list[Clip] = []
    rejects: list[Reject] = []
    seen: dict[str, str] = {}  # id -> where it was met first
    listed: set[object] = set()  # what metadata names: the files by device and number, the others by path
    for folder, line in _lines(root, tree, sources, listed):
        clip = _clip(root, folder, line, listed)
        if isinstance(clip, Reject):
            rejects.append(clip)
        elif clip.id in seen:
            reason = f"{line.place}: the id {clip.id!r} is already taken by {seen[clip.id]}"
            rejects.append(Reject(clip.id, str(line.columns["file_name"]), reason))
        else:
            seen[clip.id] = line.place
            clips.append(clip)
    if not clips and not rejects:
        raise CorpusError(
            f"corpus folder {root} has neither metadata.jsonl|csv|parquet nor audio files, or they are empty"
        )
    _split_by_file_name(clips)
    return clips, rejects


def read_usable_corpus(root: str | Path) -> tuple[list[Clip], list[Reject]]:
    """As `read_corpus`; raises CorpusError also where nothing but rejects is left."""
    clips, rejects = read_corpus(root)
    if not clips:
        raise CorpusError(f"no clip of {root} can be used, the first because: {rejects[0].reason}")
    return clips, rejects


def left_out(root: str | Path, rejects: Sequence[Reject]) -> str:
    """What a program prints of the rejects of ``root``: how many, the first, and how to see all."""
    return (
        f"{len(rejects)} clips of {root} are left out, the first because: {rejects[0].reason} "
        f"(python codec/encode.py data.root=FOLDER writes all of a folder into rejected.jsonl)"
    )


def holds_audio(root: str | Path) -> bool:
    """Whether the folder has metadata or an audio file, in itself or further down; reads neither.

    Raises:
        CorpusError: there is no such folder.
    """
    tree = walk(corpus_folder(root))
    return bool(_metadata_files(tree) or tree.files or tree.problems)


def _metadata_files(tree: AudioTree) -> list[Path]:
    """The metadata files that describe a folder: its own, or else one per sub-folder."""
    for folders in (tree.folders[:1], tree.folders[1:]):
        found = []
        for folder in folders:
            names = [folder / name for name in METADATA_NAMES if os.path.lexists(folder / name)]
            if len(names) > 1:
                listed = " and ".join(path.name for path in names)
                raise CorpusError(f"{folder} has {listed}; keep one of them, which one counts cannot be guessed")
            if names and not names[0].is_file():
                raise CorpusError(f"{names[0]} is no file, or a link that leads nowhere")
            found += names
        if found:
            return found
    return []


def _lines(root: Path, tree: AudioTree, sources: list[Path], listed: set[object]) -> Iterator[tuple[Path, Line]]:
    """The lines of all metadata, with the folder that they speak of; then one for each file that they do not name."""
    described: dict[Path, Path] = {}  # folder -> metadata file
    for source in sources:
        described[source.parent] = source
        for line in read_metadata(source):
            yield source.parent, line
    for path in tree.files:
        name = path.relative_to(root).as_posix()
        describing = next((described[folder] for folder in path.parents if folder in described), None)
        problem = None
        if describing is not None:
            if _number(path) in listed:
                continue
            problem = f"{name} is not named in {describing.relative_to(root)}"
        elif path.suffix.lower() in OTHER_AUDIO_SUFFIXES:
            problem = f"{name}: {path.suffix} is audio that soundfile does not read: convert it to FLAC or WAV"
        yield root, Line(name, {"file_name": name}, problem)
    for path, problem in tree.problems:
        name = os.path.relpath(path, root)
        if path not in listed:
            yield root, Line(name, {"file_name": name}, f"{name}: {problem}")


def _clip(root: Path, folder: Path, line: Line, listed: set[object]) -> Clip | Reject:
    """The clip that one metadata row describes, or why it is none; what it names becomes `listed`."""
    columns, place = line.columns, line.place
    name, identity = columns.get("file_name"), _name(columns.get("id"))
    if not isinstance(name, str) or not name.strip():
        return Reject(identity, None, line.problem or f"{place} has no file_name")
    path, file_problem = _find(folder, name)
    listed.add(_number(path) if file_problem is None else path)
    if line.problem:
        return Reject(identity, name, line.problem)
    # Id and split follow from the place below the corpus root, also where the metadata lies in train/.
    inside = Path(os.path.relpath(folder / name, root))
    if identity is None:
        below = inside if ".." not in inside.parts else Path(posixpath.normpath(folder.relative_to(root) / name))
        identity = below.with_suffix("").as_posix().lstrip("/") if below.name else name

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
    for key in NAME_COLUMNS:
        if not isinstance(columns.get(key), str | int | float | None):
            return reject(f"{key} must be a string or a number, not {type(columns[key]).__name__}")
        value = _name(columns.get(key))
        if key != "id" and value and (fault := fault_of_name(value)):
            return reject(f"the {key} {value[:80]!r} cannot be used: {fault}; give another")
    if file_problem:
        return reject(file_problem)
    if fault := fault_of_id(identity):
        return reject(f"the id {identity[:80]!r} cannot be used: {fault}; give the clip another")
    text = text.strip() if text and text.strip() else None
    split = _name(columns.get("split"))
    folders = [*folder.relative_to(root).parts, *inside.parts[:-1]]
    return Clip(
        id=identity,
        path=path,
        text=text,
        captions=[caption.strip() for caption in captions if caption.strip()],
        speaker=_name(columns.get("speaker")),
        domain=_name(columns.get("domain")) or ("speech" if text else "sound"),
        split=own_name(split) if split else split_of(folders) or "",
        licence=_name(columns.get("licence")) or _name(columns.get("license")),
        extra={key: value for key, value in columns.items() if key not in KNOWN_COLUMNS},
    )


def _find(folder: Path, name: str) -> tuple[Path, str | None]:
    """The file `name`, and what is wrong with it. Accents may be composed there and not here, or the reverse."""
    problem = "the file does not exist"
    for form in (name, unicodedata.normalize("NFC", name), unicodedata.normalize("NFD", name)):
        try:
            mode = os.stat(folder / form).st_mode
        except (OSError, ValueError) as error:
            if not isinstance(error, FileNotFoundError | NotADirectoryError):
                problem = f"the file cannot be opened ({getattr(error, 'strerror', error)})"
            continue
        if stat.S_ISREG(mode):
            return folder / form, None
        problem = "the file is a folder" if stat.S_ISDIR(mode) else "it is no file of audio"
    return folder / name, problem


def _number(path: Path) -> object:
    """The same for every path, by links or otherwise, of one file."""
    status = os.stat(path)
    return status.st_dev, status.st_ino


def _split_by_file_name(clips: list[Clip]) -> None:
    """Give the clips that no column and no folder puts into a split theirs, in place.

    Where none of the corpus is in one, file names say it, if all of them do and name several: a single ``test.wav`` may
    be called so by chance. Otherwise such clips are for training.
    """
    named = [split_of([clip.path.name]) for clip in clips]
    by_name = not any(clip.split for clip in clips) and None not in named and len(set(named)) > 1
    for clip, name in zip(clips, named, strict=True):
        clip.split = clip.split or (name if by_name and name else "train")


def _name(value: Any) -> str | None:
    """A name from a metadata cell: numbers become strings, empty cells None."""
    return None if value is None or str(value).strip() == "" else str(value).strip()


def spread(
    clips: Sequence[Kind], limit: int, group: Callable[[Kind], object] = attrgetter("speaker"), seed: int | None = None
) -> list[Kind]:
    """``limit`` of the clips (0: all), in their order, chosen by a hash of their ids; equally many of each ``group`` as
    far as they go. The first clips of a corpus are often one speaker's; and these stay when clips are added. Each
    ``seed`` chooses others.
    """
    if not limit or limit >= len(clips):
        return list(clips)
    turns: Counter[object] = Counter()
    order: list[tuple[int, int, str]] = []
    salt = b"" if seed is None else str(seed).encode()

    def drawn(clip: Kind) -> bytes:
        return hashlib.blake2b(clip.id.encode("utf-8", "surrogateescape"), salt=salt).digest()

    for clip in sorted(clips, key=drawn):
        turns[group(clip)] += 1
        order.append((turns[group(clip)], len(order), clip.id))
    chosen = {identity for *_, identity in sorted(order)[:limit]}
    return [clip for clip in clips if clip.id in chosen]
