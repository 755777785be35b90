"""Any data set that Hugging Face `datasets` loads: an id of the Hub, or a folder of parquet, arrow, AudioFolder ….

    python scripts/prepare.py huggingface --root OWNER/NAME --out corpora/name config=en text=sentence split.dev=valid

Which columns are read is said by keys (`KEYS`); without, they are those of our own names. Audio that is a file on this
machine is referenced. Audio inside parquet or arrow, or on the Hub, is written to out/audio/SPLIT as the bytes it is
stored as: nothing is decoded, so torchcodec is not needed.
"""

from __future__ import annotations

import difflib
import io
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import fsspec
import soundfile
from datasets import Audio, ClassLabel, Value, load_dataset_builder, load_from_disk
from datasets.exceptions import DatasetsError

from codec.audio.files import AUDIO_SUFFIXES, OTHER_AUDIO_SUFFIXES
from codec.corpus import CorpusError, read_corpus
from codec.corpus.splits import own_name
from preparation.recipe import ContentError, Item, Missing, PreparationError, Recipe
from training.checkpoint import write_file
from training.identity import fault_of_id, first_line, path_inside, printable

KEYS = {
    "audio": "column of the audio; default: the one that is declared as audio",
    "text": "column of the transcript",
    "caption": "column(s) of the descriptions, separated by commas; each a text or a list of texts",
    "speaker": "column of the speaker",
    "id": "column of a unique name; default: split and file name",
    "domain": "speech, sound or music, or a column that says so; default: speech where there is a text, else sound",
    "licence": "licence, or its column; default: what the data set declares",
    "source": "address of the data set; default: its page on the Hub",
    "config": "configuration (subset, language) of the data set",
    "revision": "branch, tag or commit on the Hub",
    "splits": "splits to read, separated by commas; default: all",
    "split.NAME": "our name of the data set's split NAME; default: validation, val and dev are valid, eval is test",
}
COLUMN_KEYS = ("audio", "text", "caption", "speaker", "id")
OWN_NAMES = {"caption": ("caption", "captions"), "licence": ("licence", "license")}
HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
HUB = "https://huggingface.co/datasets"
HUB_FILES = "hf://datasets/"
ARCHIVES = ("zip", "tar", "gzip", "bz2", "xz", "lz4", "zstd")  # through which a stream may reach into a file
STORED = {"bytes": Value("binary"), "path": Value("string")}
Row = dict[str, Any]


@dataclass
class Loaded:
    """A data set that has been opened: published split → its rows, and what it declares about itself."""

    splits: Mapping[str, Iterable[Row]]
    columns: list[str]
    audio_columns: list[str]
    labels: dict[str, ClassLabel] = field(default_factory=dict)  # columns of numbers that stand for names
    counts: dict[str, int] = field(default_factory=dict)
    licence: str | None = None
    missing: list[Missing] = field(default_factory=list)  # what cannot be a row
    origin: str | None = None  # address of a data set of the Hub; None for a folder


def recipe(root: Path, out: Path, keys: Sequence[str]) -> Recipe:
    """The recipe of one data set; ``keys`` are KEY=VALUE.

    Raises:
        PreparationError: an unknown key, no such data set, or no such column.
    """
    options = parse(keys)
    is_local = root.is_dir()
    source = options.get("source") or (HUB if is_local else f"{HUB}/{root}")
    try:
        loaded = open_folder(root) if is_local else None
        loaded = loaded or open_streams(root, options)
    except PreparationError as error:
        raise PreparationError(f"{error}; data sets are obtained from {HUB}") from None
    columns = chosen_columns(loaded, options, root)
    wanted = options["splits"].split(",") if "splits" in options else list(loaded.splits)
    renamed = [name.removeprefix("split.") for name in options if name.startswith("split.")]
    for name in [*wanted, *renamed]:
        if name not in loaded.splits:
            raise PreparationError(f"{root} has no split '{name}'; it has {', '.join(loaded.splits)}")

    def read(_: Path) -> Iterator[Item | Missing]:
        yield from loaded.missing
        for split in wanted:
            name = options.get(f"split.{split}") or own_name(split)
            yield from items(loaded, split, name, columns, options, root, Path(out).resolve())

    used = {column for names in columns.values() for column in names}
    others = [name for name in loaded.columns if name not in used]
    notes = "columns: " + ", ".join(f"{key}={','.join(names)}" for key, names in columns.items())
    notes += f"; kept as they are: {', '.join(others)}" if others else ""
    licence = options.get("licence") if "licence" not in columns else None
    counts = {name: count for name, count in loaded.counts.items() if name in wanted}
    return Recipe(f"the data set {root}", source, licence or loaded.licence or "unknown", read, counts, (notes,))


