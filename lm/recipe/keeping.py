"""How the weights and the optimiser of a training are saved, and loaded again: three ways with the same methods.

    keeping = keeping_of(cfg, sharded)                        # Whole, Sharded (FSDP2) or Adapter (LoRA)
    model = keeping.load_model(checkpoint, build)
    keeping.load_optimiser(checkpoint, by_name, objective, optimiser, device)
    weights = keeping.weights(objective)                      # in all processes
    moments = keeping.moments(objective, optimiser)           # in all processes
    keeping.save_model(folder, weights, final)                # in the first

What is kept in the end (``final``) is a stock model in each of them.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.tensor import DTensor

from lm.model import save_lm
from lm.recipe.tuning import add_lora, load_adapter, merged, save_adapter
from lm.run_state import OPTIMISER_FILE
from training.checkpoint import CheckpointError

Build = Callable[[str | Path | None], tuple[Any, Any, Any]]  # folder → model, vocabulary, text tokenizer


class Whole:
    """Each process has the whole model, and all of it is saved.

    Args:
        cfg: configs/lm_train.yaml.

    Attributes:
        by_name: whether the optimiser's state is saved by the names of the parameters, and not by their numbers.
    """

    by_name = False

    def __init__(self, cfg: DictConfig) -> None:
        self.cfg = cfg

    def load_model(self, checkpoint: Path | None, build: Build) -> Any:
        """The model that is trained: ``build`` of the checkpoint, else of what the training begins with."""
        self.model, self.vocabulary, self.text_tokenizer = build(checkpoint or self.cfg.init)
        return self.model

    def save_model(self, folder: Path, weights: dict[str, Tensor] | None, final: bool) -> None:
        """Write the model into ``folder``; ``weights`` are what `weights` gave."""
        save_lm(folder, self.model, self.vocabulary, self.text_tokenizer, weights)

    def weights(self, objective: nn.Module) -> dict[str, Tensor] | None:
        """Weights by name, where the model's own are not whole; all processes must call it."""
        return None

    def load_optimiser(
        self,
        checkpoint: Path,
        by_name: bool,
        objective: nn.Module,
        optimiser: torch.optim.Optimizer,
        device: torch.device,
    ) -> None:
        """Take up the moments of a checkpoint.

        Raises:
            CheckpointError: they were saved in a way that cannot be taken up here.
        """
        # several processes on CPUs call their device cpu:0, which torch.load does not know
        place = "cpu" if device.type == "cpu" else device
        moments = torch.load(checkpoint / OPTIMISER_FILE, map_location=place, weights_only=True)
        if by_name:  # of a training under FSDP
            set_optimizer_state_dict(objective, optimiser, moments, options=StateDictOptions(full_state_dict=True))
        else:
            optimiser.load_state_dict(moments)

    def moments(self, objective: nn.Module, optimiser: torch.optim.Optimizer) -> dict[str, Any]:
        """What is saved of the optimiser; all processes must call it."""
        return optimiser.state_dict()


class Sharded(Whole):
    """Each process has a part of every tensor (FSDP2); they are put together in the first, the others get nothing.

    `lm.network.objective.Objective` is the root unit. It reads the head's weight directly, so the head must stay in the
    root: it has no ``get_output_embeddings``, by which accelerate would find the head and make it a unit of its own.
    """

    by_name = True
    together = StateDictOptions(full_state_dict=True, cpu_offload=True)

    def weights(self, objective: nn.Module) -> dict[str, Tensor] | None:
        """Those of ``objective.lm``."""
        state = get_model_state_dict(objective, options=self.together)
        return {name.removeprefix("lm."): value for name, value in state.items() if name.startswith("lm.")}

    def load_optimiser(self, checkpoint: Path, by_name: bool, *place: Any) -> None:
        """As `Whole.load_optimiser`."""
        if not by_name:
            raise CheckpointError(f"{checkpoint} was written without FSDP: continue it so, or give init=FOLDER.")
        super().load_optimiser(checkpoint, by_name, *place)

    def moments(self, objective: nn.Module, optimiser: torch.optim.Optimizer) -> dict[str, Any]:
        """By the names of the parameters."""
        return get_optimizer_state_dict(objective, optimiser, options=self.together)


class Adapter(Whole):
    """LoRA: adapters and new rows are saved, and put onto the weights that the training began with."""

    def load_model(self, checkpoint: Path | None, build: Build) -> Any:
        """The model with adapters; new ones, or those of the checkpoint."""
        model = super().load_model(None, build)
        torch.manual_seed(self.cfg.seed)
        self.adapted = add_lora(model, self.cfg.tuning, self.vocabulary)
        if checkpoint:
            load_adapter(self.adapted, checkpoint)
        return self.adapted.base_model.model

    def save_model(self, folder: Path, weights: dict[str, Tensor] | None, final: bool) -> None:
        """Write the adapters; in the end the model, with the adapters in its weights."""
        if final:
            save_lm(folder, merged(self.adapted), self.vocabulary, self.text_tokenizer)
        else:
            save_adapter(self.adapted, folder)


def keeping_of(cfg: DictConfig, sharded: bool) -> Whole:
    """The way for the options of a training that `accelerate launch` may have ``sharded`` (FSDP2)."""
    kind = Sharded if sharded else Adapter if cfg.tuning.method == "lora" else Whole
    return kind(cfg)


def whole(value: Tensor) -> Tensor:
    """A tensor of which each process holds a part, put together."""
    return value.full_tensor() if isinstance(value, DTensor) else value
