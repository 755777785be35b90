"""Runs the cells of a comparison (eval/comparison/plan.py): resumable, many at a time, by many processes.

A cell's folder holds ``command.txt``, ``config.yaml`` (resolved), ``started.json``, ``log.txt``, what the command
writes, and last ``done.json``. A cell is finished when its ``done.json`` names the key it has now: the hash of the
script, of the resolved configuration, and of every file that the configuration names (weights, models, judges,
corpora). So a cell runs again when its inputs changed, and only then; code is not part of the key.

Who wants to run a cell holds its lock (``locks/``), and hands it on to the command: when the sweep is killed and the
command lives on, a new sweep waits for it instead of running it twice. Processes share the work by nothing else than
these locks, so any number of them can be started on the same folder, on machines whose file system has flock.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from codec.corpus import METADATA_NAMES, CorpusError, read_corpus
from eval.comparison.plan import Cell, Plan
from eval.harness.provenance import record_hash
from training.checkpoint import write_file
from training.config import REPOSITORY, ConfigError, compose, refusing
from training.identity import file_hash, folder_hash, without_credentials
from training.lock import sign_lock, try_lock, usable
from training.log import duration
from training.places import environment
from training.stopping import Stop

DONE, STARTED, LOG = "done.json", "started.json", "log.txt"
POLL = 0.2  # seconds
GRACE = 60.0  # seconds that commands have to save and stop


@dataclass(frozen=True)
class Order:
    """A cell whose turn it is: its command, configuration and key."""

    cell: Cell
    arguments: list[str]
    config: Any  # resolved configuration, None for scripts without one
    inputs: dict[str, str]  # path → hash
    key: str

    @property
    def shown(self) -> str:
        """The command as a person would type it in the repository."""
        start = self.cell.launch or ("python",)
        return without_credentials(shlex.join([*start, self.cell.script, *self.arguments]))

    @property
    def command(self) -> list[str]:
        """The command as it is run, from any folder."""
        start = self.cell.launch or (sys.executable,)
        return [*start, str(REPOSITORY / self.cell.script), *self.arguments]


@dataclass
class _Running:
    order: Order
    process: subprocess.Popen[bytes]
    lock: int
    since: float


@dataclass
class Sweep:
    """Runs a plan.

    Args:
        say: prints one line.
    """

    plan: Plan
    jobs: int = 1
    say: Any = print
    failed: dict[str, str] = field(default_factory=dict)  # cell → reason
    ran: list[str] = field(default_factory=list)  # cells that this process finished
    _hashes: dict[str, str] = field(default_factory=dict)
    _waiting: set[str] = field(default_factory=set)
    _finished: int = 0
    _total: int = 0

    # ---- keys ------------------------------------------------------------------------------------------------
    def order(self, cell: Cell) -> Order:
        """What running ``cell`` means now; its needs must be finished."""
        arguments = cell.arguments()
        config = None
        inputs: dict[str, str] = {}
        folder = self.plan.folder(cell.name)
        if cell.config is not None:
            config = OmegaConf.to_container(compose(cell.config, arguments), resolve=True)
            for path in sorted(_paths(config)):
                if not _inside(path, folder) and not _inside(path, self.plan.out / "cache"):
                    inputs[path] = self._hash(path)
        # Where the sweep lies is not part of what it is.
        here = self.plan.out.as_posix()
        neutral = json.loads(json.dumps([cell.script, arguments if config is None else config, list(inputs.items())])
                             .replace(here, "OUT").replace(Path(here).resolve().as_posix(), "OUT"))  # fmt: skip
        neutral[2] = sorted(neutral[2])
        return Order(cell, arguments, config, inputs, record_hash([*neutral, cell.results]))

    def _hash(self, path: str) -> str:
        if path not in self._hashes:
            self._hashes[path] = content_hash(Path(path))
        return self._hashes[path]

    def finished(self, order: Order) -> bool:
        """Whether the cell is done, with the inputs it has now."""
        folder = self.plan.folder(order.cell.name)
        record = read_json(folder / DONE)
        return record.get("key") == order.key and all((folder / name).exists() for name in order.cell.results)

    def states(self, only: Sequence[str] | None = None) -> list[tuple[Cell, str]]:
        """``finished``, ``missing`` or, where it follows from a cell that is yet to run, ``waiting``; runs nothing."""
        found: list[tuple[Cell, str]] = []
        done: set[str] = set()
        for cell in self.plan.chosen(only):
            state = "waiting"
            if set(cell.needs) <= done:
                state = "finished" if self.finished(self.order(cell)) else "missing"
            if state == "finished":
                done.add(cell.name)
            found.append((cell, state))
        return found

    # ---- the loop --------------------------------------------------------------------------------------------
    def run(self, only: Sequence[str] | None = None) -> None:
        """Run what is missing of the rows ``only``; what fails is noted, and the rest goes on."""
        with usable(self.plan.out, "out"):
            (self.plan.out / "locks").mkdir(parents=True, exist_ok=True)
        cells = self.plan.chosen(only)
        self._finished, self._total = 0, len(cells)
        done: set[str] = set()
        orders: dict[str, Order] = {}
        running: dict[str, _Running] = {}
        stop = Stop().listen()
        try:
            while len(done) + len(self.failed) < len(cells):
                for cell in cells:
                    if stop.asked:
                        break
                    if cell.name in done or cell.name in self.failed or cell.name in running:
                        continue
                    if bad := [name for name in cell.needs if name in self.failed]:
                        self.failed[cell.name] = f"not run, because {bad[0]} failed"
                        continue
                    if not set(cell.needs) <= done:
                        continue
                    if cell.name not in orders:
                        try:
                            orders[cell.name] = self.order(cell)
                        except ConfigError as error:  # which has said what
                            self.failed[cell.name] = f"cannot be configured: {error}".split("\n")[0]
                            continue
                    if self.finished(orders[cell.name]):
                        done.add(cell.name)
                        self._finished += 1
                    elif len(running) < self.jobs:
                        started = self._start(orders[cell.name])
                        if started is not None:
                            running[cell.name] = started
                for name, part in list(running.items()):
                    if part.process.poll() is not None:
                        del running[name]
                        if self._end(part):
                            done.add(name)
                if stop.asked:
                    raise KeyboardInterrupt
                time.sleep(POLL)
        except KeyboardInterrupt:
            self._stop(running)
            self.say("stopped; the same command goes on from here.")
            stop.leave()
        finally:
            stop.close()

    def _start(self, order: Order) -> _Running | None:
        """Start the command of a cell; None when another process has it."""
        cell, folder = order.cell, self.plan.folder(order.cell.name)
        lock = try_lock(self.plan.out / "locks" / cell.name.replace("/", "__"))
        if isinstance(lock, str):
            if cell.name not in self._waiting:
                self.say(f"{cell.name}: is being run by {lock}")
            self._waiting.add(cell.name)
            return None
        self._waiting.discard(cell.name)
        if self.finished(order):  # by whoever held the lock until now
            os.close(lock)
            return None
        before = read_json(folder / STARTED)
        if folder.exists() and before.get("key") != order.key:
            if before or (folder / DONE).exists():
                self.say(f"{cell.name}: its inputs changed, it runs again")
            shutil.rmtree(folder)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / DONE).unlink(missing_ok=True)
        attempt = int(before.get("attempt", 0)) + 1 if before.get("key") == order.key else 1
        write_file(folder / "command.txt", order.shown + "\n")
        if order.config is not None:
            shown = without_credentials(order.config)
            write_file(folder / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(shown)))
        write_file(folder / STARTED, json.dumps({"key": order.key, "attempt": attempt, "started": time.time()}) + "\n")
        again = f" (attempt {attempt})" if attempt > 1 else ""
        self.say(f"{cell.name}: {order.shown}{again}")
        with open(folder / LOG, "ab") as log:
            process = subprocess.Popen(
                order.command, stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, env=self._environment(),
                pass_fds=[lock], start_new_session=True,
            )  # fmt: skip
        sign_lock(lock, process.pid)
        return _Running(order, process, lock, time.monotonic())

    def _environment(self) -> dict[str, str]:
        threads = max(1, (os.cpu_count() or 1) // self.jobs)
        return {"OMP_NUM_THREADS": str(threads), **environment(), "PYTHONUNBUFFERED": "1"}

    def _end(self, part: _Running) -> bool:
        """Note that a command ended; True when the cell is finished."""
        order, cell, folder = part.order, part.order.cell, self.plan.folder(part.order.cell.name)
        seconds = time.monotonic() - part.since
        missing = [name for name in cell.results if not (folder / name).exists()]
        if part.process.returncode == 0 and not missing:
            started = read_json(folder / STARTED)
            record = {
                "cell": cell.name, "key": order.key, "command": order.shown,
                "inputs": without_credentials(order.inputs),
                "seed": (order.config or {}).get("seed"), "seconds": round(seconds, 1),
                "attempts": started.get("attempt", 1), "started": started.get("started"), "results": list(cell.results),
            }  # fmt: skip
            write_file(folder / DONE, json.dumps(record, indent=1) + "\n")
            self.ran.append(cell.name)
            self._finished += 1
            self.say(f"{cell.name}: finished in {duration(seconds)}, {self._finished} of {self._total} cells are")
        else:
            lines = (folder / LOG).read_text(encoding="utf-8", errors="replace").strip().splitlines()
            said = next((line for line in reversed(lines) if line.startswith("error: ")), lines[-1] if lines else "")
            why = f"exit status {part.process.returncode}" if part.process.returncode else f"left no {missing[0]}"
            self.failed[cell.name] = without_credentials(f"{why}: {said}" if said else why)
            self.say(f"{cell.name}: FAILED, {self.failed[cell.name]}  ({folder / LOG})")
        os.close(part.lock)
        return cell.name not in self.failed

    def _stop(self, running: Mapping[str, _Running]) -> None:
        """Ask the commands to save and stop."""
        for part in running.values():
            if part.process.poll() is None:
                os.killpg(part.process.pid, signal.SIGTERM)
        until = time.monotonic() + GRACE
        for part in running.values():
            try:
                part.process.wait(max(0.0, until - time.monotonic()))
            except subprocess.TimeoutExpired:
                os.killpg(part.process.pid, signal.SIGKILL)


def content_hash(path: Path) -> str:
    """Hash of a file, of a folder, or of a corpus: its metadata, and the names and sizes of its clips."""
    if path.is_file():
        return file_hash(path)
    if not any((path / name).is_file() for name in METADATA_NAMES):
        return folder_hash(path)
    with refusing(CorpusError):
        clips, rejects = read_corpus(path)
    files = [(clip.id, clip.path.stat().st_size if clip.path.is_file() else None) for clip in clips]
    metadata = [file_hash(path / name) for name in METADATA_NAMES if (path / name).is_file()]
    return record_hash([metadata, files, len(rejects)])


def read_json(path: Path) -> dict[str, Any]:
    """A record, empty where there is none."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return {}


def _paths(value: Any) -> set[str]:
    """The strings of a configuration that name files or folders which exist; a name alone is not taken for a path."""
    if isinstance(value, Mapping):
        return set().union(*map(_paths, value.values()))
    if isinstance(value, (list, tuple)):
        return set().union(*map(_paths, value))
    return {value} if isinstance(value, str) and "/" in value and len(value) < 4096 and Path(value).exists() else set()


def _inside(path: str, folder: Path) -> bool:
    return Path(path).resolve().is_relative_to(folder.resolve())
