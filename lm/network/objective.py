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

from lm.network.head import Head, HeadForm, ModelError, backbone_of, head_form, head_of
from lm.sequences.packing import IGNORE
from lm.sequences.vocabulary import AudioVocabulary

CHUNK = 512  # targets per chunk: 512 × 7,000 fp32 logits are 14 MB


class _LinearCrossEntropy(Function):
    """``sum shares * cross_entropy(logits of the head, targets)``; also per-target losses and correctness."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, form: HeadForm, targets: Tensor, shares: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        losses = torch.empty(len(targets), dtype=torch.float32, device=hidden.device)
        correct = torch.empty(len(targets), dtype=torch.bool, device=hidden.device)
        need = hidden.requires_grad or weight.requires_grad
        grad_hidden = torch.empty_like(hidden) if need else hidden.new_empty(0)
        grad_weight = torch.zeros_like(weight, dtype=torch.float32) if need else hidden.new_empty(0)
        grad_bias = torch.zeros_like(bias, dtype=torch.float32) if need and bias is not None else None
        place = hidden.device.type
        dtype = torch.get_autocast_dtype(place) if torch.is_autocast_enabled(place) else hidden.dtype
        head = Head(weight.to(dtype), bias, form)
        with torch.autocast(place, enabled=False):  # which would cast the weight again for each chunk, twice
            for start in range(0, len(targets), CHUNK):
                part = slice(start, start + CHUNK)
                inputs, wanted = hidden[part].to(dtype), targets[part, None]
                logits = head.logits(inputs)  # [chunk, rows]
                correct[part] = logits.argmax(-1) == wanted[:, 0]
                # of a cap: 1 − tanh²
                damped = None if form.cap is None else 1 - (logits / form.cap).square()
                logits = torch.log_softmax(logits, dim=-1)
                losses[part] = -logits.gather(1, wanted)[:, 0]
                if need:
                    slope = logits.exp_()
                    slope.scatter_add_(1, wanted, torch.full_like(wanted, -1, dtype=slope.dtype))
                    slope = slope.mul_(shares[part, None])
                    if damped is not None:
                        slope = slope.mul_(damped)
                    if form.scale != 1:
                        slope = slope.mul_(form.scale)
                    if grad_bias is not None:
                        grad_bias += slope.sum(0)
                    slope = slope.to(dtype)
                    grad_hidden[part] = slope @ head.weight
                    grad_weight += (slope.T @ inputs).float()
        ctx.save_for_backward(grad_hidden, grad_weight, grad_bias)
        ctx.dtypes = (weight.dtype, None if bias is None else bias.dtype)
        ctx.mark_non_differentiable(losses, correct)
        return (losses * shares).sum(), losses, correct

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *_: Any) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        grad_hidden, grad_weight, grad_bias = ctx.saved_tensors
        of_bias = None if grad_bias is None else (grad_bias * grad).to(ctx.dtypes[1])
        of_weight = (grad_weight * grad).to(ctx.dtypes[0])
        return grad_hidden * grad.to(grad_hidden.dtype), of_weight, of_bias, None, None, None


def torch_has_it() -> bool:
    """Whether this torch has a chunked linear cross-entropy of its own."""
    return hasattr(nn, "LinearCrossEntropyOptions")


def linear_cross_entropy(
    hidden: Tensor, head: Head, targets: Tensor, shares: Tensor, way: str = "chunked"
) -> tuple[Tensor, Tensor, Tensor]:
    """``sum shares * cross_entropy(logits of the head, targets)``, losses and correctness of each target.

    Args:
        hidden: ``[targets, width]``.
        head: of the rows that are normalised over.
        targets: ``[targets]`` rows of ``head``.
        shares: ``[targets]`` weight of each target in the sum.
        way: ``chunked`` (ours), ``plain`` (all logits at once) or ``torch`` (its own).
    """
    if way == "chunked":
        return _LinearCrossEntropy.apply(hidden, head.weight, head.bias, head.form, targets, shares)
    if way == "plain":
        logits = head.logits(hidden)
        losses = nn.functional.cross_entropy(logits, targets, reduction="none")
        return (losses * shares).sum(), losses.detach(), logits.argmax(-1) == targets
    with torch.no_grad():
        _, losses, correct = _LinearCrossEntropy.apply(
            hidden.detach(), head.weight.detach(), None, head.form, targets, shares
        )
    total = hidden.new_zeros((), dtype=torch.float32)
    for share in shares.unique():  # it weighs all targets of a call alike
        chosen = shares == share
        part = nn.functional.linear_cross_entropy(
            hidden[chosen],
            head.weight.to(hidden.dtype),
            targets[chosen],
            reduction="sum",
            options=nn.LinearCrossEntropyOptions(),
        )
        total = total + share * part.float()
    return total, losses, correct


def anchor(head: Head) -> Tensor:
    """0, through which a batch that needs no row of the head still gives it a gradient: processes exchange all."""
    return 0.0 * head.weight[0, 0] + (0.0 if head.bias is None else 0.0 * head.bias[0])


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
        lm: a causal LM of transformers, or a `lm.network.depth.DepthLM`.
        level_weights: weight of each level's targets in the gradient; reported losses are never weighted.
        legal_only: normalise each target over the tokens that are legal at its place (the codes of its level,
            and the end of audio where a frame begins) instead of over the whole vocabulary. Generation masks
            the others anyway; training needs a third of the head's work. Text targets are normalised over
            text.
        head: a way of `linear_cross_entropy`; ``plain`` takes more memory, the numbers are the same.
        everything: control tokens are targets too (``trainer.loss_on=everything``), normalised together with text.

    Raises:
        ModelError: the loss would not be the model's own (`lm.network.head`), or ``head=torch`` cannot make it.
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
        self.form = head_form(lm)
        if head == "torch" and (self.form != HeadForm() or head_of(lm, self.form).bias is not None):
            raise ModelError(
                f"trainer.head=torch knows no bias, scale or cap, as {type(lm).__name__} has: take chunked."
            )
        self.levels = vocabulary.levels
        self.legal_only = legal_only
        self.head = head
        end = vocabulary.control_id("</audio>")
        self.register_buffer("edges", torch.tensor([*vocabulary.starts, vocabulary.used]), persistent=False)
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
        """``[rows, length]`` each, as `lm.sequences.packing.PackedRows` describes them."""
        # No mask and no cache: the only setting in which transformers keeps packed documents apart.
        hidden = backbone_of(self.lm)(input_ids=input_ids, position_ids=position_ids, use_cache=False).last_hidden_state
        learnt = targets != IGNORE
        wanted = targets[learnt]  # [targets]
        hidden = hidden[learnt]  # [targets, width]
        head = head_of(self.lm, self.form)
        level = torch.bucketize(wanted, self.edges, right=True) - 1  # −1 for text and control tokens
        level = torch.where(level < 0, self.levels, level)
        shares = self.kind_weights[level]
        if self.legal_only:
            total, losses, correct = self._by_kind(hidden, head, wanted, level, shares)
        else:
            total, losses, correct = linear_cross_entropy(hidden, head, wanted, shares, self.head)
        kinds = torch.nn.functional.one_hot(level, self.levels + 1).double()  # [targets, kinds]
        loss = losses.detach().double() @ kinds
        return LossParts(total, loss, correct.double() @ kinds, kinds.sum(0), losses.detach())

    def _by_kind(
        self, hidden: Tensor, head: Head, wanted: Tensor, level: Tensor, shares: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        losses = torch.zeros(len(wanted), dtype=torch.float32, device=hidden.device)
        correct = torch.zeros(len(wanted), dtype=torch.bool, device=hidden.device)
        total = hidden.new_zeros((), dtype=torch.float32) + anchor(head)
        group = torch.where(wanted == self.end, 0, level)  # the end of audio competes with level 0
        for kind, rows in enumerate(self.legal_rows):
            chosen = (group == kind).nonzero()[:, 0]
            if not len(chosen):
                continue
            rows = rows.to(hidden.device)
            places = torch.searchsorted(rows, wanted[chosen])
            part, part_losses, part_correct = linear_cross_entropy(
                hidden[chosen], head.rows(rows), places, shares[chosen], self.head
            )
            total = total + part
            losses[chosen] = part_losses
            correct[chosen] = part_correct
        return total, losses, correct
