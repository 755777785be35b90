"""A cache addressed by content: hash of the audio (or request) and of everything that makes the score.

One JSON-lines file per judge, ``<folder>/<kind>-<hash of its how>.jsonl``. A judge that changes (model file,
version, setting, the libraries that run its network) gets another file, and audio that changes gets another key, so a
stale score cannot be returned whatever the files are called. Lines are appended as scores arrive: a killed run goes on
where it stopped. Of several processes each has a file of its own (``….rank1.jsonl``), and all are read.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from eval.harness import processes
from eval.harness.audio import CannotScore
from eval.harness.provenance import record_hash, versions
from training.checkpoint import naming
from training.lock import usable
from training.progress import progress

Part = TypeVar("Part")

NETWORK_LIBRARIES = ("torch", "transformers", "onnxruntime", "soxr", "numpy")  # another version may score otherwise


def cache_name(kind: str, how: Any) -> str:
    """``<kind>-<hash>`` of everything that makes a score besides the audio, the libraries' versions included."""
    return f"{kind}-{record_hash([how, versions(*NETWORK_LIBRARIES)])[:16]}"


class ScoreCache:
    """Scores of one judge.

    Args:
        folder: None keeps the scores in memory only.
        kind: start of the file name, for people.
        how: everything that makes the score besides the audio.
    """

    def __init__(self, folder: Path | None, kind: str, how: Any) -> None:
        self.kind, self.name = kind, cache_name(kind.replace("/", "-"), how)
        number = processes.rank()
        self.path = folder / f"{self.name}{f'.rank{number}' if number else ''}.jsonl" if folder is not None else None
        self.scores: dict[str, Any] = {}
        self.fresh: dict[str, Any] = {}  # what the other processes have not been told
        if folder is not None:
            with usable(folder, "cache"):
                folder.mkdir(parents=True, exist_ok=True)
        for path in sorted(folder.glob(f"{self.name}*.jsonl")) if folder is not None else ():
            damaged = 0
            for line in filter(None, path.read_bytes().split(b"\n")):
                try:
                    record = json.loads(line)
                    key, value = record["key"], record["value"]
                    if not isinstance(key, str):
                        raise TypeError(key)
                except (ValueError, KeyError, TypeError, RecursionError):  # the half line of a killed run, or worse
                    damaged += 1
                    continue
                self.scores[key] = value
            if damaged and not number:
                print(f"{path}: {damaged} damaged lines are left out; what they held is scored again", flush=True)
        # nobody writes before all have read, and what one machine alone has is told: all agree on what is missing
        self.scores = processes.gather(self.scores, f"opening {self.name}")

    def __contains__(self, key: str) -> bool:
        return key in self.scores

    def __getitem__(self, key: str) -> Any:
        return self.scores[key]

    def __setitem__(self, key: str, value: Any) -> None:
        """Remember a score (anything that JSON can hold)."""
        self.scores[key] = value
        if processes.size() > 1:
            self.fresh[key] = value
        if self.path is not None:
            with naming(self.path), open(self.path, "ab") as stream:
                # a killed run may have left a line without its end
                start = b"\n" if stream.tell() and not self._ends_with_newline() else b""
                stream.write(start + json.dumps({"key": key, "value": value}).encode() + b"\n")

    def fill(
        self,
        parts: Mapping[str, Part],
        score: Callable[[list[Part]], Iterable[Any]],
        desc: str,
        batch: int = 1,
        alike: Callable[[Part], object] = lambda part: None,
        around: Callable[[list[Part]], AbstractContextManager[None]] = lambda parts: nullcontext(),
    ) -> dict[str, str]:
        """Score what is not known of ``parts`` ``{key: part}``, in its order, each process its share; all must call it.

        Args:
            score: the scores of a batch of parts, in their order; a `CannotScore` is not kept.
            batch: parts at a time, in all of which ``alike`` is equal.
            around: what surrounds the scoring of the parts that this process has.

        Returns:
            ``{key: reason}`` of what has no score, of all processes.
        """
        missing = [key for key in parts if key not in self]
        groups: dict[object, list[str]] = {}
        for key in missing:
            groups.setdefault(alike(parts[key]), []).append(key)
        batches = [keys[i : i + batch] for keys in groups.values() for i in range(0, len(keys), batch)]
        mine = processes.share(batches)
        failed: dict[str, str] = {}
        with around([parts[key] for keys in mine for key in keys]):
            for keys in progress(mine, desc=f"{desc}, {len(missing)} clips"):
                for key, value in zip(keys, score([parts[key] for key in keys]), strict=True):
                    if isinstance(value, CannotScore):
                        failed[key] = value.reason
                    else:
                        self[key] = value
        if processes.size() > 1:
            self.scores |= processes.gather(self.fresh, self.name)
            self.fresh = {}
        return processes.gather(failed, f"failures of {self.name}")

    def _ends_with_newline(self) -> bool:
        assert self.path is not None
        with open(self.path, "rb") as stream:
            stream.seek(-1, 2)
            return stream.read(1) == b"\n"


class EmbeddingCache:
    """Embeddings of one network, one file ``<audio hash>.npy`` per clip; float32 as they come.

    Args:
        folder: None keeps them in memory only.
        kind: start of the folder's name, for people.
        how: everything that makes the embedding besides the audio.
    """

    def __init__(self, folder: Path | None, kind: str, how: Any) -> None:
        self.folder = folder / cache_name(kind, how) if folder is not None else None
        self.memory: dict[str, NDArray[np.float32]] = {}
        if self.folder is not None:
            with usable(self.folder, "cache"):
                self.folder.mkdir(parents=True, exist_ok=True)

    def get(self, key: str) -> NDArray[np.float32] | None:
        """The embeddings ``[frames, d]`` of the audio with the hash ``key``, or None."""
        if self.folder is None:
            return self.memory.get(key)
        path = self.folder / f"{key}.npy"
        if not path.is_file():
            return None
        try:
            return np.load(path, allow_pickle=False)
        except (ValueError, EOFError) as error:
            print(f"{path} is damaged ({error}) and is left out; the clip is embedded again", flush=True)
            return None

    def put(self, key: str, embeddings: NDArray[np.float32]) -> None:
        """Remember embeddings; a killed run leaves no half file."""
        if self.folder is None:
            self.memory[key] = embeddings
            return
        part = self.folder / f"{key}.{os.getpid()}.part"
        with naming(part), open(part, "wb") as stream:
            np.save(stream, embeddings.astype(np.float32))
        os.replace(part, self.folder / f"{key}.npy")
