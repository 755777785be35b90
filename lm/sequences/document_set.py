"""All documents of a training or an evaluation in memory, rendered once: what several share is held once."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from lm.sequences.documents import folded, segment_ids
from lm.sequences.vocabulary import AudioVocabulary
from tasks.base import Task
from tasks.document import TextSegment


class DocumentSet:
    """Rendered documents in memory: each the numbers of its segments, so that what documents share is held once.

    A document has one or more variants (captions, phrasings of the prompt; `tasks.base`).

    Attributes:
        ids: names of the documents.
        tasks: the task of each document.
        weights: ``[documents]`` how often each comes per epoch.
        variants: ``[documents]`` number of variants.
        too_long: names of documents that no row can hold; they are left out and counted, never cut.
    """

    def __init__(self) -> None:
        self.ids: list[str] = []
        self.tasks: list[str] = []
        self.too_long: list[str] = []
        self._weights: list[float] = []
        self._first = [0]  # first variant of each document
        self._parts: list[tuple[int, ...]] = []  # per variant: 2 · segment + whether it is learnt
        self._lengths: list[int] = []  # per variant
        self._segments: list[tuple[np.ndarray, int]] = []  # ids, how many of them open the segment

    def add_segment(self, ids: np.ndarray, opening: int) -> int:
        """The number of a segment of ``ids``, of which the first ``opening`` belong to the prompt."""
        self._segments.append((ids, opening))
        return len(self._segments) - 1

    def add(self, name: str, task: str, weight: float, variants: list[list[tuple[int, bool]]], limit: int) -> None:
        """A document; each variant is its (segment, learnt) pairs. Longer than ``limit`` ids it is `too_long`."""
        lengths = [sum(len(self._segments[number][0]) for number, _ in variant) for variant in variants]
        if max(lengths) > limit:
            self.too_long.append(name)
            return
        self.ids.append(name)
        self.tasks.append(task)
        self._weights.append(weight)
        self._parts += [tuple(2 * number + learnt for number, learnt in variant) for variant in variants]
        self._lengths += lengths
        self._first.append(len(self._parts))

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def task_names(self) -> list[str]:
        """The tasks that occur, by name."""
        return sorted(set(self.tasks))

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        return self.variant(index, 0)

    def variant(self, index: int, number: int) -> tuple[np.ndarray, np.ndarray]:
        """``(ids, learn)`` of a document's variant: int32 and bool, ``[length]`` each."""
        return self._join(self._parts[self._first[index] + number])

    def _join(self, parts: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
        segments = [(*self._segments[part >> 1], bool(part & 1)) for part in parts]
        learn = [(np.arange(len(ids)) >= opening) & learnt for ids, opening, learnt in segments]
        return np.concatenate([ids for ids, _, _ in segments]), np.concatenate(learn)

    @property
    def weights(self) -> np.ndarray:
        """``[documents]`` float64."""
        return np.array(self._weights)

    @property
    def variants(self) -> np.ndarray:
        """``[documents]`` number of variants of each."""
        return np.diff(self._first)

    @property
    def lengths(self) -> np.ndarray:
        """``[documents]`` ids per document, in its first variant."""
        return np.array(self._lengths, dtype=np.int64)[self._first[:-1]]

    def drawn(self, seed: int, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """Which variant each document takes in ``epoch``, and its ids then: ``[documents]`` both.

        A function of (seed, document, epoch), whatever else is in the set.
        """
        numbers = np.zeros(len(self), dtype=np.int64)
        counts = self.variants
        for index in np.flatnonzero(counts > 1):
            text = f"{seed}\n{self.ids[index]}\n{epoch}".encode()
            draw = int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big")
            numbers[index] = draw % int(counts[index])
        return numbers, np.array(self._lengths, dtype=np.int64)[np.array(self._first[:-1], dtype=np.int64) + numbers]

    def audio_tokens(self, vocabulary: AudioVocabulary) -> int:
        """Audio tokens of all segments: audio that several documents share counts once."""
        return sum(int((vocabulary.levels_of(ids) >= 0).sum()) for ids, _ in self._segments)

    @property
    def hash(self) -> str:
        """SHA-256 (hex) over names and content: equal hashes give equal steps."""
        digest = hashlib.sha256("\n".join(self.ids).encode("utf-8"))
        for column in (0, 1):  # ids, then what is learnt
            for parts in self._parts:
                digest.update(self._join(parts)[column].tobytes())
        digest.update(np.concatenate([[0], np.cumsum(self._lengths)]).astype(np.int64).tobytes())
        if len(self._parts) > len(self):
            digest.update(self.variants.tobytes())
        if len(set(self._weights)) > 1:
            digest.update(self.weights.tobytes())
        return digest.hexdigest()


def render_documents(
    rows: Sequence[Any],
    task: Task,
    vocabulary: AudioVocabulary,
    tokenizer: Any,
    max_length: int,
    fold_steps: bool = False,
) -> DocumentSet:
    """Render every row in all its variants; documents longer than ``max_length`` ids are named in ``too_long``.

    Args:
        fold_steps: ids are ``[positions, levels]``, one position per step of audio, as the depth variant reads them.
    """
    documents = DocumentSet()
    numbers: dict[Any, int] = {}
    codes_in_use: list[Any] = []  # keeps what addresses below point to alive

    def add(ids: np.ndarray, first: int) -> int:
        return documents.add_segment(folded(ids, vocabulary) if fold_steps else ids, first)

    def segment_number(segment: Any) -> int:
        if isinstance(segment, TextSegment):
            key: Any = segment.text
        else:  # the same memory is the same audio: a clip's codes, or the same part of them
            codes = segment.codes
            key = (codes.__array_interface__["data"][0], codes.shape, codes.strides, codes.dtype.str, segment.domain)
        if key not in numbers:
            if not isinstance(segment, TextSegment):
                codes_in_use.append(segment.codes)
            numbers[key] = add(*segment_ids(segment, vocabulary, tokenizer))
        return numbers[key]

    def opening(token: str) -> int:
        key = (token,)
        if key not in numbers:
            numbers[key] = add(np.array([vocabulary.control_id(f"<|{token}|>")], dtype=np.int32), 1)
        return numbers[key]

    for row in rows:
        variants = []
        for number in range(task.variants(row)):
            document = task.document(row, variant=number)
            segments = [(segment_number(segment), segment.learn) for segment in document.segments]
            variants.append([(opening(document.task), False), *segments])
        member = task.task_of(row)
        documents.add(row.id, member.name, member.weight, variants, max_length)
    return documents
