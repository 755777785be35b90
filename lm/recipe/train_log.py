"""What a training says about itself: sums since the last line, the log line, the validation line, broken losses."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from accelerate.utils import gather_object
from torch import Tensor

from lm.network.objective import LossParts
from lm.recipe.data import StepBatch
from lm.sequences.document_set import DocumentSet
from training.log import duration


class Meter:
    """Losses, tokens and time since the last log line.

    Args:
        levels: codebook levels; the kinds of targets are the levels, then text and control tokens.
        tasks: names of the tasks, in the order of `lm.recipe.data.StepBatch.tasks`.
        learns_text: whether texts are targets; without them the last kind holds ends of audio, and is not shown.
        frame_rate: of the audio, Hz.
        flops: FLOPs of (positions, targets), and ``peak`` FLOP/s of all devices: for the utilisation, where known.
    """

    def __init__(
        self,
        levels: int,
        tasks: list[str],
        learns_text: bool,
        frame_rate: float,
        device: torch.device,
        flops: Callable[[float, float], float] | None = None,
        peak: float | None = None,
    ) -> None:
        self.levels, self.tasks, self.learns_text, self.frame_rate = levels, tasks, learns_text, frame_rate
        self.flops, self.peak = flops, peak
        self.kinds = torch.zeros(3, levels + 1, dtype=torch.float64, device=device)  # loss, correct, count
        self.of_task = torch.zeros(2, len(tasks), dtype=torch.float64, device=device)  # loss, count
        self.restart()

    def restart(self) -> None:
        """Begin a new line."""
        self.kinds.zero_()
        self.of_task.zero_()
        self.tokens = self.audio_tokens = self.targets = 0
        self.began = time.monotonic()

    def pause(self, seconds: float) -> None:
        """Leave out ``seconds`` that were not training."""
        self.began += seconds

    def add(self, loss: LossParts, targets: Tensor, tasks: Tensor) -> None:
        """One forward pass: ``targets`` as it had them, ``tasks [rows, length]`` the task number of each position."""
        self.kinds += torch.stack([loss.loss, loss.correct, loss.count])
        if len(self.tasks) > 1:
            learnt = targets >= 0
            of = tasks.view(*tasks.shape, *(1 for _ in range(targets.ndim - 2))).expand(targets.shape)[learnt]
            self.of_task[0].index_add_(0, of, loss.per_target.double())
            self.of_task[1].index_add_(0, of, torch.ones_like(loss.per_target, dtype=torch.float64))

    def step(self, batch: StepBatch) -> None:
        """Count the tokens of a step."""
        self.tokens += batch.tokens
        self.audio_tokens += batch.audio_tokens
        self.targets += batch.targets

    def state(self, reduce: Callable[[Tensor], Tensor]) -> dict[str, Any]:
        """The sums over all processes, for a checkpoint between two lines."""
        return {
            "since_last_line": reduce(self.kinds.clone()).tolist(),
            "tasks_since_last_line": reduce(self.of_task.clone()).tolist(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take up what `state` gave; on one process only."""
        self.kinds += torch.tensor(state["since_last_line"], dtype=torch.float64, device=self.kinds.device)
        if "tasks_since_last_line" in state:
            self.of_task += torch.tensor(state["tasks_since_last_line"], dtype=torch.float64, device=self.kinds.device)

    def report(
        self,
        step: int,
        max_steps: int,
        lr: float,
        norm: float,
        epoch: float,
        seconds: float,
        reduce: Callable[[Tensor], Tensor],
    ) -> tuple[dict[str, object], str]:
        """(numbers of the log, the line); all processes must call it.

        Args:
            seconds: trained in all.
            reduce: sums a tensor over all processes.
        """
        total, of_task = reduce(self.kinds.clone()).cpu(), reduce(self.of_task.clone()).cpu()
        elapsed = time.monotonic() - self.began
        mean, accuracy = total[0] / total[2].clamp(min=1), total[1] / total[2].clamp(min=1)
        audio_rate = self.audio_tokens / self.levels / self.frame_rate / elapsed
        # Kinds that have targets: in recognition and captioning there is no level.
        levels = [k for k in range(self.levels) if total[2, k]]
        shown = [*levels, self.levels] if self.learns_text and total[2, -1] else levels
        loss = float(total[0].sum() / total[2].sum())
        tasks = {
            name: float(of_task[0, i] / of_task[1, i])
            for i, name in enumerate(self.tasks)
            if len(self.tasks) > 1 and of_task[1, i]
        }
        utilisation = None
        if self.flops and self.peak:
            utilisation = self.flops(self.tokens, self.targets) / elapsed / self.peak
        values: dict[str, object] = {
            "loss": loss,
            **{f"loss/{name}": value for name, value in tasks.items()},
            **{f"loss_{k + 1}": float(mean[k]) for k in levels},
            **{f"accuracy_{k + 1}": float(accuracy[k]) for k in levels},
            **({"loss_text": float(mean[-1]), "accuracy_text": float(accuracy[-1])} if self.learns_text else {}),
            "lr": lr,
            "grad_norm": norm,
            "tokens_per_second": self.tokens / elapsed,
            "audio_seconds_per_second": audio_rate,
            **({"mfu": utilisation} if utilisation is not None else {}),
            "epoch": epoch,
            "seconds": seconds,
        }
        parts = [
            f"step {step:6d}/{max_steps}",
            f"loss {loss:.3f} ({join(mean[shown].tolist(), '.2f')})",
            *([", ".join(f"{name} {value:.2f}" for name, value in tasks.items())] if tasks else []),
            f"accuracy {join(accuracy[shown].tolist(), '.0%')}",
            f"lr {lr:.1e}",
            f"grad {norm:.2f}",
            f"{self.tokens / elapsed:,.0f} tok/s",
            f"{audio_rate:.0f} s audio/s",
            *([f"mfu {utilisation:.1%}"] if utilisation is not None else []),
            f"epoch {epoch:.2f}",
            f"{duration((max_steps - step) * seconds / step)} left",
        ]
        return values, " | ".join(parts)


