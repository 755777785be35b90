"""One training on its way: how it goes a step further, how it is saved, and how it is taken up again.

run = Run(cfg, accelerator, folder, keeping, objective, optimiser, meter, about, bf16)
run.load(checkpoint)                                    # where there is one
while run.done < cfg.trainer.max_steps:
    run.step(batch)
run.save(final=True)
"""

from __future__ import annotations

import json
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.optimizer import AcceleratedOptimizer
from omegaconf import DictConfig
from torch import Tensor, nn

from lm.recipe.data import StepBatch
from lm.recipe.keeping import Whole, whole
from lm.recipe.train_log import Meter, non_finite_message
from lm.recipe.tuning import freeze_all_but_new_rows
from lm.run_state import OPTIMISER_FILE, STATE_FILE, allowing_more_steps, learning_rate, read_state
from training.checkpoint import save_checkpoint, save_folder
from training.failure import NonFiniteLoss
from training.launch import decide
from training.run_folder import check_recipe


@dataclass
class Run:
    """The model with its loss, its optimiser, and how far the training is.

    Attributes:
        cfg: configs/lm_train.yaml.
        folder: ``runs/<name>``.
        keeping: of the weights and the optimiser.
        objective, optimiser: as accelerate has prepared them.
        meter: sums since the last line of the log.
        about: what ``state.json`` says of the training; a checkpoint must have been trained with its ``recipe``.
        bf16: whether the forward passes run under bf16 autocast.
        done: steps.
        earlier: seconds trained before this start.
    """

    cfg: DictConfig
    accelerator: Accelerator
    folder: Path
    keeping: Whole
    objective: nn.Module
    optimiser: AcceleratedOptimizer
    meter: Meter
    about: dict[str, Any]
    bf16: bool
    done: int = 0
    earlier: float = 0.0
    began: float = 0.0

    def __post_init__(self) -> None:
        self.plain: Any = self.accelerator.unwrap_model(self.objective)  # without what exchanges gradients
        self.add_up = partial(self.accelerator.reduce, reduction="sum")

    def start_clock(self) -> None:
        """From now on it trains."""
        self.began = self.meter.began = time.monotonic()

    @property
    def seconds(self) -> float:
        """Trained in all."""
        return self.earlier + time.monotonic() - self.began

    # ---- saved, and taken up again -------------------------------------------------------------------------------
    def save(self, final: bool = False) -> None:
        """Write a checkpoint, or the ``final`` model, for which no moments are kept; all processes must call it."""
        state = {
            "step": self.done,
            "written": time.time(),
            "seconds": self.seconds,
            **self.about,
            **self.meter.state(self.add_up),
            **({"optimiser_by_name": True} if self.keeping.by_name else {}),
        }
        weights = self.keeping.weights(self.plain)
        moments = None if final else self.keeping.moments(self.plain, self.optimiser.optimizer)

        def write(folder: Path) -> None:
            self.keeping.save_model(folder, weights, final)
            (folder / STATE_FILE).write_text(json.dumps(state, indent=1) + "\n", encoding="utf-8")
            if not final:
                torch.save(moments, folder / OPTIMISER_FILE)

        if final:
            decide(lambda: save_folder(self.folder / "final", write))
        else:
            decide(lambda: save_checkpoint(self.folder, self.done, write, self.cfg.trainer.keep))

    def load(self, checkpoint: Path) -> None:
        """Go on where ``checkpoint`` was saved; its weights have been loaded before (`Whole.load_model`).

        Raises:
            CheckpointError: it was trained with other settings, or cannot be read.
        """
        state = read_state(checkpoint)
        check_recipe(
            allowing_more_steps(state["recipe"], self.cfg.trainer, state["step"]), self.about["recipe"], checkpoint
        )
        where = (self.plain, self.optimiser.optimizer, self.accelerator.device)
        self.keeping.load_optimiser(checkpoint, state.get("optimiser_by_name", False), *where)
        if self.accelerator.is_main_process:
            self.meter.restore(state)
        self.done, self.earlier = state["step"], state["seconds"]

    # ---- one step further ----------------------------------------------------------------------------------------
    def autocast(self) -> AbstractContextManager[Any]:
        """For forward passes."""
        return torch.autocast(self.accelerator.device.type, torch.bfloat16, enabled=self.bf16)

    def step(self, batch: StepBatch) -> tuple[float, float]:
        """Learn from this process' part of ``batch``: (learning rate, norm of the gradient).

        Raises:
            NonFiniteLoss: naming the documents.
        """
        cfg, trainer, accelerator = self.cfg, self.cfg.trainer, self.accelerator
        rank, world = accelerator.process_index, accelerator.num_processes
        rate = learning_rate(self.done, trainer)
        for group in self.optimiser.param_groups:
            group["lr"] = rate * (trainer.muon_lr / trainer.lr if group.get("orthogonal") else 1.0)
        torch.manual_seed(cfg.seed * 1_000_003 + self.done * world + rank)  # dropout: a function of the step as well
        parts = [*batch.rows.tensors(), torch.from_numpy(batch.tasks)]
        starts = range(0, len(parts[0]), trainer.micro_rows)
        per_target: list[Tensor] = []
        for start in starts:
            *micro, tasks = [part[start : start + trainer.micro_rows].to(accelerator.device) for part in parts]
            last = start == starts[-1]  # only then are gradients exchanged
            with nullcontext() if last else accelerator.no_sync(self.objective):
                with self.autocast():
                    loss = self.objective(*micro)
                # DDP averages over processes: times world, so that the sum is divided by the global count once.
                accelerator.backward(loss.total * (world / batch.targets))
            self.meter.add(loss, micro[2], tasks)
            per_target.append(loss.per_target)
        if cfg.tuning.method == "new_rows" or self.done < cfg.tuning.warmup_new_rows:
            freeze_all_but_new_rows(self.plain.lm, self.keeping.vocabulary.text_size)
        norm = whole(accelerator.clip_grad_norm_(self.objective.parameters(), trainer.grad_clip))
        if not torch.isfinite(norm):
            raise NonFiniteLoss(non_finite_message(self.done, batch, torch.cat(per_target)))
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        self.done += 1
        self.meter.step(batch)
        return rate, float(norm)
