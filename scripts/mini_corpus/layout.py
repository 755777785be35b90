"""The folder that every corpus build writes: audio files, ``metadata.jsonl`` and a build stamp.

The convention is Hugging Face's AudioFolder: ``metadata.jsonl`` beside the audio, one JSON object per clip,
its ``file_name`` relative to the folder. Everything is written to a temporary name and renamed, so that a file
that exists is finished.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

METADATA = "metadata.jsonl"
STAMP = ".build.json"
FOLDERS = {"speech": "speech", "sound": "sounds", "music": "music", "notes": "notes"}  # part -> where its audio lies
PARTS = tuple(FOLDERS)
SPLITS = ("train", "valid", "test")
LATER = {"times": 1, "words": None}  # settings that older stamps lack

Row = dict[str, Any]


class CorpusError(RuntimeError):
    """A corpus cannot be built; the message is one sentence that says what to do."""


def seed_of(*parts: object) -> int:
    """A 64-bit seed that depends on its arguments only (not on the platform, not on PYTHONHASHSEED)."""
    return int.from_bytes(hashlib.sha256("/".join(map(str, parts)).encode()).digest()[:8], "big")


def write_atomically(path: Path, content: bytes) -> None:
    """Write under a temporary name, then rename: nobody ever sees half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_bytes(content)
    os.replace(temporary, path)


def write_flac(path: Path, samples: np.ndarray, sample_rate: int) -> None:
    """Write mono 16-bit FLAC. ``samples``: [samples] float in -1..1, or int16."""
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, sample_rate, format="FLAC", subtype="PCM_16", compression_level=1.0)
    write_atomically(path, buffer.getvalue())


def read_metadata(folder: Path) -> list[Row]:
    """Rows of a folder's metadata.jsonl; none if there is no such file yet."""
    path = folder / METADATA
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def part_of(row: Row) -> str:
    """The part of the corpus that a row belongs to, by the folder of its audio."""
    folder = row["file_name"].split("/")[0]
    return next(part for part, place in FOLDERS.items() if place == folder)


def replace_rows(folder: Path, part: str, rows: Iterable[Row]) -> None:
    """Put ``rows`` in the place of all rows of a part; those of the other parts stay."""
    kept = [row for row in read_metadata(folder) if part_of(row) != part] + list(rows)
    kept.sort(key=lambda row: PARTS.index(part_of(row)))  # stable: the order within a part is the builder's
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in kept)
    write_atomically(folder / METADATA, text.encode())


def read_stamp(folder: Path, domain: str) -> dict[str, Any]:
    """What a domain's audio was built from: {setting: value}; empty if nothing was built yet."""
    path = folder / FOLDERS[domain] / STAMP
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def check_stamp(folder: Path, domain: str, settings: dict[str, Any]) -> None:
    """Refuse to mix two builds in one folder.

    Ids do not tell which voice or seed made a clip, so a file that exists could be of another build.
    """
    stamp = read_stamp(folder, domain)
    built = {**LATER, **stamp}
    different = [key for key in settings if stamp and built.get(key) != settings[key]]
    if different:
        wanted = ", ".join(f"{key}={settings[key]!r} (the folder has {built.get(key)!r})" for key in different)
        raise CorpusError(f"{folder} holds another {domain} build: {wanted}; choose another --out or delete it.")


def write_stamp(folder: Path, domain: str, settings: dict[str, Any]) -> None:
    """Record what a domain of the folder is built from."""
    write_atomically(folder / FOLDERS[domain] / STAMP, (json.dumps(settings, indent=2) + "\n").encode())


def remove_leftovers(folder: Path, domain: str) -> None:
    """Delete temporary files of a build that was killed (any that is older than a minute)."""
    for path in (folder / FOLDERS[domain]).glob(".*.tmp"):
        if time.time() - path.stat().st_mtime > 60:
            path.unlink(missing_ok=True)
