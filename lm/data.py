"""From token shards to the rows of step s, by arithmetic alone.

Which documents step s uses is a pure function of (seed, s): each epoch's shuffle and packing come from
(seed, epoch), rows are numbered through all epochs, and step s takes the next ``batch_rows`` of them. A
checkpoint therefore holds no loader state, and a run resumes exactly, also with another number of processes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lm.documents import render
from lm.packing import IGNORE, PackedRows, best_fit, pack_rows
from lm.patterns import Pattern
from lm.vocabulary import AudioVocabulary
from tasks.base import Task

PACKING_WINDOW = 1000  # documents packed together: enough for 99 % full rows, small enough to keep rows random


@dataclass
class DocumentSet:
    """Rendered documents in memory.

    Attributes:
        ids: names of the documents.
        tokens: ids of all documents, concatenated, int32.
        learn: which of them are targets, bool.
        starts: ``[documents + 1]`` offsets into both.
        too_long: names of documents that no row can hold; they are left out and counted, never cut.
    """

    ids: list[str]
    tokens: np.ndarray
    learn: np.ndarray
    starts: np.ndarray
    too_long: list[str]

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        part = slice(self.starts[index], self.starts[index + 1])
        return self.tokens[part], self.learn[part]

    @property
    def lengths(self) -> np.ndarray:
        """``[documents]`` ids per document."""
        return np.diff(self.starts)

    @property
    def hash(self) -> str:
        """SHA-256 (hex) over names and content: equal hashes give equal steps."""
        digest = hashlib.sha256("\n".join(self.ids).encode("utf-8"))
        for array in (self.tokens, self.learn, self.starts):
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()


def render_documents(
    rows: Sequence[Any],
    task: Task,
    vocabulary: AudioVocabulary,
    tokenizer: Any,
    pattern: Pattern,
    max_length: int,
) -> DocumentSet:
    """Render every row; documents longer than ``max_length`` ids are named in ``too_long``."""
    names, tokens, learn, too_long = [], [], [], []
    for row in rows:
        rendered = render(task.document(row), vocabulary, tokenizer, pattern)
        if len(rendered) > max_length:
            too_long.append(row.id)
            continue
        names.append(row.id)
        tokens.append(rendered.ids)
        learn.append(rendered.learn)
    starts = np.concatenate([[0], np.cumsum([len(part) for part in tokens])]).astype(np.int64)
    return DocumentSet(
        names,
        np.concatenate(tokens) if tokens else np.zeros(0, dtype=np.int32),
        np.concatenate(learn) if learn else np.zeros(0, dtype=bool),
        starts,
        too_long,
    )


class RowOrder:
    """Row number → documents, for all epochs.

    Args:
        lengths: ids per document.
        chosen: the documents of this order (a curriculum leaves some out); None takes all.
    """

    def __init__(self, lengths: np.ndarray, row_length: int, seed: int, chosen: np.ndarray | None = None) -> None:
        self.lengths = lengths
        self.row_length = row_length
        self.seed = seed
        self.chosen = np.arange(len(lengths)) if chosen is None else chosen
        if not len(self.chosen):
            raise ValueError("there are no documents to train on.")
        self._epochs: dict[int, list[list[int]]] = {}
        self._edges = [0]  # first row of each epoch whose packing is known

    def epoch_rows(self, epoch: int) -> list[list[int]]:
        """Document numbers of each row of ``epoch``: a function of (seed, epoch)."""
        if epoch not in self._epochs:
            random = np.random.default_rng([self.seed, epoch])
            shuffled = random.permutation(self.chosen)
            rows: list[list[int]] = []
            for start in range(0, len(shuffled), PACKING_WINDOW):
                window = shuffled[start : start + PACKING_WINDOW]
                packed = best_fit(self.lengths[window].tolist(), self.row_length)
                rows += [[int(window[i]) for i in row] for row in packed]
            # Best fit leaves the longest documents first: shuffle, so that no step sees only long ones.
            order = random.permutation(len(rows))
            self._epochs = {e: r for e, r in self._epochs.items() if e >= epoch - 1}  # two in memory suffice
            self._epochs[epoch] = [rows[i] for i in order]
        return self._epochs[epoch]

    def row(self, number: int) -> list[int]:
        """Documents of row ``number`` of the endless sequence of epochs."""
        while self._edges[-1] <= number:
            self._edges.append(self._edges[-1] + len(self.epoch_rows(len(self._edges) - 1)))
        epoch = int(np.searchsorted(self._edges, number, side="right")) - 1
        return self.epoch_rows(epoch)[number - self._edges[epoch]]

    def epoch_of(self, number: int) -> float:
        """Epochs passed at row ``number``, for the log."""
        self.row(number)
        epoch = int(np.searchsorted(self._edges, number, side="right")) - 1
        return epoch + (number - self._edges[epoch]) / (self._edges[epoch + 1] - self._edges[epoch])


@dataclass
class StepBatch:
    """What one process trains on in one step.

    Attributes:
        rows: its packed rows.
        names: for each row, the names of its documents.
        targets: number of target tokens of the step over ALL processes: the denominator of the loss.
        tokens, audio_tokens: real (not padding) tokens of the step over all processes.
        epoch: epochs passed.
    """

    rows: PackedRows
    names: list[list[str]]
    targets: int
    tokens: int
    audio_tokens: int
    epoch: float


class StepData:
    """The data of training: ``step`` → `StepBatch`.

    Args:
        documents: what to train on.
        batch_rows: rows per step over all processes and accumulation steps.
        curriculum_steps: during the first steps only the shorter documents are drawn: the alignment between
            text and audio forms sooner on them.
        curriculum_share: share of the documents, shortest first, that those steps draw from.
        hide: probability that an audio token of the INPUT is replaced by ``<mask>`` (its target stays): the
            model must then use the text, and more than the last token.
        drop_condition: probability that a document's text is replaced by ``<no_condition>``, so that
            generation can be guided away from what the model says without a text.
    """

    def __init__(
        self,
        documents: DocumentSet,
        vocabulary: AudioVocabulary,
        row_length: int,
        batch_rows: int,
        seed: int,
        curriculum_steps: int = 0,
        curriculum_share: float = 0.5,
        hide: float = 0.0,
        drop_condition: float = 0.0,
    ) -> None:
        self.documents = documents
        self.vocabulary = vocabulary
        self.row_length = row_length
        self.batch_rows = batch_rows
        self.seed = seed
        self.curriculum_steps = curriculum_steps
        self.hide = hide
        self.drop_condition = drop_condition
        self.full = RowOrder(documents.lengths, row_length, seed)
        self.short = self.full
        if curriculum_steps:
            lengths = documents.lengths
            chosen = np.flatnonzero(lengths <= np.quantile(lengths, curriculum_share))
            self.short = RowOrder(lengths, row_length, seed, chosen)

    def _place(self, step: int) -> tuple[RowOrder, int]:
        """The order that ``step`` draws from and its first row there."""
        if step < self.curriculum_steps:
            return self.short, step * self.batch_rows
        return self.full, (step - self.curriculum_steps) * self.batch_rows

    def document_numbers(self, step: int) -> list[list[int]]:
        """Documents of each of the ``batch_rows`` rows of ``step`` (0, 1, …), over all processes."""
        order, first = self._place(step)
        return [order.row(first + i) for i in range(self.batch_rows)]

    def batch(self, step: int, rank: int = 0, world: int = 1) -> StepBatch:
        """The part of ``step`` that process ``rank`` of ``world`` computes."""
        numbers = self.document_numbers(step)
        rows = pack_rows(
            [[self.documents[i] for i in row] for row in numbers],
            self.row_length,
            pad=self.vocabulary.control_id("<pad>"),
        )
        audio = self.vocabulary.levels_of(rows.input_ids) >= 0
        # Drawn for all rows and then divided: the same tokens change with any number of processes.
        random = np.random.default_rng([self.seed, step])
        hidden = audio & (random.random(audio.shape) < self.hide)
        dropped = random.random((len(numbers), self.row_length)) < self.drop_condition
        if self.hide:
            rows.input_ids[hidden] = self.vocabulary.control_id("<mask>")
        if self.drop_condition:
            learnt = np.zeros_like(audio)
            learnt[:, 1:] = rows.targets[:, :-1] != IGNORE
            # Column d of `dropped` decides for the d-th document of the row; −1 (padding) is no text.
            unconditional = np.take_along_axis(dropped, rows.document.clip(min=0), axis=1)
            text = (rows.input_ids < self.vocabulary.text_size) & ~learnt
            rows.input_ids[text & unconditional] = self.vocabulary.control_id("<no_condition>")
        mine = slice(rank, None, world)
        order, first = self._place(step)
        return StepBatch(
            rows=PackedRows(rows.input_ids[mine], rows.position_ids[mine], rows.targets[mine], rows.document[mine]),
            names=[[self.documents.ids[i] for i in row] for row in numbers[mine]],
            targets=int((rows.targets != IGNORE).sum()),
            tokens=int((rows.document >= 0).sum()),
            audio_tokens=int(audio.sum()),
            epoch=order.epoch_of(first),
        )
