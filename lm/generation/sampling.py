"""Choosing the next token: temperature, top-k, top-p and repetition-aware sampling, per level; the legality
mask.

Every item of a batch has its own stream of random numbers, drawn from its own seed, so that what is generated
for it does not depend on the batch it happens to stand in.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Annotated, Any

import torch
from omegaconf import ListConfig
from torch import LongTensor, Tensor
from transformers import LogitsProcessor

from lm.generation.legality import Legality
from lm.sequences.vocabulary import AudioVocabulary
from training.schema import first_fault_in

PER_LEVEL = ("temperature", "top_k", "top_p")


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn. A tuple gives one value per level, a number holds for all levels.

    Attributes:
        temperature: 0 is greedy.
        top_k: keep the k most probable tokens; 0 keeps all.
        top_p: keep the most probable tokens that together reach this probability; 1 keeps all.
        repetition_window: frames; 0 switches repetition-aware sampling off. When the drawn token fills more
            than ``repetition_share`` of the last window of its own level, it is drawn again without top-k and
            top-p (VALL-E 2, Chen et al. 2024, section 3.3).
        guidance: 1 is off; otherwise logits become ``unconditional + guidance · (conditional −
            unconditional)`` (Ho and Salimans 2022), at twice the work, for models trained with
            ``trainer.drop_condition``.
    """

    temperature: Annotated[float | tuple[float, ...], "float or one per level, at least 0"] = 0.8
    top_k: Annotated[int | tuple[int, ...], "int or one per level, at least 0"] = 0
    top_p: Annotated[float | tuple[float, ...], "float or one per level, above 0 and at most 1"] = 0.9
    repetition_window: Annotated[int, "int, at least 0"] = 0
    repetition_share: Annotated[float, "float, from 0 to 1"] = 0.5
    guidance: Annotated[float, "float, at least 0"] = 1.0

    def __post_init__(self) -> None:
        """Raises ValueError where nothing could be drawn."""
        if fault := first_fault_in(self, "sampling."):
            raise ValueError(fault)

    def check_levels(self, levels: int) -> None:
        """Refuse values per level of another number of levels.

        Raises:
            ValueError: naming the key.
        """
        for name in PER_LEVEL:
            given = getattr(self, name)
            if isinstance(given, tuple) and len(given) != levels:
                raise ValueError(
                    f"sampling.{name}={list(given)} has {len(given)} values and the model {levels} levels: give one "
                    "number for all of them, or one per level."
                )

    @classmethod
    def of(cls, decoding: Mapping[str, Any]) -> Sampling:
        """From a task's ``decoding``; what it holds beside sampling is left out."""
        names = {field.name for field in fields(cls)}
        known = {name: decoding[name] for name in names if name in decoding}
        listed = {name: tuple(value) for name, value in known.items() if isinstance(value, list | tuple | ListConfig)}
        return cls(**{**known, **listed})

    def at(self, level: int) -> tuple[float, int, float]:
        """(temperature, top_k, top_p) of a level."""

        def pick(value):  # type: ignore[no-untyped-def]
            return value if isinstance(value, (int, float)) else value[level]

        return float(pick(self.temperature)), int(pick(self.top_k)), float(pick(self.top_p))


def uniform_streams(seeds: list[int], count: int) -> Tensor:
    """``[items, count]`` uniform numbers in [0, 1), row i from ``seeds[i]`` alone."""
    rows = [torch.rand(count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) for seed in seeds]
    return torch.stack(rows)


def draw(logits: Tensor, uniform: Tensor, temperature: float, top_k: int = 0, top_p: float = 1.0) -> Tensor:
    """One token per row.

    Args:
        logits: ``[items, tokens]``; −inf marks what is not allowed.
        uniform: ``[items]`` in [0, 1).

    Returns:
        ``[items]`` int64 columns of ``logits``.
    """
    if temperature == 0:
        return logits.argmax(-1)
    probability = torch.softmax(logits.double() / temperature, dim=-1)
    probability, order = probability.sort(dim=-1, descending=True, stable=True)
    cumulative = probability.cumsum(-1)
    if top_p < 1:
        probability = probability.masked_fill(cumulative - probability >= top_p, 0.0)
    if top_k:
        probability[:, top_k:] = 0.0
    cumulative = probability.cumsum(-1)
    # Inverse of the distribution function at u · total: one comparison per token, the same on every machine.
    place = (cumulative <= uniform.to(cumulative)[:, None] * cumulative[:, -1:]).sum(-1)
    allowed = (probability > 0).sum(-1)
    return order.gather(1, torch.minimum(place, allowed - 1)[:, None])[:, 0]


def draw_unlike(logits: Tensor, uniform: Tensor, recent: Tensor, sampling: Sampling, level: int) -> Tensor:
    """`draw` with the repetition-aware rule.

    Args:
        logits: ``[items, tokens]``.
        uniform: ``[items, 2]``; the second column serves the second draw, so that the first stream never
            shifts.
        recent: ``[items, window]`` the columns of ``logits`` last drawn at this level, −1 for none; may be empty.

    Returns:
        ``[items]`` int64 columns of ``logits``.
    """
    temperature, top_k, top_p = sampling.at(level)
    choice = draw(logits, uniform[:, 0], temperature, top_k, top_p)
    if temperature == 0 or not recent.shape[1]:
        return choice
    repeats = (recent == choice[:, None]).double().sum(1) / (recent >= 0).sum(1).clamp(min=1)
    again = draw(logits, uniform[:, 1], temperature)
    return torch.where(repeats > sampling.repetition_share, again, choice)


class LegalAudio(LogitsProcessor):
    """Legality mask (`lm.generation.legality`) for transformers' own ``generate``."""

    def __init__(self, vocabulary: AudioVocabulary, min_frames: int = 1, max_frames: int | None = None) -> None:
        self.rule = Legality(vocabulary, min_frames, max_frames)
        self.start = vocabulary.control_id("<audio>")

    def __call__(self, input_ids: LongTensor, scores: Tensor) -> Tensor:  # type: ignore[override]
        legal = torch.zeros_like(scores, dtype=torch.bool)
        for row, ids in enumerate(input_ids.tolist()):
            since = len(ids) - ids[::-1].index(self.start) if self.start in ids else 0
            for part in self.rule.after(ids[since:]):
                legal[row, slice(part.start, part.stop) if isinstance(part, range) else part] = True
        return scores.masked_fill(~legal, -torch.inf)
