"""Validation: held-out loss with the right condition and with another clip's.

The gap between the two says whether the model reads its condition, long before a recogniser can: a model that
babbles fluently has a low loss and no gap.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lm.data import DocumentSet, render_documents
from lm.packing import PackedRows, best_fit, pack_rows
from lm.patterns import Pattern
from lm.vocabulary import AudioVocabulary
from tasks.base import Task


class Validation:
    """Fixed clips of the valid split, packed once.

    Args:
        rows: valid rows the task can use; ``clips`` of them are chosen by the seed.
    """

    def __init__(
        self,
        rows: Sequence[Any],
        task: Task,
        vocabulary: AudioVocabulary,
        tokenizer: Any,
        pattern: Pattern,
        row_length: int,
        clips: int,
        seed: int,
    ) -> None:
        chosen = np.random.default_rng([seed, 2]).permutation(len(rows))[:clips]
        # Neighbours in length swap their texts, so that a wrong text is not betrayed by its length.
        picked = sorted((rows[i] for i in chosen), key=lambda row: (len(row.codes), row.id))
        others = picked[1:] + picked[:1]
        swapped = [task.with_condition_of(row, other) for row, other in zip(picked, others, strict=True)]
        self.clips = len(picked)
        self.levels = vocabulary.levels
        pad = vocabulary.control_id("<pad>")
        self.packed: dict[str, PackedRows] = {}
        for name, group in (("right", picked), ("wrong", swapped)):
            documents: DocumentSet = render_documents(group, task, vocabulary, tokenizer, pattern, row_length)
            layout = best_fit(documents.lengths.tolist(), row_length)
            self.packed[name] = pack_rows([[documents[i] for i in row] for row in layout], row_length, pad)

    @torch.no_grad()
    def run(
        self,
        objective: torch.nn.Module,
        device: torch.device,
        micro_rows: int,
        rank: int,
        world: int,
        reduce: Callable[[Tensor], Tensor],
    ) -> dict[str, float]:
        """Mean losses: ``loss``, ``loss_1`` … per level, ``accuracy_1`` …, ``gap`` and ``gap_1`` … (wrong −
        right).

        Args:
            reduce: sums a tensor over all processes.
        """
        objective.eval()
        sums: dict[str, Tensor] = {}
        for name, rows in self.packed.items():
            total = torch.zeros(3, self.levels + 1, dtype=torch.float64, device=device)
            mine = slice(rank, None, world)
            parts = [torch.from_numpy(a[mine]) for a in (rows.input_ids, rows.position_ids, rows.targets)]
            for start in range(0, len(parts[0]), micro_rows):
                batch = [part[start : start + micro_rows].to(device) for part in parts]
                loss = objective(*batch)
                total += torch.stack([loss.loss, loss.correct, loss.count])
            sums[name] = reduce(total).cpu()
        objective.train()
        right, wrong = sums["right"], sums["wrong"]
        values = {
            "loss": float(right[0].sum() / right[2].sum()),
            "gap": float(wrong[0].sum() / wrong[2].sum() - right[0].sum() / right[2].sum()),
        }
        for level in range(self.levels):
            count = float(right[2, level])
            if count:
                values[f"loss_{level + 1}"] = float(right[0, level]) / count
                values[f"accuracy_{level + 1}"] = float(right[1, level]) / count
                values[f"gap_{level + 1}"] = float(wrong[0, level] / wrong[2, level]) - float(right[0, level]) / count
        return values
