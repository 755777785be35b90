"""One writer per folder: trainings, encodings, evaluations and pages hold a lock on where they write.

    hold(run_dir)                               # until the process ends, however it ends
    with holding(cache, wait=True): …           # a part of the work
    hold(page, replaced=True)                   # of a folder that is put in place as a whole
    hold(target, is_file=True)                  # of one file, that is put in place as a whole, too

Every program asks for its place here before any work, so a place that cannot be written is refused here too.
It needs a file system with flock; where there is none, that is said and nothing is locked.
"""

from __future__ import annotations

import atexit
import errno
import fcntl
import os
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path

ATTEMPTS = 100
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
_held: dict[Path, int] = {}  # locks of this process → open files: a lock lives as long as its file is open
_made: set[Path] = set()  # folders that were made for their lock: one in which nothing was written goes again


class LockError(RuntimeError):
    """A folder that another process writes, or that nobody can write, with its name."""


@contextmanager
def usable(place: str | Path, key: str) -> Iterator[None]:
    """What the system refuses inside the ``with`` block makes ``place``, given by ``key``, one that cannot be written.

    Raises:
        LockError: naming the place, the reason and the key.
    """
    try:
        yield
    except OSError as error:
        whole = Path(place).absolute()
        above = [path for path in (whole, *whole.parents) if os.path.lexists(path) and not os.path.isdir(path)]
        why = f"{above[0]} is no folder" if above and error.errno != errno.EISDIR else os.strerror(error.errno or 0)
        raise LockError(f"{place} cannot be written ({why}): give another {key}, or make room for it there.") from None


def try_lock(path: Path, wait: bool = False) -> int | str:
    """The open file that holds the lock ``path``, or who holds it instead.

    Args:
        wait: until it is free.

    Raises:
        OSError: the file cannot be made, or its file system has no locks.
    """
    for attempt in count(1):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except FileNotFoundError:  # its holder has just taken the folder away, in which it wrote nothing
            if attempt == ATTEMPTS:  # a folder in which nothing can be made, as /proc
                raise
            continue
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            owner = os.read(file, 200).decode("utf-8", "replace").strip() or "another process"
            os.close(file)
            return owner
        except BaseException:
            os.close(file)
            raise
        try:
            if os.path.samestat(os.fstat(file), os.stat(path)):
                sign_lock(file, os.getpid())
                return file
        except FileNotFoundError:
            pass  # its holder has removed it meanwhile: the next one makes another
        os.close(file)
    raise AssertionError("counting has no end")


def sign_lock(file: int, process: int) -> None:
    """Write into the lock who holds it."""
    os.ftruncate(file, 0)
    os.pwrite(file, f"process {process} on {socket.gethostname()}\n".encode(), 0)


def _locks_of(folder: str | Path) -> tuple[Path, Path]:
    """The lock inside a folder, and the one beside a folder that is replaced."""
    place = Path(folder).resolve()
    return place / ".lock", place.with_name(f".{place.name}.lock")


def hold(
    folder: str | Path,
    key: str = "name",
    wait: bool = False,
    replaced: bool = False,
    is_file: bool = False,
    reads: Iterable[str | Path] = (),
) -> None:
    """Be the one writer of ``folder`` until `release`, or the end of this process.

    Args:
        key: the option that names the folder.
        wait: for another process that writes there, and say so.
        is_file: it is a file, that is put there as a whole.
        reads: folders of audio that the program reads: it may not write its own into them.

    Raises:
        LockError: another process writes there, or nobody can, or it lies in what is read.
    """
    for source in map(Path, reads):
        if source.is_dir() and Path(folder).resolve().is_relative_to(source.resolve()):
            raise LockError(
                f"{folder} lies in {source}, whose audio is read: what is written there would be taken for it the next "
                f"time; give another {key}, or the audio a folder of its own."
            )
    path = _locks_of(folder)[replaced or is_file]
    if path in _held:
        return
    made = not os.path.lexists(path.parent)
    with usable(folder, key):
        if os.path.lexists(folder) and os.path.isdir(folder) == is_file:
            raise IsADirectoryError(errno.EISDIR, "") if is_file else NotADirectoryError(errno.ENOTDIR, "")
        try:
            lock = try_lock(path)
            if isinstance(lock, str) and wait:
                print(f"{folder} is being written by {lock}: waiting for it", flush=True)
                lock = try_lock(path, wait=True)
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            print(f"{folder} cannot be locked here ({error.strerror}): see to it that nobody else writes there.")
            return
    if made:
        _made.add(path.parent)
    if isinstance(lock, str):
        raise LockError(f"{folder} is being written by {lock}: wait for it, or give another {key}.")
    _held[path] = lock


def release(folder: str | Path) -> None:
    """Let others write into ``folder``."""
    for path in _locks_of(folder):
        _release(path)


@contextmanager
def holding(folder: str | Path, key: str = "name", wait: bool = False, replaced: bool = False) -> Iterator[None]:
    """As `hold`, inside a ``with`` block."""
    hold(folder, key, wait, replaced)
    try:
        yield
    finally:
        release(folder)


def _release(path: Path) -> None:
    lock = _held.pop(path, None)
    if lock is not None:
        path.unlink(missing_ok=True)
        os.close(lock)
        if path.parent in _made:
            _made.discard(path.parent)
            with suppress(OSError):  # there is something in it, by us or by who comes next
                path.parent.rmdir()


def _release_all() -> None:
    for path in list(_held):
        _release(path)


def _forget() -> None:
    """A forked helper that outlives its parent does not hold what the parent held."""
    for lock in _held.values():
        os.close(lock)
    _held.clear()
    _made.clear()


atexit.register(_release_all)
os.register_at_fork(after_in_child=_forget)
