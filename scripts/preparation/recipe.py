"""What every data set's file gives, and how it becomes a corpus folder (docs/data.md); audio is not copied."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from training.checkpoint import write_file
from training.identity import fault_of_id, is_unicode, printable

AUDIO = (".flac", ".wav", ".ogg", ".opus", ".mp3")


class PreparationError(ValueError):
    """A root that is not the data set, or metadata that cannot be read; one sentence with the cure."""


class ContentError(PreparationError):
    """The data set is the right one, and a row of it cannot be read as it was asked to be."""


@dataclass
class Item:
    """One clip of a data set; ``path`` may not exist, as data sets made from the web lose clips."""

    id: str
    path: Path
    split: str
    text: str | None = None
    captions: list[str] = field(default_factory=list)
    speaker: str | None = None
    domain: str = "speech"
    licence: str | None = None
    subset: str | None = None  # the published name of its part, where that is not the split's
    extra: dict[str, Any] = field(default_factory=dict)


@dataclass
class Missing:
    """A clip of a data set that cannot be used: where it stands, and why not in one sentence."""

    id: str | None
    file: str | None
    reason: str
    subset: str | None = None


@dataclass(frozen=True)
class Recipe:
    """A data set.

    Attributes:
        title: as it is known.
        source: where it is obtained.
        licence: of all clips that do not bring their own.
        read: root → its clips, and what cannot be one; raises `PreparationError` when the layout is not there.
        counts: published number of clips per subset (or per split).
        notes: lines that the report begins with.
    """

    title: str
    source: str
    licence: str
    read: Callable[[Path], Iterable[Item | Missing]]
    counts: dict[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass
class Summary:
    """What was written; ``found`` and ``missing`` count clips per subset."""

    out: Path
    changed: bool
    found: Counter[str]
    missing: Counter[str]
    lines: list[str]


def require(root: Path, *names: str) -> Path:
    """The folder that holds all ``names``: ``root``, or the only folder in it that does.

    Raises:
        PreparationError: naming what is not there.
    """
    if not root.is_dir():
        raise PreparationError(f"{root} is no folder")
    for folder in (root, *sorted(path for path in root.iterdir() if path.is_dir())):
        if all((folder / name).exists() for name in names):
            return folder
    raise PreparationError(f"{root} has no {' and '.join(names)}")


def read_table(path: Path, columns: Iterable[str]) -> Iterator[dict[str, str]]:
    """Rows of a CSV file that must have ``columns``.

    Raises:
        PreparationError: it lacks one of them, or is not UTF-8.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as lines:
            table = csv.DictReader(lines)
            lacking = [name for name in columns if name not in (table.fieldnames or [])]
            if lacking:
                raise PreparationError(f"{path} has no column {', '.join(lacking)}")
            yield from table
    except UnicodeDecodeError as error:
        raise PreparationError(f"{path} is not UTF-8 ({error})") from None


def first_file(candidates: Iterable[Path]) -> Path:
    """The first path that is a file; the first of all when none is, so that it can be named as missing."""
    paths = list(candidates)
    return next((path for path in paths if is_file(path)), paths[0])


def prepare(recipe: Recipe, root: Path, out: Path) -> Summary:
    """Write ``out/metadata.jsonl`` and, when clips are missing, ``out/missing.jsonl``; again gives the same files.

    Raises:
        PreparationError: wrong root, no audio, an id twice, or ``out`` lies where the data set is.
    """
    root, out = Path(root), Path(out).resolve()
    if root.exists():  # an id of the Hub is no path
        root = root.resolve()
    if out == root or root in out.parents:
        raise PreparationError(f"--out {out} lies in the data set itself: choose a folder outside {root}")
    try:
        read = list(recipe.read(root))
    except ContentError:
        raise
    except PreparationError as error:
        raise PreparationError(
            f"{error}: this is not {recipe.title} as it is published; it is obtained from {recipe.source}"
        ) from None
    items = sorted((item for item in read if isinstance(item, Item)), key=lambda item: item.id)
    found: Counter[str] = Counter()
    missing: Counter[str] = Counter()
    lines: list[str] = []
    lost: list[str] = []

    def lose(clip: Missing) -> None:
        missing[clip.subset or "no split"] += 1
        row = {key: printable(value) for key, value in asdict(clip).items() if value is not None}
        lost.append(json.dumps(row, ensure_ascii=False))

    previous = None
    for item in items:
        if item.id == previous:
            raise PreparationError(f"{recipe.title}: the id {item.id} is there twice in {root}")
        previous = item.id
        part = item.subset or item.split
        problem = fault_of_id(item.id)
        if problem or not is_file(item.path):
            reason = f"its id cannot be used: {problem}" if is_file(item.path) else "there is no such file"
            lose(Missing(item.id, str(item.path), reason, part))
            continue
        found[part] += 1
        # Audio that had to be written moves with the corpus.
        place = item.path.relative_to(out).as_posix() if out in item.path.parents else str(item.path)
        row = {
            "file_name": place, "id": item.id, "text": item.text, "caption": item.captions,
            "speaker": item.speaker, "domain": item.domain, "split": item.split,
            "licence": item.licence or recipe.licence, "source": recipe.source, "subset": item.subset, **item.extra,
        }  # fmt: skip
        lines.append(json.dumps({k: v for k, v in row.items() if v not in (None, [], "")}, ensure_ascii=False))
    for clip in read:
        if isinstance(clip, Missing):
            lose(clip)
    if not lines:
        raise PreparationError(
            f"{root} holds none of the {len(read)} audio files of {recipe.title}; they are obtained from "
            f"{recipe.source}"
        )
    out.mkdir(parents=True, exist_ok=True)
    changed = _write(out / "metadata.jsonl", lines)
    if lost:
        changed |= _write(out / "missing.jsonl", lost)
    else:
        (out / "missing.jsonl").unlink(missing_ok=True)
    return Summary(out, changed, found, missing, _report(recipe, found, missing, out))


def is_file(path: Path) -> bool:
    """Whether there is such a file, of a name that metadata can hold; none is too long to ask."""
    try:
        return path.is_file() and is_unicode(str(path))
    except OSError:
        return False


def _report(recipe: Recipe, found: Counter[str], missing: Counter[str], out: Path) -> list[str]:
    """One line per subset: clips, and how they compare with the published number."""
    report = list(recipe.notes)
    for part in sorted({*found, *missing}):
        line = f"{part}: {found[part]:,} clips"
        published = recipe.counts.get(part)
        if published is not None:
            same = found[part] == published
            line += f", as published ({published:,})" if same else f" of {published:,} published"
        report.append(line)
    absent = [part for part in recipe.counts if part not in found and part not in missing]
    if absent:
        report.append(f"not there: {', '.join(absent)}; obtained from {recipe.source}")
    if missing:
        report.append(
            f"{missing.total():,} clips have no audio or cannot be used, and are left out: {out / 'missing.jsonl'}"
        )
    return report


def _write(path: Path, lines: list[str]) -> bool:
    """Write ``lines`` by renaming a finished file; False when they are there already."""
    content = ("\n".join(lines) + "\n").encode("utf-8")
    if path.is_file() and path.read_bytes() == content:
        return False
    write_file(path, content)
    return True
