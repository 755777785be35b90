"""The loss: cross-entropy summed over target tokens, divided by their GLOBAL number, and its parts per level.

Dividing by the number of targets of the whole step (all processes, all accumulation steps) makes each target
token weigh the same; a mean of micro-batch means would let a 20-token transcript outweigh a 600-token
utterance.

The head runs on target positions only, in chunks, and the gradient of each chunk is made while its logits are
in cache (as in Liger and Apple's cut cross-entropy): the [targets, vocabulary] logits never exist as a whole.
torch's own chunked function (from 2.13) gives one sum; ours gives the loss and correctness of every target as well,
which the log per level needs, so that with ``trainer.head=torch`` those cost the head's products once more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function

from lm.packing import IGNORE
from lm.vocabulary import AudioVocabulary

HEADS = ("chunked", "plain", "torch")  # ours, all logits at once, torch's own
CHUNK = 512  # targets per chunk: 512 × 7,000 fp32 logits are 14 MB


class _LinearCrossEntropy(Function):
    """``sum shares * cross_entropy(hidden @ weight.T, targets)``; also per-target losses and correctness."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, shares: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        losses = torch.empty(len(targets), dtype=torch.float32, device=hidden.device)
        correct = torch.empty(len(targets), dtype=torch.bool, device=hidden.device)
        need = hidden.requires_grad or weight.requires_grad
        grad_hidden = torch.empty_like(hidden) if need else hidden.new_empty(0)
        grad_weight = torch.zeros_like(weight, dtype=torch.float32) if need else hidden.new_empty(0)
        cast = weight.to(hidden.dtype)
        for start in range(0, len(targets), CHUNK):
            part = slice(start, start + CHUNK)
            inputs, wanted = hidden[part], targets[part, None]
            logits = (inputs @ cast.T).float()  # [chunk, rows]
            correct[part] = logits.argmax(-1) == wanted[:, 0]
            logits = torch.log_softmax(logits, dim=-1)
            losses[part] = -logits.gather(1, wanted)[:, 0]
            if need:
                probability = logits.exp_()
                probability.scatter_add_(1, wanted, torch.full_like(wanted, -1, dtype=probability.dtype))
                slope = probability.mul_(shares[part, None]).to(hidden.dtype)
                grad_hidden[part] = slope @ cast
                grad_weight += (slope.T @ inputs).float()
        ctx.save_for_backward(grad_hidden, grad_weight)
        ctx.weight_dtype = weight.dtype
        ctx.mark_non_differentiable(losses, correct)
        return (losses * shares).sum(), losses, correct

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *_: Any) -> tuple[Tensor, Tensor, None, None]:  # type: ignore[override]
        grad_hidden, grad_weight = ctx.saved_tensors
        return grad_hidden * grad.to(grad_hidden.dtype), (grad_weight * grad).to(ctx.weight_dtype), None, None


def torch_has_it() -> bool:
    """Whether this torch has a chunked linear cross-entropy of its own."""
    return hasattr(nn, "LinearCrossEntropyOptions")


def linear_cross_entropy(
    hidden: Tensor, weight: Tensor, targets: Tensor, shares: Tensor, head: str = "chunked"
) -> tuple[Tensor, Tensor, Tensor]:
    """``sum shares * cross_entropy(hidden @ weight.T, targets)``, losses and correctness of each target.

    Args:
        hidden: ``[targets, width]``.
        weight: ``[rows, width]``.
        targets: ``[targets]`` rows of ``weight``.
        shares: ``[targets]`` weight of each target in the sum.
        head: one of HEADS.
    """
    if head == "chunked":
        return _LinearCrossEntropy.apply(hidden, weight, targets, shares)
    if head == "plain":
        logits = (hidden @ weight.to(hidden.dtype).T).float()
        losses = nn.functional.cross_entropy(logits, targets, reduction="none")
        return (losses * shares).sum(), losses.detach(), logits.argmax(-1) == targets
    with torch.no_grad():
        _, losses, correct = _LinearCrossEntropy.apply(hidden.detach(), weight.detach(), targets, shares)
    total = hidden.new_zeros((), dtype=torch.float32)
    for share in shares.unique():  # it weighs all targets of a call alike
        chosen = shares == share
        part = nn.functional.linear_cross_entropy(
            hidden[chosen],
            weight.to(hidden.dtype),
            targets[chosen],
            reduction="sum",
            options=nn.LinearCrossEntropyOptions(),
        )
        total = total + share * part.float()
    return total, losses, correct


