"""Worker processes that may die: one module per kind of work, clips in, one JSON answer out.

    with closing(WorkerPool("eval.metrics.pesq_worker", processes=2)) as pool:
        answers = pool.map([({"mode": "wb"}, pcm_bytes), ...])     # dict per job, in order

A worker is ``python -m MODULE``, which calls ``serve(handler)``. Foreign code (C extensions, ONNX) runs only
there: a segmentation fault or a clip that never ends costs that clip, with a reason, and a new worker takes
over. It is a fresh interpreter and not ``multiprocessing``, because spawning would import the main script
(and torch) in every worker, and forking a process that has threads is not safe.
"""

from __future__ import annotations

import json
import os
import queue
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any

ROOT = Path(__file__).resolve().parents[2]  # where ``python -m`` finds our packages
Job = tuple[dict[str, Any], bytes]  # what to do, and samples
Answer = dict[str, Any]  # the handler's values, or {"failure": reason}
Handler = Callable[[dict[str, Any], bytes], Answer]
START = 600.0  # seconds until a worker must be ready: its imports are slow on a machine with other work
LONGEST_HEADER = 1 << 26  # bytes
GARBLED = (EOFError, OSError, ValueError, struct.error)  # a worker that died, or whose answer is none


class WorkerError(RuntimeError):
    """Workers of this kind cannot start at all (a missing package or model), with the cure."""


def _write(stream: IO[bytes], header: dict[str, Any], payload: bytes = b"") -> None:
    head = json.dumps(header).encode()
    stream.write(struct.pack("<II", len(head), len(payload)) + head + payload)
    stream.flush()


def _read_exactly(stream: IO[bytes], size: int) -> bytes:
    data = stream.read(size)
    if len(data) != size:
        raise EOFError
    return data


def _read(stream: IO[bytes]) -> tuple[dict[str, Any], bytes]:
    head, payload = struct.unpack("<II", _read_exactly(stream, 8))
    if head > LONGEST_HEADER:
        raise ValueError("not a message: something else is printed on this stream")
    return json.loads(_read_exactly(stream, head)), _read_exactly(stream, payload)


def _ask(
    process: subprocess.Popen[bytes], seconds: float, header: dict[str, Any], payload: bytes = b""
) -> tuple[Answer | None, bool]:
    """The answer of ``process``, None where it dies, or is killed after ``seconds``; and whether it was too late."""
    expired = threading.Event()

    def expire() -> None:
        expired.set()
        process.kill()

    assert process.stdin is not None and process.stdout is not None
    timer = threading.Timer(seconds, expire)
    timer.daemon = True  # a program that ends meanwhile does not wait for it
    timer.start()
    try:
        _write(process.stdin, header, payload)
        return _read(process.stdout)[0], False
    except GARBLED:
        process.kill()
        process.wait()
        return None, expired.is_set()
    finally:
        timer.cancel()


def serve(start: Callable[[dict[str, Any]], Handler]) -> None:
    """The main loop of a worker: ``start(settings)`` returns the handler of one job.

    An exception of the handler is that job's failure; an exception of ``start`` ends the worker with its
    message.
    """
    # Foreign code may print: keep the real standard output for answers and send everything else to stderr.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    requests = sys.stdin.buffer
    settings, _ = _read(requests)
    try:
        handle = start(settings)
    except Exception as error:  # reported to the parent, which raises it
        _write(answers, {"refused": f"{type(error).__name__}: {error}"})
        return
    _write(answers, {"ready": True})
    while True:
        try:
            header, payload = _read(requests)
        except EOFError:
            return
        try:
            answer = handle(header, payload)
        except Exception as error:  # any fault of foreign code is this clip's failure, not the run's
            answer = {"failure": f"{type(error).__name__}: {error}".splitlines()[0][:200]}
        _write(answers, answer)


class Worker:
    """One worker process, started on first use and again after it died."""

    def __init__(self, module: str, settings: dict[str, Any], timeout: float) -> None:
        self.module, self.settings, self.timeout = module, settings, timeout
        self.process: subprocess.Popen[bytes] | None = None

    def _start(self) -> subprocess.Popen[bytes]:
        environment = dict(os.environ, OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")
        environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), *filter(None, [environment.get("PYTHONPATH")])])
        try:
            process = subprocess.Popen(
                [sys.executable, "-m", self.module],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment,
            )  # fmt: skip
        except OSError as error:
            raise WorkerError(f"{self.module} cannot be started: {error.strerror}.") from error
        greeting, late = _ask(process, START, self.settings)
        if greeting is None:
            ended = f"ended with status {process.returncode} before it was ready."
            raise WorkerError(f"{self.module} {f'was not ready after {START:g} s.' if late else ended}")
        if "refused" in greeting:
            process.wait()
            raise WorkerError(f"{self.module} cannot start: {greeting['refused']}")
        return process

    def call(self, job: Job) -> Answer:
        """The answer to one job; ``{"failure": ...}`` when the worker died or exceeded ``timeout`` seconds."""
        if self.process is None:
            self.process = self._start()
        answer, late = _ask(self.process, self.timeout, *job)
        if answer is None:
            self.process = None
            return {"failure": f"timed out after {self.timeout:g} s" if late else "worker died"}
        return answer

    def close(self) -> None:
        """End the process."""
        if self.process is not None and self.process.stdin is not None:
            try:
                self.process.stdin.close()
            except BrokenPipeError:
                pass  # it is gone already, which is what we want
            try:
                self.process.wait(timeout=5)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
            if self.process.stdout is not None:
                self.process.stdout.close()
        self.process = None


class WorkerPool:
    """Several workers of one kind.

    Args:
        module: module that calls ``serve``; run as ``python -m``.
        settings: sent to its ``start``.
        processes: how many at most.
        timeout: seconds for one job.
    """

    def __init__(
        self, module: str, settings: dict[str, Any] | None = None, processes: int = 1, timeout: float = 120.0
    ) -> None:
        self.workers = [Worker(module, settings or {}, timeout) for _ in range(max(1, processes))]

    def map(self, jobs: Sequence[Job]) -> list[Answer]:
        """The answers in the order of the jobs.

        Raises:
            WorkerError: the workers cannot start.
        """
        free: queue.SimpleQueue[Worker] = queue.SimpleQueue()
        for worker in self.workers:
            free.put(worker)

        def run(job: Job) -> Answer:
            worker = free.get()
            try:
                return worker.call(job)
            finally:
                free.put(worker)

        threads = ThreadPoolExecutor(len(self.workers))
        try:
            return list(threads.map(run, jobs))
        finally:
            threads.shutdown(wait=False)  # after a refusal or Ctrl-C `close` ends what the workers are at

    def close(self) -> None:
        """End all workers."""
        for worker in self.workers:
            worker.close()
