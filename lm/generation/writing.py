"""Batched generation of text: greedy, with a KV cache; text only, up to ``</text>``.

    prompts = [render(task.document(request, with_target=False), vocabulary, tokenizer).ids for request in requests]
    texts = write(model, vocabulary, tokenizer, prompts, max_tokens=200)

Only text rows and ``</text>`` can be emitted: no audio, no other control token, none of the text tokenizer's specials.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from lm.generation.decoding import Engine, batches, open_cache, padded
from lm.network.head import Head, head_of
from lm.sequences.vocabulary import AudioVocabulary


@dataclass
class Writing:
    """One generated text.

    Attributes:
        text: decoded ids, without ``</text>``.
        ids: text ids.
        ended: the model ended the text; False where it hit ``max_tokens``.
        log_probability: mean log-probability per token under the distribution over legal tokens, nats.
    """

    text: str
    ids: list[int]
    ended: bool
    log_probability: float


@torch.inference_mode()
def write(
    model: PreTrainedModel,
    vocabulary: AudioVocabulary,
    tokenizer: Any,
    prompts: Sequence[Sequence[int] | np.ndarray],
    max_tokens: int = 200,
    batch_size: int = 64,
    engine: Engine | None = None,
) -> list[Writing]:
    """Continue prompts that end in ``<text>``; results in the order of the prompts.

    Args:
        model: flat-pattern causal LM in eval mode.
        tokenizer: the text tokenizer of the model.
        max_tokens: limit per text.
        batch_size: prompts generated together. Prompts of similar length share a batch.
        engine: how the model is run (`lm.generation.decoding`); default a growing cache, without compiling.

    Raises:
        ValueError: a prompt that does not end in ``<text>``.
    """
    special = set(tokenizer.all_special_ids)
    legal = [i for i in range(vocabulary.text_size) if i not in special] + [vocabulary.control_id("</text>")]
    rows = torch.tensor(legal, device=model.device)
    head = head_of(model).rows(rows)
    results: dict[int, Writing] = {}
    for chosen in batches(prompts, vocabulary.control_id("<text>"), "text", batch_size):
        found = _write_batch(
            model, vocabulary, [prompts[i] for i in chosen], rows, head, max_tokens, engine or Engine()
        )
        for i, (ids, ended, score) in zip(chosen, found, strict=True):
            results[i] = Writing(tokenizer.decode(ids), ids, ended, score)
    return [results[i] for i in range(len(prompts))]


def _write_batch(
    model: PreTrainedModel,
    vocabulary: AudioVocabulary,
    prompts: list[Any],
    rows: Tensor,
    head: Head,
    limit: int,
    engine: Engine,
) -> list[tuple[list[int], bool, float]]:
    """(ids, ended, mean log-probability) per prompt; ``head`` is that of the legal ``rows``, the end of text last."""
    count = len(prompts)
    rows_of_ids = [np.asarray(prompt, dtype=np.int64) for prompt in prompts]
    ids, mask = padded(rows_of_ids, vocabulary.control_id("<pad>"), model.device)
    cache = open_cache(engine, model, ids, mask, [limit + 1] * count)
    texts: list[list[int]] = [[] for _ in range(count)]
    ended, scores = [False] * count, [0.0] * count
    active = list(range(count))  # texts leave the batch as they end
    for step in range(limit + 1):
        logits = torch.log_softmax(head.logits(cache.hidden), -1)
        best, choice = logits.max(-1)
        keep = []
        for place, (i, column, value) in enumerate(zip(active, choice.tolist(), best.tolist(), strict=True)):
            is_end = column == len(rows) - 1
            if is_end or step < limit:
                scores[i] += value
            if is_end:
                ended[i] = True
            elif step < limit:
                texts[i].append(int(rows[column]))
                keep.append(place)
        if not keep:
            break
        if len(keep) < len(active):
            stays = torch.zeros(len(active), dtype=torch.bool, device=model.device)
            stays[keep] = True
            cache.keep(stays)
            choice = choice[stays]
            active = [active[place] for place in keep]
        cache.advance(rows[choice][:, None], torch.ones(len(active), dtype=torch.bool, device=model.device))
    return [(texts[i], ended[i], scores[i] / max(1, len(texts[i]) + ended[i])) for i in range(count)]