@dataclass
class LossParts:
    """Sums over targets, by kind; kinds are the codebook levels, then ``other`` (text, end tokens).

    Attributes:
        total: scalar, carries the gradient.
        loss, correct, count: ``[levels + 1]`` float64 sums, detached.
        per_target: ``[targets]`` losses in the order of the targets.
    """

    total: Tensor
    loss: Tensor
    correct: Tensor
    count: Tensor
    per_target: Tensor


class Objective(nn.Module):
    """The language model together with its loss: one forward, so that DDP and FSDP see one module.

    Args:
        lm: a LLaMA-style causal LM of transformers (``lm.model`` backbone, ``lm.lm_head``).
        level_weights: weight of each level's targets in the gradient; reported losses are never weighted.
        legal_only: normalise each target over the tokens that are legal at its place (the codes of its level,
            and the end of audio where a frame begins) instead of over the whole vocabulary. Generation masks
            the others anyway; training needs a third of the head's work. Text targets are normalised over
            text.
        head: one of HEADS; ``plain`` takes more memory, the numbers are the same.
        everything: control tokens are targets too (``trainer.loss_on=everything``), normalised together with text.
    """

    def __init__(
        self,
        lm: nn.Module,
        vocabulary: AudioVocabulary,
        legal_only: bool = False,
        level_weights: Sequence[float] | None = None,
        head: str = "chunked",
        everything: bool = False,
    ) -> None:
        super().__init__()
        weights = [*(level_weights or [1.0] * vocabulary.levels), 1.0]  # the last: text and control tokens
        if len(weights) != vocabulary.levels + 1:
            raise ValueError(f"level_weights must have {vocabulary.levels} values, got {len(weights) - 1}.")
        self.register_buffer("kind_weights", torch.tensor(weights), persistent=False)
        self.lm = lm
        self.levels = vocabulary.levels
        self.legal_only = legal_only
        self.head = head
        end = vocabulary.control_id("</audio>")
        starts = [vocabulary.block(level).start for level in range(vocabulary.levels)]
        self.register_buffer("edges", torch.tensor([*starts, vocabulary.used]), persistent=False)
        rows = [torch.tensor(vocabulary.block(level)) for level in range(vocabulary.levels)]
        rows[0] = torch.cat([torch.tensor([end]), rows[0]])  # audio may end where a frame begins
        if everything:
            rows.append(torch.arange(vocabulary.block(0).start))
        else:
            text = torch.arange(vocabulary.text_size)
            rows.append(torch.cat([text, torch.tensor([vocabulary.control_id("</text>")])]))
        self.legal_rows = rows  # per kind, ascending
        self.end = end

    def forward(self, input_ids: Tensor, position_ids: Tensor, targets: Tensor) -> LossParts:
        """``[rows, length]`` each, as `lm.packing.PackedRows` describes them."""
        # No mask and no cache: the only setting in which transformers keeps packed documents apart.
        hidden = self.lm.model(input_ids=input_ids, position_ids=position_ids, use_cache=False).last_hidden_state
        learnt = targets != IGNORE
        wanted = targets[learnt]  # [targets]
        hidden = hidden[learnt]  # [targets, width]
        weight = self.lm.lm_head.weight
        level = torch.bucketize(wanted, self.edges, right=True) - 1  # −1 for text and control tokens
        level = torch.where(level < 0, self.levels, level)
        shares = self.kind_weights[level]
        if self.legal_only:
            total, losses, correct = self._by_kind(hidden, weight, wanted, level, shares)
        else:
            total, losses, correct = linear_cross_entropy(hidden, weight, wanted, shares, self.head)
        kinds = torch.nn.functional.one_hot(level, self.levels + 1).double()  # [targets, kinds]
        loss = losses.detach().double() @ kinds
        return LossParts(total, loss, correct.double() @ kinds, kinds.sum(0), losses.detach())

    def _by_kind(
        self, hidden: Tensor, weight: Tensor, wanted: Tensor, level: Tensor, shares: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        losses = torch.zeros(len(wanted), dtype=torch.float32, device=hidden.device)
        correct = torch.zeros(len(wanted), dtype=torch.bool, device=hidden.device)
        total = hidden.new_zeros((), dtype=torch.float32) + 0.0 * weight[0, 0]
        group = torch.where(wanted == self.end, 0, level)  # the end of audio competes with level 0
        for kind, rows in enumerate(self.legal_rows):
            chosen = (group == kind).nonzero()[:, 0]
            if not len(chosen):
                continue
            rows = rows.to(hidden.device)
            places = torch.searchsorted(rows, wanted[chosen])
            part, part_losses, part_correct = linear_cross_entropy(
                hidden[chosen], weight[rows], places, shares[chosen], self.head
            )
            total = total + part
            losses[chosen] = part_losses
            correct[chosen] = part_correct
        return total, losses, correct
