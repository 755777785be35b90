"""Documents → rows of fixed length, no document cut, none visible to another.

Best fit decreasing over windows of shuffled documents fills rows to about 99 %. Isolation comes from
`position_ids` that restart at 0 with each document, with no attention mask and ``use_cache=False``:
transformers 5 then builds the block-diagonal causal mask by itself. With a mask or with a cache it does not,
silently; a test watches it.
"""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lm.sequences.patterns import NONE

IGNORE = -100  # target of positions that are not learnt


def best_fit(lengths: Sequence[int], row_length: int) -> list[list[int]]:
    """Indices of ``lengths`` grouped into rows of at most ``row_length`` ids; each index exactly once.

    Longest first, each into the fullest row that still has room (best-fit decreasing). Ties go by index, so
    that the result depends on nothing else.

    Raises:
        ValueError: a document longer than a row.
    """
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    rows: list[list[int]] = []
    room: list[tuple[int, int]] = []  # sorted (free ids, row)
    for index in order:
        length = lengths[index]
        if length > row_length:
            raise ValueError(f"document {index} has {length} ids, a row holds {row_length}.")
        place = bisect.bisect_left(room, (length, -1))
        if place == len(room):
            rows.append([index])
            free, row = row_length - length, len(rows) - 1
        else:
            free, row = room.pop(place)
            rows[row].append(index)
            free -= length
        bisect.insort(room, (free, row))
    return rows


@dataclass
class PackedRows:
    """A batch of packed rows, all ``[rows, row_length]`` int64 numpy arrays; folded ids and their targets have a last
    dimension of levels.

    Attributes:
        input_ids: ids, ``pad`` beyond the last document.
        position_ids: restart at 0 with each document (and with the padding).
        targets: the id to be predicted AFTER each position, `IGNORE` where none is learnt.
        document: index into the row's document list, −1 for padding.
    """

    input_ids: np.ndarray
    position_ids: np.ndarray
    targets: np.ndarray
    document: np.ndarray

    def tensors(self) -> list[Tensor]:
        """Ids, positions and targets: what `lm.network.objective.Objective` takes."""
        return [torch.from_numpy(array) for array in (self.input_ids, self.position_ids, self.targets)]


def pack_rows(rows: Sequence[Sequence[tuple[np.ndarray, np.ndarray]]], row_length: int, pad: int) -> PackedRows:
    """Lay out rows of (ids, learn) documents."""
    shape = (len(rows), row_length)
    levels = next((ids.shape[1:] for row in rows for ids, _ in row), ())
    input_ids = np.full((*shape, *levels), pad, dtype=np.int64)
    position_ids = np.zeros(shape, dtype=np.int64)
    targets = np.full((*shape, *levels), IGNORE, dtype=np.int64)
    if levels:
        input_ids[..., 1:] = NONE
    document = np.full(shape, -1, dtype=np.int64)
    for r, row in enumerate(rows):
        start = 0
        for d, (ids, learn) in enumerate(row):
            stop = start + len(ids)
            input_ids[r, start:stop] = ids
            position_ids[r, start:stop] = np.arange(len(ids))
            learnt = learn[1:].reshape(-1, *(1 for _ in levels)) & (ids[1:] != NONE)
            targets[r, start : stop - 1] = np.where(learnt, ids[1:], IGNORE)
            document[r, start:stop] = d
            start = stop
        position_ids[r, start:] = np.arange(row_length - start)
    return PackedRows(input_ids, position_ids, targets, document)
