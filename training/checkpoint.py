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


def restore_folder(path: Path) -> None:
    """Bring back the folder that `save_folder` was about to replace when its process was killed."""
    old = path.with_name(f".{path.name}.old")
    if old.is_dir() and not path.exists():
        old.rename(path)


def _why(error: Exception) -> str | None:
    """The system's reason behind an error of writing; None where the error is another."""
    if isinstance(error, OSError):
        return error.strerror or str(error)
    said = str(error)  # safetensors and torch wrap the system's errors in their own
    return said.splitlines()[0] if re.search(r"I/O error|No space left|failed writing|os error", said) else None


def save_folder(path: Path, write: Callable[[Path], None]) -> Path:
    """Create folder ``path`` by calling ``write(temporary folder)``; it appears complete or not at all.

    Raises:
        CheckpointError: the disk is full or refuses; what was there before is left as it was.
    """
    path = Path(path)
    temporary, old = path.with_name(f".{path.name}.tmp"), path.with_name(f".{path.name}.old")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        restore_folder(path)
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        write(temporary)
        for file in sorted(temporary.rglob("*")):
            if file.is_file():
                _flush(file)
        _flush(temporary)
        if path.exists():  # a folder cannot be replaced by rename: move the old one aside first
            shutil.rmtree(old, ignore_errors=True)
            path.rename(old)
        temporary.rename(path)
        shutil.rmtree(old, ignore_errors=True)
        _flush(path.parent)
    except Exception as error:
        shutil.rmtree(temporary, ignore_errors=True)
        if (reason := _why(error)) is None:
            raise
        raise CheckpointError(
            f"{path} cannot be written ({reason}): make room there; what was saved before is whole, and the same "
            "command goes on from it."
        ) from error
    return path


def write_file(path: Path, data: str | bytes) -> None:
    """Write one file atomically (temporary name, fsync, rename); nothing is left behind where that fails."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with open(temporary, "wb") as stream:
            stream.write(data.encode("utf-8") if isinstance(data, str) else data)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def step_folder(run_dir: Path, step: int) -> Path:
    """``run_dir/checkpoints/step_0000123``."""
    return Path(run_dir) / "checkpoints" / f"step_{step:07d}"


def step_of(path: Path) -> int | None:
    """The step that a checkpoint's name tells; None for another name."""
    match = _STEP.match(path.name)
    return int(match.group(1)) if match else None


def list_checkpoints(run_dir: Path) -> list[Path]:
    """The complete checkpoints of a run, oldest first."""
    folder = Path(run_dir) / "checkpoints"
    found = [(step, path) for path in folder.glob("step_*") if (step := step_of(path)) is not None]
    return [path for _, path in sorted(found)]


def latest_checkpoint(run_dir: Path) -> Path | None:
    """The checkpoint with the highest step number, or None."""
    found = list_checkpoints(run_dir)
    return found[-1] if found else None


def rotate(run_dir: Path, keep: int) -> None:
    """Delete all but the newest ``keep`` checkpoints (``keep=0`` keeps all)."""
    if keep > 0:
        for path in list_checkpoints(run_dir)[:-keep]:
            shutil.rmtree(path)