def parse(keys: Sequence[str]) -> dict[str, str]:
    """KEY=VALUE → value by key."""
    options = {}
    for entry in keys:
        key, equals, value = entry.partition("=")
        if not equals or not value or (key not in KEYS and not re.fullmatch(r"split\.[\w.-]+", key)):
            near = difflib.get_close_matches(key, KEYS, 1)
            hint = f"did you mean {near[0]}?" if near and near[0] != key else f"keys are {', '.join(KEYS)}"
            raise PreparationError(f"'{entry}' is no KEY=VALUE that huggingface knows: {hint}")
        options[key] = value
    return options


def open_folder(root: Path) -> Loaded | None:
    """A folder that `Dataset.save_to_disk` wrote; None for every other folder."""
    if not (root / "dataset_dict.json").is_file() and not (root / "state.json").is_file():
        return None
    try:
        for name in saved_names(root):
            if own_address(name, root, None) is None:
                raise ValueError(f"it reads {printable(name[:200])}, which is no part of it")
        saved = load_from_disk(str(root))
    except (DatasetsError, OSError, ValueError, TypeError, LookupError, AttributeError) as error:
        raise PreparationError(f"{root} cannot be loaded ({first_line(error)})") from None
    splits = saved if isinstance(saved, dict) else {str(saved.split or "train"): saved}
    counts = {name: len(rows) for name, rows in splits.items()}
    return opened(splits, counts)


def saved_names(root: Path) -> Iterator[str]:
    """The folders and files, relative to ``root``, of what `Dataset.save_to_disk` wrote there."""

    def said(file: str) -> Any:
        path = root / file
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}

    splits = [str(name) for name in said("dataset_dict.json").get("splits", [])]
    yield from splits
    for folder in splits or ["."]:
        files = said(f"{folder}/state.json").get("_data_files", [])
        yield from (os.path.join(folder, str(file["filename"])) for file in files)


def open_streams(root: Path, options: dict[str, str]) -> Loaded:
    """What `load_dataset` finds at the folder or under the id ``root``, as streams: nothing is cached twice."""
    if not root.is_dir() and not HUB_ID.fullmatch(str(root)):
        raise PreparationError(f"{root} is neither a folder nor an id of the Hub (OWNER/NAME)")
    try:
        builder = load_dataset_builder(str(root), options.get("config"), revision=options.get("revision"))
        if builder.name == "audiofolder" and root.is_dir() and not archives(root):
            return open_audiofolder(root)
        streams = builder.as_streaming_dataset()
    except (DatasetsError, OSError, ValueError, RuntimeError) as error:
        raise PreparationError(f"{root} cannot be loaded ({first_line(error)})") from None
    origin = None if root.is_dir() else str(builder.base_path or f"{HUB_FILES}{root}")
    named = [str(file) for files in (builder.config.data_files or {}).values() for file in files]
    elsewhere = next((file for file in named if own_address(file, root, origin) is None), None)
    if elsewhere:
        raise PreparationError(f"{root} reads {printable(elsewhere[:200])}, which is no part of it")
    # Folders give the path as text, everything else gives bytes and path.
    stored = Value("string") if builder.name == "audiofolder" else STORED
    declared = builder.info.splits or {}
    counts = {name: split.num_examples for name, split in declared.items() if split.num_examples}
    return replace(opened(streams, counts, stored, builder.info.license), origin=origin)


def opened(splits: Any, counts: dict[str, int], stored: Any = STORED, licence: str | None = None) -> Loaded:
    """``splits``: name → Dataset or IterableDataset; their audio is read as it is stored, without a decoder."""
    plain: dict[str, Any] = {}
    features: dict[str, Any] = {}
    for name, rows in splits.items():
        found = rows.features or {}
        features.update(found)
        for column, feature in found.items():
            if isinstance(feature, Audio):
                rows = rows.cast_column(column, stored)
        plain[name] = rows
    audio = [column for column, feature in features.items() if is_audio(feature)]
    labels = {column: feature for column, feature in features.items() if isinstance(feature, ClassLabel)}
    columns = list(features)
    if not columns:  # JSON and CSV do not declare theirs
        columns = list(next((row for rows in plain.values() for row in rows), {}))
    return Loaded(plain, columns, audio, labels, counts, licence)


