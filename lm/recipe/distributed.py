"""Weights and optimiser of a model whose parts lie on several processes (FSDP2), as whole tensors.

`lm.network.objective.Objective` is the root unit. It reads the head's weight directly, so the head must stay in the
root: it has no ``get_output_embeddings``, by which accelerate would find the head and make it a unit of its own.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.tensor import DTensor

WHOLE = StateDictOptions(full_state_dict=True, cpu_offload=True)


def whole(value: Tensor) -> Tensor:
    """A tensor of which each process holds a part, put together."""
    return value.full_tensor() if isinstance(value, DTensor) else value


def gather_model(objective: nn.Module) -> dict[str, Tensor]:
    """Weights of ``objective.lm`` by name; on the first process, empty on the others. All processes must call it."""
    state = get_model_state_dict(objective, options=WHOLE)
    return {name.removeprefix("lm."): value for name, value in state.items() if name.startswith("lm.")}


def gather_optimiser(objective: nn.Module, optimiser: torch.optim.Optimizer) -> dict[str, Any]:
    """State of the optimiser by parameter name; on the first process. All processes must call it."""
    return get_optimizer_state_dict(objective, optimiser, options=WHOLE)


def scatter_optimiser(objective: nn.Module, optimiser: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Give each process its part of what `gather_optimiser` returned; works for one process as well."""
    options = StateDictOptions(full_state_dict=True)
    set_optimizer_state_dict(objective, optimiser, state, options=options)
