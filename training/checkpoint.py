"""Files and folders that are either whole or absent: each is written under a temporary name, flushed, then renamed.

    write_file(path, text)                      # one file
    write_atomically(path, write)               # one file that a library writes
    save_folder(path, write)                    # a folder, in place of the one that was there
    save_checkpoint(run_dir, step, write, keep) # runs/<name>/checkpoints/step_0000123

A process killed at any moment, a full disk and a folder that cannot be written leave what was there before. A
checkpoint lists its files with sizes and checksums, so that a damaged one is told from a whole one. The newest is
chosen by its step number, never by file times.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import shutil
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

FILES = "files.json"  # in a checkpoint: name → [bytes, CRC-32] of each other file
_STEP = re.compile(r"^step_(\d+)$")


class CheckpointError(RuntimeError):
    """A checkpoint that is missing, damaged, cannot be written or belongs to another run."""


@contextmanager
def naming(place: str | Path) -> Iterator[None]:
    """What the system refuses inside the ``with`` block names ``place``: as writing itself names nothing."""
    try:
        yield
    except OSError as error:
        if error.errno and error.filename is None:
            error.filename = str(place)
        raise


def flush(path: Path) -> None:
    """Have the system write a file or a folder to the disk now."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let ``write`` fill a temporary file beside ``path``, then put it there; nothing stays behind where that fails."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        write(temporary)
        flush(temporary)
        temporary.replace(path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno and error.filename in (None, str(temporary)):
            raise OSError(error.errno, os.strerror(error.errno), str(path)) from error
        raise


def write_file(path: Path, data: str | bytes) -> None:
    """Write one file atomically."""
    content = data.encode("utf-8") if isinstance(data, str) else data
    write_atomically(path, lambda temporary: temporary.write_bytes(content))


def _exchange(first: Path, second: Path) -> bool:
    """Swap two folders in one step; False where the system or the file system cannot (Linux can, but on NFS)."""
    swap = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    at_cwd, exchange = -100, 2
    return swap is not None and swap(at_cwd, os.fsencode(first), at_cwd, os.fsencode(second), exchange) == 0


def restore_folder(path: Path) -> None:
    """Bring back a folder whose process was killed between the two renames that replace it without `_exchange`."""
    old = path.with_name(f".{path.name}.old")
    if old.is_dir() and not path.exists():
        old.rename(path)


def _why(error: Exception) -> str | None:
    """The system's reason behind an error of writing; None where the error is another."""
    if isinstance(error, OSError):
        return error.strerror or str(error)
    said = str(error).splitlines()[0] if str(error) else ""
    # torch.save does not say why: where it notices in the middle of a large tensor, where in a small one or at the end
    if any(word in said for word in ("inline_container", "PytorchStreamWriter", "iostream")):
        return "a file could not be written whole"
    # safetensors' errors, and plain exceptions of tokenizers
    return said if isinstance(error, SafetensorError) or re.search(r"\(os error \d+\)", said) else None


def save_folder(path: Path, write: Callable[[Path], None]) -> Path:
    """Create folder ``path`` by calling ``write(temporary folder)``; it appears complete or not at all.

    Raises:
        CheckpointError: the disk is full or refuses; what was there before is left as it was.
    """
    path = Path(path)
    place = path.resolve() if path.is_symlink() else path  # a link to the folder stays a link
    temporary, old = place.with_name(f".{place.name}.tmp"), place.with_name(f".{place.name}.old")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        restore_folder(place)
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        readers = temporary.stat().st_mode & 0o666  # by the umask; safetensors (0.8) writes for the owner alone
        write(temporary)
        for file in sorted(temporary.rglob("*")):
            if file.is_file():
                file.chmod(file.stat().st_mode | readers)
                flush(file)
        flush(temporary)
        if not place.exists():
            temporary.rename(place)
        elif not _exchange(temporary, place):
            shutil.rmtree(old, ignore_errors=True)
            place.rename(old)
            temporary.rename(place)
            shutil.rmtree(old, ignore_errors=True)
        flush(place.parent)
    except Exception as error:
        if (reason := _why(error)) is None:
            raise
        raise CheckpointError(
            f"{path} cannot be written ({reason}): make room there; what was saved before is whole, and the same "
            "command goes on from it."
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        restore_folder(place)
    return path


def step_folder(run_dir: Path, step: int) -> Path:
    """``run_dir/checkpoints/step_0000123``."""
    return Path(run_dir) / "checkpoints" / f"step_{step:07d}"


def step_of(path: Path) -> int | None:
    """The step that a checkpoint's name tells; None for another name."""
    match = _STEP.match(path.name)
    return int(match.group(1)) if match else None


def save_checkpoint(run_dir: Path, step: int, write: Callable[[Path], None], keep: int) -> Path:
    """Save the checkpoint of ``step`` with a list of its files, then delete all but the newest ``keep``."""

    def write_all(folder: Path) -> None:
        write(folder)
        (folder / FILES).write_text(json.dumps(_listed(folder), indent=1) + "\n", encoding="utf-8")

    path = save_folder(step_folder(run_dir, step), write_all)
    rotate(run_dir, keep)
    return path


def _listed(folder: Path) -> dict[str, list[int]]:
    """Size and checksum of each file."""
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return {name: [(folder / name).stat().st_size, _checksum(folder / name)] for name in names if name != FILES}


def _checksum(path: Path) -> int:
    """CRC-32 of a file: a tenth of SHA-256's time."""
    found = 0
    with open(path, "rb") as stream:
        while block := stream.read(1 << 22):
            found = zlib.crc32(block, found)
    return found


def damage(checkpoint: Path) -> str | None:
    """What is wrong with a checkpoint's files; None for a whole one, and for one from before they were listed."""
    if not (checkpoint / FILES).exists():
        return None if (checkpoint / "state.json").is_file() else "state.json is missing"
    try:
        expected = json.loads((checkpoint / FILES).read_text(encoding="utf-8"))
        for name, (size, checksum) in expected.items():
            path = checkpoint / name
            if not path.is_file():
                return f"{name} is missing"
            if path.stat().st_size != size:
                return f"{name} has {path.stat().st_size:,} of {size:,} bytes"
            if _checksum(path) != checksum:
                return f"{name} is not what was written"
    except (OSError, ValueError, TypeError, AttributeError) as error:
        return f"it cannot be read ({error})"
    return None


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
    """Delete all but the newest ``keep`` checkpoints (0 keeps all), and what a killed process left of others."""
    for path in list_checkpoints(run_dir)[:-keep] if keep > 0 else ():
        path.rename(path.with_name(f".{path.name}.gone"))  # one that is half deleted is no checkpoint
    for pattern in (".step_*.gone", ".step_*.tmp"):
        for path in (Path(run_dir) / "checkpoints").glob(pattern):
            shutil.rmtree(path, ignore_errors=True)