def is_audio(feature: Any) -> bool:
    """Declared as audio, or stored as audio is: a struct of bytes and path."""
    return isinstance(feature, Audio) or (isinstance(feature, dict) and set(feature) == set(STORED))


def open_audiofolder(root: Path) -> Loaded:
    """A local AudioFolder, by our own reader: it finds metadata above the folders of the splits too."""
    try:
        clips, rejects = read_corpus(root)
    except CorpusError as error:
        raise PreparationError(str(error)) from None
    splits: dict[str, list[Row]] = {}
    for clip in clips:
        # A domain that only follows from there being a text is decided again: text= may name another column.
        domain = None if clip.domain == ("speech" if clip.text else "sound") else clip.domain
        own = {"text": clip.text, "caption": clip.captions, "speaker": clip.speaker, "domain": domain}
        row = {"audio": str(clip.path), "id": clip.id, **own, "licence": clip.licence, **clip.extra}
        splits.setdefault(clip.split, []).append(row)
    columns = list(dict.fromkeys(name for clip in clips for name in clip.extra))
    own_columns = ["audio", "id", "text", "caption", "speaker", "domain", "licence"]
    missing = [Missing(reject.id, reject.file, reject.reason) for reject in rejects]
    return Loaded(splits, [*own_columns, *columns], ["audio"], missing=missing)


def archives(root: Path) -> bool:
    return any(path.suffix in {".zip", ".tar", ".gz"} for path in root.rglob("*"))


def chosen_columns(loaded: Loaded, options: dict[str, str], root: Path) -> dict[str, list[str]]:
    """Our name → columns of the data set."""
    columns: dict[str, list[str]] = {}
    for key in (*COLUMN_KEYS, "domain", "licence"):
        own = [name for name in OWN_NAMES.get(key, (key,)) if name in loaded.columns]
        named = options[key].split(",") if key in options else loaded.audio_columns if key == "audio" else own[:1]
        lacking = [name for name in named if name not in loaded.columns]
        if lacking and key in COLUMN_KEYS:
            raise PreparationError(
                f"{root} has no column '{lacking[0]}' for {key}=; its columns are {', '.join(loaded.columns)}"
            )
        if named and not lacking:
            columns[key] = named
    if len(columns.get("audio", [])) != 1:
        raise PreparationError(
            f"{root} has {len(columns.get('audio', []))} columns of audio: say audio=COLUMN, one of "
            f"{', '.join(loaded.columns) or 'none'}; other data sets are obtained from {HUB}"
        )
    return columns


def items(
    loaded: Loaded, split: str, name: str, columns: dict[str, list[str]], options: dict[str, str], root: Path, out: Path
) -> Iterator[Item | Missing]:
    """The clips of one split; ``name`` is our name of it. Audio that is no file of this machine is written."""
    taken: set[str] = set()
    used = {column for key in columns for column in columns[key]}

    def cell(row: Row, key: str) -> Any:
        return row.get(columns[key][0]) if key in columns else None

    for number, row in enumerate(rows_of(loaded.splits[split], f"{root}, {split}")):
        row = {column: named(value, loaded.labels.get(column)) for column, value in row.items()}
        place = f"{root}, {split} row {number}"
        folder = path_inside(out, f"audio/{split}/{number // 1000:04d}")
        given = cell(row, "id")
        try:
            path, stem = placed(cell(row, "audio"), folder, number, root, loaded.origin, place)
        except NoAudio as error:
            yield Missing(None if given is None else str(given), f"{place} {error}", f"{place} {error}", split)
            continue
        identity = str(given or f"{split}/{stem}")
        if (identity in taken or fault_of_id(identity)) and "id" not in columns:
            identity = identity if fault_of_id(identity) is None else split
            identity += f"-{number}"
        taken.add(identity)
        text = cell(row, "text")
        if text is not None and not isinstance(text, str):
            raise ContentError(f"{place}: {columns['text'][0]} is {type(text).__name__}, not a text")
        speaker, licence = cell(row, "speaker"), cell(row, "licence")
        yield Item(
            identity, path, name, text=text, captions=captions(row, columns.get("caption", []), place),
            speaker=None if speaker is None else str(speaker), licence=None if licence is None else str(licence),
            domain=cell(row, "domain") or options.get("domain") or ("speech" if text else "sound"), subset=split,
            extra={column: value for column, value in row.items() if column not in used and plain(value)},
        )  # fmt: skip


