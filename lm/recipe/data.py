"""From documents to the rows of step s, by arithmetic alone.

Which documents step s uses is a pure function of (seed, s): each epoch's shuffle and packing come from
(seed, epoch), rows are numbered through all epochs, and step s takes the next ``batch_rows`` of them. A
checkpoint therefore holds no loader state, and a run resumes exactly, also with another number of processes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np
from torch.utils.data import Dataset

from lm.sequences.document_set import DocumentSet
from lm.sequences.packing import IGNORE, PackedRows, best_fit, pack_rows
from lm.sequences.vocabulary import AudioVocabulary
from training.ahead import made_ahead

PACKING_WINDOW = 1000  # documents packed together: enough for 99 % full rows, small enough to keep rows random


class RowOrder:
    """Row number → documents, for all epochs.

    Args:
        lengths: ids per document; or a function of the epoch, where documents have variants.
        chosen: the documents of this order (a curriculum leaves some out); None takes all.
        weights: per document, how often it comes per epoch; None: once. Documents of equal weight are gone through
            in one order after the other, so that each comes before any comes again.
    """

    def __init__(
        self,
        lengths: np.ndarray | Callable[[int], np.ndarray],
        row_length: int,
        seed: int,
        chosen: np.ndarray | None = None,
        weights: np.ndarray | None = None,
    ) -> None:
        self.lengths_in = lengths if callable(lengths) else lambda epoch: lengths
        self.row_length = row_length
        self.seed = seed
        self.chosen = np.arange(len(self.lengths_in(0))) if chosen is None else chosen
        if not len(self.chosen):
            raise ValueError("there are no documents to train on.")
        self.groups: list[tuple[float, np.ndarray]] = []
        if weights is not None and len(set(weights.tolist())) > 1:
            of_chosen = weights[self.chosen]
            self.groups = [(float(weight), self.chosen[of_chosen == weight]) for weight in np.unique(of_chosen)]
        self._epochs: dict[int, list[list[int]]] = {}
        self._edges = [0]  # first row of each epoch whose packing is known

    def pool(self, epoch: int) -> np.ndarray:
        """The documents of ``epoch``, one with weight w about w times."""
        if not self.groups:
            return self.chosen
        parts = []
        for number, (weight, members) in enumerate(self.groups):
            # Places of an endless sequence of shuffles of the members.
            place, stop = (round(e * weight * len(members)) for e in (epoch, epoch + 1))
            while place < stop:
                turn, start = divmod(place, len(members))
                count = min(stop - place, len(members) - start)
                shuffled = np.random.default_rng([self.seed, 3, number, turn]).permutation(members)
                parts.append(shuffled[start : start + count])
                place += count
        return np.concatenate(parts) if parts else np.zeros(0, dtype=np.int64)

    def epoch_rows(self, epoch: int) -> list[list[int]]:
        """Document numbers of each row of ``epoch``: a function of (seed, epoch)."""
        if epoch not in self._epochs:
            random = np.random.default_rng([self.seed, epoch])
            shuffled = random.permutation(self.pool(epoch))
            lengths = self.lengths_in(epoch)
            rows: list[list[int]] = []
            for start in range(0, len(shuffled), PACKING_WINDOW):
                window = shuffled[start : start + PACKING_WINDOW]
                packed = best_fit(lengths[window].tolist(), self.row_length)
                rows += [[int(window[i]) for i in row] for row in packed]
            # Best fit leaves the longest documents first: shuffle, so that no step sees only long ones.
            order = random.permutation(len(rows))
            self._epochs = {e: r for e, r in self._epochs.items() if e >= epoch - 1}  # two in memory suffice
            self._epochs[epoch] = [rows[i] for i in order]
        return self._epochs[epoch]

    def epoch_at(self, number: int) -> int:
        """The epoch that row ``number`` of the endless sequence belongs to."""
        while self._edges[-1] <= number:
            self._edges.append(self._edges[-1] + len(self.epoch_rows(len(self._edges) - 1)))
        return int(np.searchsorted(self._edges, number, side="right")) - 1

    def row(self, number: int) -> list[int]:
        """Documents of row ``number`` of the endless sequence of epochs."""
        epoch = self.epoch_at(number)
        return self.epoch_rows(epoch)[number - self._edges[epoch]]

    def epoch_of(self, number: int) -> float:
        """Epochs passed at row ``number``, for the log."""
        epoch = self.epoch_at(number)
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
        tasks: ``[rows, row_length]`` int64 number of each position's task in `DocumentSet.task_names`.
    """

    rows: PackedRows
    names: list[list[str]]
    targets: int
    tokens: int
    audio_tokens: int
    epoch: float
    tasks: np.ndarray


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
        everything: every id is a target, prompts and texts too (``trainer.loss_on=everything``); a text that is
            dropped is none.
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
        everything: bool = False,
    ) -> None:
        self.documents = documents
        self.vocabulary = vocabulary
        self.row_length = row_length
        self.batch_rows = batch_rows
        self.seed = seed
        self.curriculum_steps = curriculum_steps
        self.hide = hide
        self.drop_condition = drop_condition
        self.everything = everything
        numbers = {name: number for number, name in enumerate(documents.task_names)}
        self._task_numbers = np.array([numbers[task] for task in documents.tasks], dtype=np.int64)
        self._drawn: dict[int, tuple[np.ndarray, np.ndarray]] = {}  # epoch → variants and lengths

        def lengths_in(epoch: int) -> np.ndarray:
            return self._variants(epoch)[1]

        self.full = RowOrder(lengths_in, row_length, seed, weights=documents.weights)
        self.short = self.full
        if curriculum_steps:
            lengths = documents.lengths
            chosen = np.flatnonzero(lengths <= np.quantile(lengths, curriculum_share))
            self.short = RowOrder(lengths_in, row_length, seed, chosen, documents.weights)

    def _variants(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """Which variant each document takes in ``epoch``, and its ids then."""
        if epoch not in self._drawn:
            self._drawn = {e: d for e, d in self._drawn.items() if e >= epoch - 1}  # two in memory suffice
            self._drawn[epoch] = self.documents.drawn(self.seed, epoch)
        return self._drawn[epoch]

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
        order, first = self._place(step)
        numbers = self.document_numbers(step)
        content = []
        for place, row in enumerate(numbers, start=first):
            variants = self._variants(order.epoch_at(place))[0]
            content.append([self.documents.variant(i, int(variants[i])) for i in row])
        rows = pack_rows(
            content,
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
            # Of folded ids only column 0 can be text.
            first_ids, first_targets = ((a if a.ndim == 2 else a[..., 0]) for a in (rows.input_ids, rows.targets))
            learnt = np.zeros(first_ids.shape, dtype=bool)
            learnt[:, 1:] = first_targets[:, :-1] != IGNORE
            # Column d of `dropped` decides for the d-th document of the row; −1 (padding) is no text.
            unconditional = np.take_along_axis(dropped, rows.document.clip(min=0), axis=1)
            text = (first_ids < self.vocabulary.text_size) & ~learnt
            dropped_text = text & unconditional
            first_ids[dropped_text] = self.vocabulary.control_id("<no_condition>")
        if self.everything:
            whole = [[(ids, np.ones_like(learn)) for ids, learn in row] for row in content]
            rows.targets = pack_rows(whole, self.row_length, pad=self.vocabulary.control_id("<pad>")).targets
            if self.drop_condition:
                before = np.zeros(dropped_text.shape, dtype=bool)
                before[:, :-1] = dropped_text[:, 1:]  # positions whose next id is no text any more
                rows.targets[before] = IGNORE
        mine = slice(rank, None, world)
        return StepBatch(
            rows=PackedRows(rows.input_ids[mine], rows.position_ids[mine], rows.targets[mine], rows.document[mine]),
            names=[[self.documents.ids[i] for i in row] for row in numbers[mine]],
            targets=int((rows.targets != IGNORE).sum()),
            tokens=int((rows.document >= 0).sum()),
            audio_tokens=int(audio.sum()),
            epoch=order.epoch_of(first),
            tasks=self._tasks_of(numbers, rows.document)[mine],
        )

    def _tasks_of(self, numbers: list[list[int]], document: np.ndarray) -> np.ndarray:
        """``[rows, length]`` task number of each position; 0 for padding, which has no target."""
        tasks = np.zeros_like(document)
        for row, members in enumerate(numbers):
            tasks[row] = np.where(document[row] >= 0, self._task_numbers[members][document[row].clip(min=0)], 0)
        return tasks


def step_batches(
    data: StepData, first: int, last: int, rank: int, world: int, workers: int = 0
) -> AbstractContextManager[Iterator[StepBatch]]:
    """The batches of steps ``first`` … ``last`` − 1 of process ``rank``, in a ``with`` block (`made_ahead`).

    Args:
        workers: processes that prepare steps ahead. A step is a function of its number, so that the batches are the
            same with any number of them, and nothing about them need be saved.
    """
    return made_ahead(_Steps(data, rank, world), range(first, last), workers)


class _Steps(Dataset[StepBatch]):
    """Step number → batch."""

    def __init__(self, data: StepData, rank: int, world: int) -> None:
        self.data, self.rank, self.world = data, rank, world

    def __getitem__(self, step: int) -> StepBatch:
        return self.data.batch(step, self.rank, self.world)
