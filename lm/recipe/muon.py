"""Muon: momentum whose update is made orthogonal, for the matrices inside the blocks; AdamW for everything
else.

Keller Jordan et al. 2024 (https://kellerjordan.github.io/posts/muon): a transformer of this size reaches a
given loss in clearly fewer tokens than with AdamW, and the extra products are small beside a step.
torch.optim.Muon computes them in bf16, which CPUs without bf16 units emulate slowly; here they run in the
dtype of the weights, and matrices of one shape go through together.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # quintic whose iteration drives singular values to about 1


def orthogonalise(matrices: Tensor, steps: int = 5) -> Tensor:
    """``[count, rows, columns]`` → the same with all singular values near 1 (0.7 … 1.2)."""
    a, b, c = NEWTON_SCHULZ
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(steps):
        square = x @ x.mT
        x = a * x + (b * square + c * square @ square) @ x
    return x.mT if tall else x


class Muon(torch.optim.Optimizer):
    """Muon for parameter groups with ``orthogonal=True``, AdamW for the others.

    Args:
        groups: each with ``params``, ``weight_decay``, ``orthogonal`` and ``lr``.
        momentum: of the orthogonal groups (Nesterov).
        betas: of the AdamW groups.
    """

    def __init__(
        self,
        groups: list[dict[str, Any]],
        lr: float,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.95),
        eps: float = 1e-8,
    ) -> None:
        super().__init__(
            groups, {"lr": lr, "momentum": momentum, "betas": betas, "eps": eps, "orthogonal": False, "step": 0}
        )

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            group["step"] += 1
            parameters = [p for p in group["params"] if p.grad is not None]
            if not parameters:
                continue
            torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
            if group["orthogonal"]:
                self._orthogonal(group, parameters)
            else:
                self._adamw(group, parameters)

    def _orthogonal(self, group: dict[str, Any], parameters: list[Tensor]) -> None:
        by_shape: dict[torch.Size, list[Tensor]] = defaultdict(list)
        for parameter in parameters:
            by_shape[parameter.shape].append(parameter)
        for shape, members in by_shape.items():
            updates = []
            for parameter in members:
                state = self.state[parameter]
                if not state:
                    state["momentum"] = torch.zeros_like(parameter)
                buffer = state["momentum"].lerp_(parameter.grad, 1 - group["momentum"])
                updates.append(parameter.grad.lerp(buffer, group["momentum"]))
            scale = max(1.0, shape[0] / shape[1]) ** 0.5  # equal RMS of the change in every output
            for parameter, update in zip(members, orthogonalise(torch.stack(updates)), strict=True):
                parameter.add_(update, alpha=-group["lr"] * scale)

    def _adamw(self, group: dict[str, Any], parameters: list[Tensor]) -> None:
        first, second = [], []
        for parameter in parameters:
            state = self.state[parameter]
            if not state:
                state["first"], state["second"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
            first.append(state["first"])
            second.append(state["second"])
        gradients = [parameter.grad for parameter in parameters]
        beta1, beta2 = group["betas"]
        torch._foreach_lerp_(first, gradients, 1 - beta1)
        torch._foreach_mul_(second, beta2)
        torch._foreach_addcmul_(second, gradients, gradients, 1 - beta2)
        scale = torch._foreach_sqrt(second)
        torch._foreach_div_(scale, (1 - beta2 ** group["step"]) ** 0.5)
        torch._foreach_add_(scale, group["eps"])
        torch._foreach_addcdiv_(parameters, first, scale, -group["lr"] / (1 - beta1 ** group["step"]))
