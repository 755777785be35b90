"""Validation: held-out loss with the right condition and with another clip's.

The gap between the two says whether the model reads its condition, long before a recogniser can: a model that
babbles fluently has a low loss and no gap. A task with one valid clip has no other clip, so it has no gap.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lm.sequences.document_set import DocumentSet, render_documents
from lm.sequences.packing import IGNORE, PackedRows, best_fit, pack_rows
from lm.sequences.vocabulary import AudioVocabulary
from tasks.base import Task


class Validation:
    """Fixed clips of the valid split, packed once.

    Args:
        rows: valid rows the task can use; ``clips`` of them (of each task of a mixture) are chosen by the seed.
    """

    def __init__(
        self,
        rows: Sequence[Any],
        task: Task,
        vocabulary: AudioVocabulary,
        tokenizer: Any,
        row_length: int,
        clips: int,
        seed: int,
        fold_steps: bool = False,
    ) -> None:
        of_task: dict[str, list[Any]] = {}
        for row in rows:
            of_task.setdefault(task.task_of(row).name, []).append(row)
        self.clips = 0
        self.levels = vocabulary.levels
        self.tasks = sorted(of_task)
        # Without such a task the kind "other" holds nothing but ends of audio.
        self.learns_text = any(task.task_of(members[0]).target == "text" for members in of_task.values())
        pad = vocabulary.control_id("<pad>")
        # Seconds of the audio that is learnt, where audio is learnt.
        frames = 0
        self.frame_rate = float(vocabulary.tokenizer.get("frame_rate", 0))
        self.packed: dict[tuple[str, str], PackedRows] = {}  # (task, right or wrong)
        for name in self.tasks:
            members = of_task[name]
            chosen = np.random.default_rng([seed, 2]).permutation(len(members))[:clips]
            picked = sorted((members[i] for i in chosen), key=lambda row: (len(row.codes), row.id))
            self.clips += len(picked)
            conditions = {"right": picked}
            if len(picked) > 1:
                # Neighbours in length swap their conditions, so that a wrong one is not betrayed by its length.
                others = zip(picked, picked[1:] + picked[:1], strict=True)
                conditions["wrong"] = [task.with_condition_of(row, other) for row, other in others]
            for condition, group in conditions.items():
                documents: DocumentSet = render_documents(group, task, vocabulary, tokenizer, row_length, fold_steps)
                layout = best_fit(documents.lengths.tolist(), row_length)
                packed = pack_rows([[documents[i] for i in row] for row in layout], row_length, pad)
                if condition == "right":
                    frames += int((vocabulary.levels_of(packed.targets) == 0).sum())
                self.packed[name, condition] = packed
        self.seconds = frames / self.frame_rate if self.frame_rate else 0.0

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
        """Mean losses: ``loss``, ``loss_1`` … per level, ``accuracy_1`` …, ``gap`` and ``gap_1`` … (wrong − right);
        ``loss_text``, ``accuracy_text`` and ``gap_text`` of texts that are learnt; in a mixture ``loss/<task>`` and
        ``gap/<task>`` as well. What has no target is left out.

        ``bits_per_second``: what the model needs to say the audio of the clips, codes and end, divided by its duration.
        Losses per token cannot be compared between tokenizers of different rates and sizes; this can. It depends on
        what is normalised over (``trainer.loss_over``).
        ``perplexity``: exp of ``loss``.

        Args:
            reduce: sums a tensor over all processes.
        """
        objective.eval()
        sums: dict[tuple[str, str], Tensor] = {}
        for key, rows in self.packed.items():
            rows = with_idle_rows(rows, world)
            total = torch.zeros(3, self.levels + 1, dtype=torch.float64, device=device)
            parts = [part[rank::world] for part in rows.tensors()]
            for start in range(0, len(parts[0]), micro_rows):
                batch = [part[start : start + micro_rows].to(device) for part in parts]
                loss = objective(*batch)
                total += torch.stack([loss.loss, loss.correct, loss.count])
            sums[key] = reduce(total).cpu()
        objective.train()
        right = torch.stack([sums[name, "right"] for name in self.tasks]).sum(0)
        nothing = torch.zeros_like(right)
        both = [name for name in self.tasks if (name, "wrong") in sums]
        compared = sum((sums[name, "right"] for name in both), nothing)
        wrong = sum((sums[name, "wrong"] for name in both), nothing)
        values = _loss_and_gap(right, compared, wrong, "")
        kinds = {str(level + 1): level for level in range(self.levels)}
        if self.learns_text:
            kinds["text"] = self.levels
        for kind, column in kinds.items():
            values |= _loss_and_gap(right[:, column], compared[:, column], wrong[:, column], f"_{kind}")
            if count := float(right[2, column]):
                values[f"accuracy_{kind}"] = float(right[1, column]) / count
        if len(self.tasks) > 1:
            for name in self.tasks:
                alone = sums[name, "right"]
                values |= _loss_and_gap(alone, alone, sums.get((name, "wrong"), nothing), f"/{name}")
        if "loss" in values:
            values["perplexity"] = math.exp(min(values["loss"], 80.0))
        # Where texts are learnt, ends of audio cannot be told from them: then the codes alone are counted.
        nats = float(right[0, : self.levels].sum() + (0.0 if self.learns_text else right[0, self.levels]))
        if self.seconds:
            values["bits_per_second"] = nats / math.log(2) / self.seconds
        return values


def with_idle_rows(rows: PackedRows, world: int) -> PackedRows:
    """The rows and, at the end, copies of the last one without targets, until each of ``world`` processes has as many.

    DDP and FSDP exchange something at each forward pass: a process with fewer of them would leave the others waiting.
    """
    missing = -len(rows.input_ids) % world
    if not missing:
        return rows

    def longer(array: np.ndarray, value: int | None) -> np.ndarray:
        last = np.repeat(array[-1:], missing, axis=0)
        return np.concatenate([array, last if value is None else np.full_like(last, value)])

    return replace(
        rows,
        input_ids=longer(rows.input_ids, None),
        position_ids=longer(rows.position_ids, None),
        targets=longer(rows.targets, IGNORE),
    )


def _loss_and_gap(right: Tensor, compared: Tensor, wrong: Tensor, suffix: str) -> dict[str, float]:
    """Means over all targets of the sums ``[3, kinds]`` or ``[3]``; nothing where there are none.

    Args:
        compared: of ``right`` what has a wrong condition as well, and
        wrong: with that.
    """
    loss, own, other = (float(sums[0].sum() / sums[2].sum()) for sums in (right, compared, wrong))
    found = {f"loss{suffix}": loss} if right[2].any() else {}
    return found | ({f"gap{suffix}": other - own} if compared[2].any() and wrong[2].any() else {})
