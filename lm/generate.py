"""Batched generation of audio tokens: left padding, a KV cache, legal tokens only.

    prompts = [render(task.document(request, with_target=False), vocabulary, tokenizer).ids for request in requests]
    clips = generate(model, vocabulary, prompts, max_frames=120, seeds=[0, 1, 2])

All items begin a frame at the same step, so the head computes only the rows that are legal there: the codes of one
level, and the end of audio where a frame begins. Nothing else can be emitted, padding rows included.
Texts (of recognition and captioning) are written by `lm.writing`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from lm.documents import without_condition
from lm.sampling import Sampling, draw_unlike, uniform_streams
from lm.vocabulary import AudioVocabulary, VocabularyError


@dataclass
class Generation:
    """One generated clip.

    Attributes:
        codes: ``[frames, levels]`` int64, raw.
        ended: the model ended the clip; False where it hit ``max_frames``.
        legal: every id is a code of its level (checked after the fact).
        log_probability: mean log-probability per token under the unfiltered distribution over legal tokens,
            nats.
        seed: of its random numbers.
    """

    codes: np.ndarray
    ended: bool
    legal: bool
    log_probability: float
    seed: int

    @property
    def n_frames(self) -> int:
        """Frames generated."""
        return len(self.codes)


@torch.inference_mode()
def generate(
    model: PreTrainedModel,
    vocabulary: AudioVocabulary,
    prompts: Sequence[Sequence[int] | np.ndarray],
    max_frames: int | Sequence[int],
    min_frames: int = 1,
    sampling: Sampling | None = None,
    seeds: Sequence[int] | None = None,
    batch_size: int = 64,
    on_progress: Callable[[int], None] | None = None,
) -> list[Generation]:
    """Continue prompts that end in ``<audio>``; results in the order of the prompts.

    Args:
        model: flat-pattern causal LM in eval mode.
        max_frames: limit per clip, one number or one per prompt.
        min_frames: the end is not legal before; at least 1, so that there is something to decode.
        seeds: one per prompt; default 0, 1, 2, …
        batch_size: prompts generated together. Prompts of similar length share a batch.
        on_progress: called with the number of clips that have just been finished.

    Raises:
        ValueError: a prompt that does not end in ``<audio>``.
    """
    sampling = sampling or Sampling()
    seeds = list(range(len(prompts))) if seeds is None else list(seeds)
    limits = [max_frames] * len(prompts) if isinstance(max_frames, int) else list(max_frames)
    start = vocabulary.control_id("<audio>")
    for number, prompt in enumerate(prompts):
        if not len(prompt) or prompt[-1] != start:
            raise ValueError(
                f"prompt {number} does not end in <audio>: render the document with an open audio segment."
            )
    order = sorted(range(len(prompts)), key=lambda i: (len(prompts[i]), i))
    results: list[Generation | None] = [None] * len(prompts)
    for first in range(0, len(order), batch_size):
        chosen = order[first : first + batch_size]
        batch = _Batch(model, vocabulary, [prompts[i] for i in chosen], sampling.guidance)
        clips = batch.run([limits[i] for i in chosen], max(1, min_frames), sampling, [seeds[i] for i in chosen])
        for i, clip in zip(chosen, clips, strict=True):
            results[i] = clip
        if on_progress:
            on_progress(len(chosen))
    return [clip for clip in results if clip is not None]


class _Batch:
    """One batch on its way; items leave it as they end, so that the last long clip does not drag the others along."""

    def __init__(
        self, model: PreTrainedModel, vocabulary: AudioVocabulary, prompts: list[Any], guidance: float
    ) -> None:
        self.model, self.vocabulary, self.guidance = model, vocabulary, guidance
        if guidance != 1:  # the second half of the rows is the same clips without their text
            prompts = prompts + [without_condition(prompt, vocabulary) for prompt in prompts]
        self.device = model.device
        width = max(len(prompt) for prompt in prompts)
        ids = torch.full((len(prompts), width), vocabulary.control_id("<pad>"), device=self.device)
        mask = torch.zeros_like(ids)
        for row, prompt in enumerate(prompts):
            ids[row, width - len(prompt) :] = torch.as_tensor(np.asarray(prompt, dtype=np.int64), device=self.device)
            mask[row, width - len(prompt) :] = 1
        self.prompt, self.mask = ids, mask
        self.position = mask.sum(1)  # position of the next token of each row
        self.cache = DynamicCache(config=model.config)
        head = model.get_output_embeddings().weight
        end = torch.tensor([vocabulary.control_id("</audio>")], device=self.device)
        blocks = [torch.tensor(vocabulary.block(level), device=self.device) for level in range(vocabulary.levels)]
        # Row 0 of level 0 is the end of audio; the codes follow.
        self.rows = [torch.cat([end, blocks[0]]), *blocks[1:]]
        self.heads = [head[rows] for rows in self.rows]

    def _forward(self, ids: Tensor, positions: Tensor) -> Tensor:
        """Hidden state of the last position, ``[items, width]``; the cache grows by ``ids [items, new]``."""
        out = self.model.model(
            input_ids=ids,
            attention_mask=self.mask,
            position_ids=positions,
            past_key_values=self.cache,
            use_cache=True,
        )
        return out.last_hidden_state[:, -1]

    def run(self, limits: list[int], min_frames: int, sampling: Sampling, seeds: list[int]) -> list[Generation]:
        levels = self.vocabulary.levels
        count, steps = len(seeds), max(limits) * levels + 1
        # Two numbers per step: the second is for a second draw, so that the first stream never shifts.
        uniform = uniform_streams(seeds, 2 * steps).view(count, steps, 2).to(self.device)
        tokens = torch.zeros(count, steps, dtype=torch.long, device=self.device)
        columns = torch.zeros(count, levels, max(limits) + 1, dtype=torch.long, device=self.device)
        score = torch.zeros(count, dtype=torch.float64, device=self.device)
        length = torch.zeros(count, dtype=torch.long, device=self.device)
        ended = torch.zeros(count, dtype=torch.bool, device=self.device)
        limit = torch.tensor(limits, device=self.device)
        active = torch.arange(count, device=self.device)  # items still in the batch
        hidden = self._forward(self.prompt, (self.mask.cumsum(1) - 1).clamp(min=0))
        for step in range(steps):
            frame, level = divmod(step, levels)
            logits = (hidden @ self.heads[level].T).float()
            if self.guidance != 1:  # in log-probabilities, before anything becomes −inf
                given, free = torch.log_softmax(logits, -1).chunk(2)
                logits = free + self.guidance * (given - free)
            if level == 0:
                if frame < min_frames:
                    logits[:, 0] = -torch.inf
                # At its limit an item may still end by itself; whatever else it draws is not kept.
            window = min(sampling.repetition_window, frame)
            recent = columns[active, level, frame - window : frame]
            choice = draw_unlike(logits, uniform[active, step], recent, sampling, level)
            columns[active, level, frame] = choice
            drawn = self.rows[level][choice]
            keep = torch.ones(len(active), dtype=torch.bool, device=self.device)
            score[active] += torch.log_softmax(logits.double(), -1).gather(1, choice[:, None])[:, 0]
            if level == 0:
                is_end = choice == 0
                ended[active[is_end]] = True
                keep = ~(is_end | (frame >= limit[active]))
                length[active[keep]] = frame + 1
                full = ~keep & ~is_end
                score[active[full]] -= torch.log_softmax(logits.double(), -1).gather(1, choice[:, None])[full, 0]
            if not keep.all():
                active, drawn = active[keep], drawn[keep]
                if not len(active):
                    break
                if self.guidance != 1:
                    keep = keep.repeat(2)
                self.cache.batch_select_indices(keep.nonzero()[:, 0])
                self.mask, self.position = self.mask[keep], self.position[keep]
            tokens[active, step] = drawn
            if self.guidance != 1:
                drawn = drawn.repeat(2)
            self.mask = torch.cat([self.mask, self.mask.new_ones(len(self.mask), 1)], dim=1)
            hidden = self._forward(drawn[:, None], self.position[:, None])
            self.position = self.position + 1
        return [
            self._clip(tokens[i, : int(length[i]) * levels], bool(ended[i]), float(score[i]), seeds[i])
            for i in range(count)
        ]

    def _clip(self, ids: Tensor, ended: bool, score: float, seed: int) -> Generation:
        levels = self.vocabulary.levels
        table = ids.view(-1, levels).cpu().numpy()
        try:
            codes, legal = self.vocabulary.ids_to_codes(table), True
        except VocabularyError:  # cannot happen unless the mask above is broken: reported, never hidden
            codes, legal = np.zeros_like(table), False
        return Generation(codes, ended, legal, score / (len(ids) + ended) if len(ids) else score, seed)
