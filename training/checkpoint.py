"""Checkpoints that are either whole or absent.

A folder is written under a temporary name, flushed to disk, then renamed: a run killed at any moment leaves the
previous checkpoint valid. The newest checkpoint is chosen by its step number, never by file times.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

_STEP = re.compile(r"^step_(\d+)$")


class CheckpointError(RuntimeError):
    """A checkpoint that is missing, incomplete or belongs to another run."""


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def save_folder(path: Path, write: Callable[[Path], None]) -> Path:
    """Create folder ``path`` by calling ``write(temporary folder)``; it appears complete or not at all."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    write(temporary)
    for file in sorted(temporary.rglob("*")):
        if file.is_file():
            _flush(file)
    _flush(temporary)
    if path.exists():  # a folder cannot be replaced by rename: move the old one aside first
        old = path.with_name(f".{path.name}.old")
        shutil.rmtree(old, ignore_errors=True)
        path.rename(old)
        temporary.rename(path)
        shutil.rmtree(old)
    else:
        temporary.rename(path)
    _flush(path.parent)
    return path


def write_file(path: Path, data: str | bytes) -> None:
    """Write one file atomically (temporary name, fsync, rename)."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    with open(temporary, "wb") as stream:
        stream.write(data.encode("utf-8") if isinstance(data, str) else data)
        stream.flush()
        os.fsync(stream.fileno())
    temporary.replace(path)


def step_folder(run_dir: Path, step: int) -> Path:
    """``run_dir/checkpoints/step_0000123``."""
    return Path(run_dir) / "checkpoints" / f"step_{step:07d}"


def list_checkpoints(run_dir: Path) -> list[Path]:
    """The complete checkpoints of a run, oldest first."""
    folder = Path(run_dir) / "checkpoints"
    found = [(int(match.group(1)), path) for path in folder.glob("step_*") if (match := _STEP.match(path.name))]
    return [path for _, path in sorted(found)]


def latest_checkpoint(run_dir: Path) -> Path | None:
    """The checkpoint with the highest step number, or None."""
    found = list_checkpoints(run_dir)
    return found[-1] if found else None


def resolve_resume(run_dir: Path, resume: str) -> Path | None:
    """The checkpoint that ``resume=auto|none|PATH`` names.

    Raises:
        CheckpointError: an explicit path that is not a checkpoint folder; never silently a fresh start.
    """
    if resume == "none":
        return None
    if resume == "auto":
        return latest_checkpoint(run_dir)
    path = Path(resume)
    if not _STEP.match(path.name) or not path.is_dir():
        raise CheckpointError(f"resume={resume} is not a checkpoint folder (…/checkpoints/step_NNNNNNN).")
    return path


def rotate(run_dir: Path, keep: int) -> None:
    """Delete all but the newest ``keep`` checkpoints (``keep=0`` keeps all)."""
    if keep > 0:
        for path in list_checkpoints(run_dir)[:-keep]:
            shutil.rmtree(path)
