"""A training's folder: who writes into it, which checkpoint it goes on from, what becomes of the rest.

lock = hold(run_dir)                                   # one writer at a time; released when the process ends
checkpoint = choose_checkpoint(run_dir, resume, say)   # the newest whole one, the same in all processes
set_aside(run_dir, step, say)                          # nothing newer than the start stays in its way
write_settings(cfg, run_dir, say)                      # config.yaml; earlier ones are kept
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import socket
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

from omegaconf import DictConfig, OmegaConf
from safetensors import SafetensorError, safe_open

from training.checkpoint import CheckpointError, list_checkpoints, restore_folder, step_of, write_file
from training.config import ConfigError
from training.launch import decide

LOCK = ".lock"
SETTINGS = "config.yaml"
_held: dict[str, int] = {}  # folders of this process → open file: the lock lives as long as it


def try_lock(path: Path) -> int | str:
    """The open file that holds the lock ``path``, or who holds it instead.

    Released when the file is closed or the process ends, however it ends; needs a file system with flock.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        owner = os.read(file, 200).decode("utf-8", "replace").strip() or "another process"
        os.close(file)
        return owner
    sign_lock(file, os.getpid())
    return file


def sign_lock(file: int, process: int) -> None:
    """Write into the lock who holds it."""
    os.ftruncate(file, 0)
    os.pwrite(file, f"process {process} on {socket.gethostname()}\n".encode(), 0)


def hold(folder: str | Path, key: str = "name") -> None:
    """Be the one writer of ``folder`` until this process ends.

    Args:
        key: the option that names the folder.

    Raises:
        ConfigError: another process writes there, or nobody can.
    """
    place = str(Path(folder).resolve())
    if place in _held:
        return
    try:
        lock = try_lock(Path(folder) / LOCK)
    except OSError as error:
        raise ConfigError(f"{folder} cannot be written ({error.strerror}): give another {key}.") from None
    if isinstance(lock, str):
        raise ConfigError(f"{folder} is being written by {lock}: wait for it, or give another {key}.")
    _held[place] = lock


def hold_when_free(folder: str | Path) -> None:
    """As `hold`, but waits for another process that writes there, and says so. Raises OSError where nobody can."""
    place = str(Path(folder).resolve())
    said = ""
    while place not in _held:
        lock = try_lock(Path(folder) / LOCK)
        if isinstance(lock, int):
            _held[place] = lock
            return
        if lock != said:
            print(f"{folder} is being written by {lock}: waiting for it", flush=True)
            said = lock
        time.sleep(0.5)


def release(folder: str | Path) -> None:
    """Let others write into ``folder``."""
    lock = _held.pop(str(Path(folder).resolve()), None)
    if lock is not None:
        os.close(lock)


def damage(checkpoint: Path) -> str | None:
    """What is wrong with the files of a checkpoint, as far as their own bookkeeping tells; None for a whole one."""
    for path in sorted(checkpoint.rglob("*")):
        try:
            if path.suffix == ".safetensors":
                with safe_open(path, framework="pt") as file:
                    file.keys()
            elif path.suffix == ".pt":
                with zipfile.ZipFile(path) as file:
                    if bad := file.testzip():
                        return f"{path.name} is damaged at {bad}"
            elif path.suffix == ".json":
                json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, SafetensorError, zipfile.BadZipFile) as error:
            return f"{path.name} is damaged ({str(error).splitlines()[0]})"
    return None if (checkpoint / "state.json").is_file() else "state.json is missing"


def _choose(run_dir: Path, resume: str, say: Callable[[str], None]) -> str | None:
    """As `choose_checkpoint`, in one process."""
    restore_folder(run_dir / "final")
    if resume == "none":
        return None
    if resume != "auto":
        path = Path(resume)
        if step_of(path) is None or not path.is_dir():
            raise CheckpointError(f"resume={resume} is not a checkpoint folder (…/checkpoints/step_NNNNNNN).")
        if reason := damage(path):
            raise CheckpointError(f"resume={resume}: {reason}; name another checkpoint, or resume=none to start over.")
        return str(path)
    found = list_checkpoints(run_dir)
    for path in reversed(found):
        reason = damage(path)
        if reason is None:
            return str(path)
        say(f"{path} is left out: {reason}.")
    if found:
        raise CheckpointError(f"no checkpoint of {run_dir} is whole: give resume=none to start over.")
    return None


def choose_checkpoint(run_dir: Path, resume: str, say: Callable[[str], None]) -> Path | None:
    """The checkpoint that ``resume=auto|none|PATH`` names; the first process looks, and all go on from the same.

    Raises:
        CheckpointError: in all processes: a path that is no whole checkpoint, or a run without one; never silently a
            fresh start.
    """
    chosen = decide(lambda: _choose(Path(run_dir), resume, say))
    return None if chosen is None else Path(chosen)


def set_aside(run_dir: Path, step: int, say: Callable[[str], None]) -> Path | None:
    """Move what stands for steps after ``step`` to ``run_dir/aside-N``: checkpoints, final/, and the log as it was.

    Else the rotation would take the new checkpoints for the old ones, and the next start would go on from the old run.
    """
    newer = [path for path in list_checkpoints(run_dir) if (step_of(path) or 0) > step]
    final = run_dir / "final"
    moved = [*newer, *([final] if final.is_dir() and (newer or step == 0) else [])]
    if not moved:
        return None
    number = 1
    while (run_dir / f"aside-{number}").exists():
        number += 1
    aside = run_dir / f"aside-{number}"
    aside.mkdir()
    if (run_dir / "log.jsonl").is_file():
        shutil.copy2(run_dir / "log.jsonl", aside)
    for path in moved:
        path.rename(aside / path.name)
    say(f"{', '.join(path.name for path in moved)} of an earlier training moved to {aside}.")
    return aside


def changes(before: object, after: object, prefix: str = "") -> list[str]:
    """``key: before → after`` of each value that differs."""
    if not isinstance(before, dict) or not isinstance(after, dict):
        return [] if before == after else [f"{prefix}: {before} → {after}"]
    names = {key: f"{prefix}.{key}" if prefix else str(key) for key in [*before, *after]}
    return [text for key, name in names.items() for text in changes(before.get(key), after.get(key), name)]


def check_recipe(stored: dict, current: dict, checkpoint: Path) -> None:
    """Refuse to continue a checkpoint under another recipe: what decides the numbers of a training.

    Raises:
        CheckpointError: naming what differs.
    """
    differing = changes(stored, current)
    if differing:
        shown = "; ".join(differing[:5]) + (f"; and {len(differing) - 5} more" if len(differing) > 5 else "")
        raise CheckpointError(
            f"{checkpoint} was trained with other settings ({shown}): give those again, or name=OTHER (with init= to "
            "begin from its weights) for another training, or resume=none to start over."
        )


def write_settings(cfg: DictConfig, run_dir: Path, say: Callable[[str], None]) -> None:
    """Write the resolved configuration as ``run_dir/config.yaml``; one that says otherwise is kept as config-N.yaml."""
    path, text = Path(run_dir) / SETTINGS, OmegaConf.to_yaml(cfg, resolve=True)
    if path.is_file() and (earlier := path.read_text(encoding="utf-8")) != text:
        before = OmegaConf.to_container(OmegaConf.create(earlier))
        differing = changes(before, OmegaConf.to_container(cfg, resolve=True)) or ["their order"]
        number = 1
        while (path.parent / f"config-{number}.yaml").exists():
            number += 1
        path.replace(path.parent / f"config-{number}.yaml")
        say(f"settings that changed since the last start (config-{number}.yaml): {'; '.join(differing)}")
    write_file(path, text)