def rows_of(rows: Iterable[Row], place: str) -> Iterator[Row]:
    """The rows; what stops the reading half-way, a damaged file or the network, is one sentence."""
    count = 0
    try:
        for row in rows:
            count += 1
            yield row
    except (DatasetsError, OSError, ValueError, RuntimeError) as error:
        raise ContentError(f"{place} ends after {count} rows ({first_line(error)}): run again to go on") from None


def named(value: Any, labels: ClassLabel | None) -> Any:
    """The name that a number of a ClassLabel stands for; −1 stands for none."""
    if labels is None or not isinstance(value, int):
        return value
    return labels.int2str(value) if value >= 0 else None


def captions(row: Row, columns: list[str], place: str) -> list[str]:
    """All descriptions of a row."""
    found: list[str] = []
    for column in columns:
        value = row.get(column)
        texts = [] if value is None else [value] if isinstance(value, str) else value
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            raise ContentError(f"{place}: {column} is {type(value).__name__}, not a text or a list of texts")
        found += [text.strip() for text in texts if text.strip()]
    return found


def plain(value: Any) -> bool:
    """Whether a value can stand in metadata.jsonl as it is."""
    return isinstance(value, str | int | float) or (isinstance(value, list) and all(isinstance(v, str) for v in value))


class NoAudio(Exception):
    """Why a row has no audio, as the end of a sentence."""


def placed(audio: Any, folder: Path, number: int, root: Path, origin: str | None, place: str) -> tuple[Path, str]:
    """The file of a row's audio, and what its name begins with.

    Raises:
        NoAudio: there is none, or none that may be read.
        ContentError: the column is none of audio.
    """
    if isinstance(audio, str):
        audio = {"bytes": None, "path": audio}
    if audio is None or (isinstance(audio, dict) and not audio.get("bytes") and not audio.get("path")):
        raise NoAudio("has no audio")
    if not isinstance(audio, dict) or not {"bytes", "path"} <= set(audio):
        raise ContentError(f"{place}: the audio is {type(audio).__name__} and no file: neither bytes nor path")
    given = audio["path"] or ""
    stem = Path(given.split("::")[0]).stem or f"{number:07d}"
    content = audio["bytes"]
    if content is None:
        address = own_address(given, root, origin)
        if address is None:
            raise NoAudio(f"names {printable(given[:200])}, which is no part of the data set: it is not read")
        if "://" not in address:
            return Path(address), stem
        with fsspec.open(address, "rb") as file:
            content = file.read()
    return write_once(folder / f"{number:07d}{suffix(given.split('::')[0], content)}", content), stem


def own_address(given: str, root: Path, origin: str | None) -> str | None:
    """Where a file lies that a row names: a path below the folder ``root``, or an address below that of the data set of
    the Hub, ``origin``; or in an archive there. None for what lies elsewhere: a row may name any file of this machine
    and any address, and whoever wrote it need not be trusted.
    """
    *inner, place = given.split("::")
    if any(part.partition("://")[0] not in ARCHIVES for part in inner):
        return None
    if origin is not None:
        repository = origin.split("@")[0].rstrip("/")
        below = place.removeprefix(repository)
        mine = place.startswith(repository) and below[:1] in ("@", "/") and ".." not in below.split("/")
        return given if mine else None
    place = place.removeprefix("file://")
    if "://" in place:
        return None
    for folder in {os.path.abspath(root), os.path.realpath(root)}:
        path = os.path.normpath(os.path.join(folder, place))
        if path.startswith(folder.rstrip("/") + "/"):
            return "::".join([*inner, path])
    return None


def suffix(name: str, content: bytes) -> str:
    """``.flac`` …: that of the name, or else what the bytes are."""
    end = Path(name).suffix.lower()
    if end in AUDIO_SUFFIXES | OTHER_AUDIO_SUFFIXES:
        return end
    try:
        return f".{soundfile.info(io.BytesIO(content)).format.lower()}"
    except soundfile.SoundFileError:
        return ".audio"  # the encoding will list it with the reason


def write_once(path: Path, content: bytes) -> Path:
    """``path`` with ``content``, written by renaming a finished file and only where it is not there yet."""
    if path.is_file() and path.stat().st_size == len(content) and path.read_bytes() == content:
        return path
    write_file(path, content)
    return path