def validation_lines(step: int, values: dict[str, float], levels: int, tasks: list[str]) -> list[str]:
    """The lines of what `lm.recipe.validation.Validation.run` returned; a second one for the tasks of a mixture."""
    kinds = [kind for kind in (*map(str, range(1, levels + 1)), "text") if f"loss_{kind}" in values]
    per_kind = {
        name: [values[found] for kind in kinds if (found := f"{name}_{kind}") in values]
        for name in ("loss", "gap", "accuracy")
    }
    lines = [
        f"valid {step:5d} | loss {values['loss']:.3f} ({join(per_kind['loss'], '.2f')}) | "
        + (f"wrong condition {values['gap']:+.3f} ({join(per_kind['gap'], '+.2f')}) | " if "gap" in values else "")
        + f"accuracy {join(per_kind['accuracy'], '.1%')}"
        + (f" | {values['bits_per_second']:.0f} bit/s" if "bits_per_second" in values else "")
    ]
    members = [name for name in tasks if f"loss/{name}" in values]
    if members:
        gaps = {name: f" ({values[key]:+.2f})" if (key := f"gap/{name}") in values else "" for name in members}
        parts = [f"{name} {values[f'loss/{name}']:.3f}{gaps[name]}" for name in members]
        lines.append(f"valid {step:5d} | {' | '.join(parts)}")
    return lines


def shares_of_tasks(documents: DocumentSet) -> str:
    """``asr 120 documents, 20 % of the tokens; tts …``, per epoch."""
    tokens = documents.lengths * documents.weights
    names = np.array(documents.tasks)
    parts = [
        f"{name} {round(documents.weights[names == name].sum()):,} documents, "
        f"{tokens[names == name].sum() / tokens.sum():.0%} of the tokens"
        for name in sorted(set(documents.tasks))
    ]
    return "; ".join(parts)


def join(values: list[float], form: str) -> str:
    """``[1.234, 5.678], ".1f"`` → ``1.2 5.7``."""
    return " ".join(format(value, form) for value in values)


def non_finite_message(step: int, batch: StepBatch, per_target: Tensor) -> str:
    """One sentence that names the documents whose loss is not finite, over all processes."""
    learnt = torch.from_numpy(batch.rows.targets) >= 0
    row, column = learnt.nonzero(as_tuple=True)[:2]  # folded targets have levels as well
    bad = ~torch.isfinite(per_target.cpu())
    names = sorted(
        {
            batch.names[int(r)][int(batch.rows.document[int(r), int(c)])]
            for r, c in zip(row[bad], column[bad], strict=True)
        }
    )
    what = "loss" if names else "gradient"
    names = sorted(set(gather_object(names or [name for row_names in batch.names for name in row_names])))
    listed = ", ".join(names[:20]) + (" …" if len(names) > 20 else "")
    return (
        f"the {what} of step {step} is not finite; documents: {listed}. "
        "The last checkpoint is intact: lower trainer.lr, or look at these documents."
    )
