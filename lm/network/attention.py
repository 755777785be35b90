"""Attention inside each packed document, without a mask over the whole row.

transformers keeps packed documents apart by a dense ``[row, row]`` mask, so that a row of six documents costs six times
what they need; on a CPU that was half of a training step in rows of 1,280. Here each document attends to itself alone
through the causal kernel. The numbers are those of the masked row, up to rounding.

It is registered with transformers under a name, and used by any model whose attention goes through its interface. It
reads the documents from ``position_ids``, as transformers does, and leaves whatever is no packed row (generation with a
cache, padded batches with a mask) to ``sdpa``. Shapes change with every row, so that it does not go with torch.compile.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

NAME = "by_document"


def document_lengths(position_ids: Tensor) -> list[list[int]]:
    """Ids of each document, row by row; one begins wherever ``position_ids [rows, length]`` do not go on by one."""
    begins = torch.ones_like(position_ids, dtype=torch.bool)
    begins[:, 1:] = position_ids.diff(dim=1) != 1
    lengths = []
    for row in begins.cpu():
        edges = [*row.nonzero()[:, 0].tolist(), len(row)]
        lengths.append([stop - start for start, stop in zip(edges, edges[1:], strict=False)])
    return lengths


def attend_by_document(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    position_ids: Tensor | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """An attention function of transformers: ``[rows, heads, length, dim]`` → ``[rows, length, heads, dim]``."""
    rows, heads, length, dim = query.shape
    if attention_mask is not None or position_ids is None or length != key.shape[2] or length == 1:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **options
        )
    if key.shape[1] != heads:
        key, value = (part.repeat_interleave(heads // part.shape[1], dim=1) for part in (key, value))
    outputs = []
    for row, lengths in enumerate(document_lengths(position_ids.expand(rows, -1))):
        # split, whose backward is one concatenation; slices would each make a gradient of the whole row.
        pieces = [part[row].split(lengths, dim=1) for part in (query, key, value)]
        outputs += [
            scaled_dot_product_attention(q[None], k[None], v[None], dropout_p=dropout, is_causal=True, scale=scaling)[0]
            for q, k, v in zip(*pieces, strict=True)
        ]
    joined = torch.cat([output.transpose(0, 1) for output in outputs])  # [rows · length, heads, dim]
    return joined.view(rows, length, heads, dim), None


def mask_where_needed(
    batch_size: int, q_length: int, kv_length: int, attention_mask: Tensor | None = None, **options: Any
) -> Tensor | None:
    """A mask function of transformers: none for packed rows, ``sdpa``'s for everything else."""
    if attention_mask is None and q_length == kv_length and q_length > 1:
        return None
    return sdpa_mask(batch_size, q_length, kv_length, attention_mask=attention_mask, **options)


AttentionInterface.register(NAME, attend_by_document)
AttentionMaskInterface.register(NAME, mask_where_needed)


def attention_of(choice: str, device: torch.device, compiled: bool) -> str:
    """``trainer.attention``, with ``auto`` resolved: by document on a CPU without torch.compile, else ``sdpa``."""
    if choice != "auto":
        return choice
    return NAME if device.type == "cpu" and not compiled else "sdpa"


LENGTHS = (6, 7)  # ids of the two documents by which a model is tried


@torch.no_grad()
def hidden_states_apart(model: PreTrainedModel) -> Tensor | None:
    """Hidden states ``[1, length, width]`` of a short document; None where one before it in its row changes them.

    Raises:
        TypeError, ValueError, AttributeError, RuntimeError: the backbone takes no packed rows at all.
    """
    rows = len(model.get_input_embeddings().weight)
    device = model.get_input_embeddings().weight.device
    ids = torch.randint(rows, (1, sum(LENGTHS)), generator=torch.Generator().manual_seed(0)).to(device)
    positions = torch.cat([torch.arange(length) for length in LENGTHS])[None].to(device)
    second = slice(LENGTHS[0], None)
    training = model.training
    model.eval()
    try:
        alone = model.base_model(input_ids=ids[:, second], position_ids=positions[:, second], use_cache=False)
        packed = model.base_model(input_ids=ids, position_ids=positions, use_cache=False)
    finally:
        model.train(training)
    states = alone.last_hidden_state
    # Values that are not finite are another fault than reading each other.
    apart = torch.allclose(packed.last_hidden_state[:, second], states, rtol=1e-3, atol=1e-3, equal_nan=True)
    return states if apart else None


def set_attention(model: PreTrainedModel, name: str) -> bool:
    """Let ``model`` use the attention ``name``; False where it cannot, and stays with what transformers chose.

    That is attention which is not causal over all of a document (a sliding window), or would let packed documents read
    each other.
    """
    kinds = set(getattr(model.config, "layer_types", None) or ["full_attention"])
    if name == NAME and (kinds != {"full_attention"} or getattr(model.config, "sliding_window", None)):
        return False
    before = model.config._attn_implementation
    try:
        expected = hidden_states_apart(model)
        model.set_attn_implementation(name)
        found = hidden_states_apart(model)
        fits = found is not None and (expected is None or torch.allclose(found, expected, rtol=1e-3, atol=1e-3))
    except (TypeError, ValueError, ImportError):  # models that know one kind of attention only
        fits = False
    if not fits:
        model.set_attn_implementation(before)
    return fits
