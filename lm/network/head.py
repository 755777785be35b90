"""The output head of a causal language model: hidden states to logits, for all rows of the vocabulary or for some.

The loss and generation need few rows of many logits, and so compute the head themselves instead of asking the model.
Most models multiply by one matrix; Granite and Cohere scale the product, Gemma 2 caps it, Phi adds a bias. `head_form`
finds out which by comparing with the model's own logits, and refuses a model whose logits are made in another way, or
whose packed documents read each other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import product
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from lm.network.attention import hidden_states_apart

SPREADS = (1.0, 30.0)  # standard deviations of the logits that are compared: a cap shows in large ones only
COLUMNS = 64  # logits of each position that are compared where the head is no plain product
TOLERANCE = 1e-3  # of the largest value: other forms are further off, TF32 is closer


class ModelError(ValueError):
    """A model, a folder of one, or an option of it that cannot be used, with the cure."""


@dataclass(frozen=True)
class HeadForm:
    """``logits = cap · tanh(x / cap)`` of ``x = scale · (hidden @ weight.T + bias)``.

    Attributes:
        scale: 1 where the model has none.
        cap: None where the model has none.
    """

    scale: float = 1.0
    cap: float | None = None


@dataclass(frozen=True)
class Head:
    """Weights and form of a head.

    Attributes:
        weight: ``[rows, width]``.
        bias: ``[rows]`` or None.
    """

    weight: Tensor
    bias: Tensor | None = None
    form: HeadForm = HeadForm()

    def rows(self, rows: Tensor) -> Head:
        """The head of these rows alone."""
        return replace(self, weight=self.weight[rows], bias=None if self.bias is None else self.bias[rows])

    def logits(self, hidden: Tensor) -> Tensor:
        """``[..., width]`` → ``[..., rows]`` float32."""
        return self.finish(hidden @ self.weight.to(hidden.dtype).T)

    def finish(self, product: Tensor) -> Tensor:
        """Logits of the product with the weight, float32."""
        logits = product.float()
        if self.bias is not None:
            logits = logits + self.bias.float()
        if self.form.scale != 1:
            logits = logits * self.form.scale
        if self.form.cap is not None:
            logits = self.form.cap * torch.tanh(logits / self.form.cap)
        return logits


def backbone_of(model: Any) -> Callable[..., Any]:
    """What makes the hidden states: of a causal LM of transformers, or of a `lm.network.depth.DepthLM`."""
    return model.base_model if isinstance(model, PreTrainedModel) else model.model


def head_of(model: Any, form: HeadForm | None = None) -> Head:
    """The head of ``model`` with its weights as they are now.

    Args:
        form: `head_form` of the model; found out where it is not given.
    """
    layer = model.get_output_embeddings()
    return Head(layer.weight, getattr(layer, "bias", None), form or head_form(model))


_forms: WeakKeyDictionary[nn.Module, HeadForm] = WeakKeyDictionary()


def head_form(model: Any) -> HeadForm:
    """The form of the head of ``model``, found once per model by a few tokens.

    Raises:
        ModelError: its logits are made in another way, or documents that are packed into one row read each other.
    """
    model = getattr(model, "lm", model)  # the temporal model of a depth variant
    if model not in _forms:
        training = model.training
        model.eval()
        try:
            _forms[model] = _compare(model)
        finally:
            model.train(training)
    return _forms[model]


@torch.no_grad()
def _compare(model: Any) -> HeadForm:
    name = type(model).__name__
    layer = model.get_output_embeddings()
    if getattr(layer, "weight", None) is None or model.base_model is model:
        raise ModelError(f"{name} has no output head of its own behind its layers: take another model.")
    try:
        hidden = hidden_states_apart(model)
    except (TypeError, ValueError, AttributeError, RuntimeError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise ModelError(f"{name} cannot be run on packed documents ({reason}): take another model.") from None
    if hidden is None:
        raise ModelError(f"{name} lets packed documents read each other: take a model with attention and positions.")
    if not hidden.isfinite().all():
        raise ModelError(f"{name} gives values that are not finite: its weights are damaged.")
    device, rows = layer.weight.device, len(layer.weight)

    def own(states: Tensor) -> Tensor:
        """The model's logits ``[length, rows]`` of hidden states that are put into it."""

        def give(module: nn.Module, given: Any, output: Any) -> Any:
            output.last_hidden_state = states
            return output

        ids = torch.zeros(states.shape[:2], dtype=torch.long, device=device)
        hooks = [part.register_forward_hook(give) for part in {model.base_model, model.get_decoder()}]
        try:
            return model(input_ids=ids, use_cache=False).logits[0].float()
        finally:
            for hook in hooks:
                hook.remove()

    plain = head_of(model, HeadForm())
    spread = plain.logits(hidden).std().clamp(min=1e-6)
    states = [hidden * (wanted / spread) for wanted in SPREADS]
    theirs = [own(state) for state in states]
    if not all(t.shape == (hidden.shape[1], rows) for t in theirs):
        raise ModelError(f"{name} has no logit for each row of its output table: take another model.")
    if all(_close(plain.logits(state)[0], t) for state, t in zip(states, theirs, strict=True)):
        return HeadForm()
    some = torch.randperm(rows, generator=torch.Generator().manual_seed(0))[:COLUMNS].to(device)
    products = [plain.rows(some).logits(state)[0] for state in states]
    for form in _forms_of(model.config):
        shaped = Head(layer.weight, None, form)
        if all(_close(shaped.finish(p), t[:, some]) for p, t in zip(products, theirs, strict=True)):
            return form
    raise ModelError(
        f"{name} makes its logits by more than a product, a bias, a scale and a cap, so that its loss would not be "
        "its own: take another model."
    )


def _close(ours: Tensor, theirs: Tensor) -> bool:
    return float((ours - theirs).abs().max()) <= TOLERANCE * float(theirs.abs().max())


def _forms_of(config: Any) -> Iterator[HeadForm]:
    """Forms whose scale and cap are numbers of the configuration, whatever these are called there."""
    given = config.get_text_config().to_dict().values()
    numbers = sorted({float(n) for n in given if isinstance(n, int | float) and not isinstance(n, bool) and n > 0})
    scales = [1.0, *(number for n in numbers for number in (n, 1 / n))]
    yield from (HeadForm(scale, cap) for cap, scale in product([None, *numbers], scales))
