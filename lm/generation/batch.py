"""A batch of clips that are generated together, one frame per step; clips may join it between steps, and leave it as
they end.

    batch = open_batch(model, vocabulary, Sampling(), Engine())
    batch.join([Wanted("a", prompt, limit=120, least=1, seed=0)])
    while len(batch):
        for name, codes in batch.step(): ...   # codes [1, levels] of each clip
    batch.left["a"]                            # its Generation

What is generated for a clip follows from its prompt and its seed, whatever else is in the batch and whenever it joined.
"""

from __future__ import annotations

from collections.abc import Container, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from lm.generation.decoding import Engine, FixedCache, GrowingCache, open_cache, padded
from lm.generation.sampling import Sampling, draw_unlike, uniform_streams
from lm.network.depth import DepthLM
from lm.network.head import head_of
from lm.sequences.documents import folded, without_condition
from lm.sequences.patterns import NONE
from lm.sequences.vocabulary import AudioVocabulary, VocabularyError

ENDLESS = 1 << 40  # frames of a clip whose length is not known yet


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


def joined(clips: Sequence[Generation], limit: int | None = None) -> Generation:
    """Clips that follow each other as one, cut off at ``limit`` frames, with the seed of the first; the log-probability
    weighs them by frames.
    """
    if len(clips) == 1:
        return clips[0]
    codes = np.concatenate([clip.codes for clip in clips])
    return Generation(
        codes[:limit],
        all(clip.ended for clip in clips) and (limit is None or len(codes) <= limit),
        all(clip.legal for clip in clips),
        float(np.average([clip.log_probability for clip in clips], weights=[clip.n_frames for clip in clips])),
        clips[0].seed,
    )


@dataclass(frozen=True)
class Wanted:
    """A clip that is to be generated.

    Attributes:
        name: by which it is known in the batch.
        prompt: ids that end in ``<audio>``.
        limit: frames at which it is cut off.
        least: frames before which its end is not legal.
        seed: of its random numbers.
    """

    name: Hashable
    prompt: np.ndarray
    limit: int
    least: int
    seed: int


def open_batch(model: PreTrainedModel, vocabulary: AudioVocabulary, sampling: Sampling, engine: Engine) -> Batch:
    """An empty batch of ``model``, of any pattern and any variant."""
    return (DepthBatch if isinstance(model, DepthLM) else Batch)(model, vocabulary, sampling, engine)


class Batch:
    """Clips on their way. All are at the same level, each at its own frame.

    Attributes:
        names: of the clips that are in it; ``len(batch)`` counts them.
        left: what came of those that have ended, by name.
    """

    def __init__(self, model: Any, vocabulary: AudioVocabulary, sampling: Sampling, engine: Engine) -> None:
        self.model, self.vocabulary, self.sampling, self.engine = model, vocabulary, sampling, engine
        self.guided = sampling.guidance != 1  # then the second half of the rows is the same clips without their text
        self.device = model.device
        self.delays = vocabulary.order.delays(vocabulary.levels)
        self.late = max(self.delays)  # steps after which a frame is whole
        self.end = vocabulary.control_id("</audio>")
        end = torch.tensor([self.end], device=self.device)
        blocks = [torch.tensor(vocabulary.block(level), device=self.device) for level in range(vocabulary.levels)]
        # Row 0 of level 0 is the end of audio; the codes follow.
        self.ids = [torch.cat([end, blocks[0]]), *blocks[1:]]
        self._prepare()
        self.names: list[Hashable] = []
        self.seeds: list[int] = []
        self.left: dict[Hashable, Generation] = {}
        self.cache: GrowingCache | FixedCache | None = None
        self.state: dict[str, Tensor] = {}  # a row per clip

    def __len__(self) -> int:
        return len(self.names)

    @property
    def hidden(self) -> Tensor:
        """State of each row's last position, ``[rows, width]``."""
        assert self.cache is not None
        return self.cache.hidden

    # ---- who is in it ------------------------------------------------------------------------------------------
    @torch.inference_mode()
    def join(self, wanted: Sequence[Wanted]) -> None:
        """Take in more clips, between two steps.

        Raises:
            ValueError: into a running batch whose cache cannot grow.
            ModelError: more positions than the model has.
        """
        prompts = [clip.prompt for clip in wanted]
        if self.guided:
            prompts = prompts + [without_condition(prompt, self.vocabulary) for prompt in prompts]
        prompts = [self._layout(np.asarray(prompt, dtype=np.int64)) for prompt in prompts]
        ids, mask = padded(prompts, self.vocabulary.control_id("<pad>"), self.device)
        longest = max(clip.limit for clip in wanted)
        following = [self._positions(clip.limit) for clip in wanted] * (2 if self.guided else 1)
        cache = open_cache(self.engine, self.model, ids, mask, following)
        count, levels, steps = len(wanted), self.vocabulary.levels, longest + self.late + 1
        whole = {"dtype": torch.long, "device": self.device}
        # Two numbers per token: the second is for a second draw, so that the first stream never shifts.
        uniform = uniform_streams([clip.seed for clip in wanted], 2 * steps * levels).view(count, steps * levels, 2)
        new = {
            "at": torch.zeros(count, **whole),  # steps taken
            "length": torch.full((count,), ENDLESS, **whole),  # frames, as soon as that is known
            "limit": torch.tensor([clip.limit for clip in wanted], **whole),
            "least": torch.tensor([max(1, clip.least) for clip in wanted], **whole),
            "ended": torch.zeros(count, dtype=torch.bool, device=self.device),
            "score": torch.zeros(count, dtype=torch.float64, device=self.device),
            "uniform": uniform.to(self.device),
            "tokens": torch.zeros(count, longest + 1, levels, **whole),  # ids
            "columns": torch.zeros(count, longest + 1, levels, **whole),  # of the logits that they were drawn from
        }
        if not len(self) or self.cache is None:
            self.cache, self.state = cache, new
        elif isinstance(self.cache, GrowingCache) and isinstance(cache, GrowingCache):
            self.cache.join(cache, 2 if self.guided else 1)
            self.state = {key: _below(self.state[key], new[key]) for key in new}
        else:
            raise ValueError("a batch with a cache of fixed size takes no clip while it runs: take cache=dynamic.")
        self.names += [clip.name for clip in wanted]
        self.seeds += [clip.seed for clip in wanted]

    @torch.inference_mode()
    def drop(self, names: Container[Hashable]) -> None:
        """Forget these clips, of which nothing more is wanted; between two steps."""
        keep = torch.tensor([name not in names for name in self.names], dtype=torch.bool, device=self.device)
        if not keep.all():
            self._keep(keep)

    def _leave(self, keep: Tensor, *columns: Tensor) -> tuple[Tensor, ...]:
        """Let the clips go that have ended; ``columns`` of those that stay."""
        if not keep.all():
            for row in (~keep).nonzero()[:, 0].tolist():
                of = {key: value[row] for key, value in self.state.items()}
                ids = of["tokens"][: int(of["length"])]
                clip = self._clip(ids, bool(of["ended"]), float(of["score"]), self.seeds[row])
                self.left[self.names[row]] = clip
            columns = tuple(column[keep] for column in columns)
            self._keep(keep)
        return columns

    def _keep(self, keep: Tensor) -> None:
        """Drop the rows of clips where ``keep`` is False."""
        chosen = keep.tolist()
        self.names = [name for name, stays in zip(self.names, chosen, strict=True) if stays]
        self.seeds = [seed for seed, stays in zip(self.seeds, chosen, strict=True) if stays]
        self.state = {key: value[keep] for key, value in self.state.items()}
        if not self.names:
            self.cache = None
        elif self.cache is not None:
            self.cache.keep(keep.repeat(2) if self.guided else keep)

    # ---- one frame further -------------------------------------------------------------------------------------
    @torch.inference_mode()
    def step(self, told: bool = True) -> list[tuple[Hashable, np.ndarray]]:
        """One step further; the frames that are whole then, as (name, codes ``[1, levels]``).

        Args:
            told: False: no frame is told, which saves fetching it.
        """
        levels = self.vocabulary.levels
        for level in range(levels):
            state = self.state
            frame = state["at"] - self.delays[level]
            # At its end a clip has one more token at level 0: the end mark.
            exists = (state["length"] == ENDLESS if level == 0 else frame < state["length"]) & (frame >= 0)
            if not exists.any():
                continue
            logits = self._logits(level)
            if self.guided:  # in log-probabilities, before anything becomes −inf
                given, free = torch.log_softmax(logits, -1).chunk(2)
                logits = free + self.sampling.guidance * (given - free)
            if level == 0:
                # At its limit a clip may still end by itself; whatever else it draws is not kept.
                logits[frame < state["least"], 0] = -torch.inf
            row = torch.arange(len(self), device=self.device)
            uniform = state["uniform"][row, state["at"] * levels + level]
            choice = draw_unlike(logits, uniform, self._recent(row, frame, level), self.sampling, level)
            probability = torch.log_softmax(logits.double(), -1).gather(1, choice[:, None])[:, 0]
            drawn = self.ids[level][choice]
            kept = exists
            if level == 0:
                is_end = exists & (choice == 0)
                full = exists & ~is_end & (frame >= state["limit"])
                state["ended"] |= is_end
                state["length"] = torch.where(is_end | full, frame, state["length"])
                drawn = drawn.masked_fill(full, self.end)
                state["score"][is_end] += probability[is_end]
                kept = exists & ~is_end & ~full
            state["columns"][row[exists], frame[exists], level] = choice[exists]
            state["tokens"][row[kept], frame[kept], level] = drawn[kept]
            state["score"][kept] += probability[kept]
            if level == 0 and not self.late:  # nothing follows the end
                drawn, exists = self._leave(kept, drawn, exists)
                if not len(self):
                    return []
            self._feed(level, drawn, exists)
        self._end_step()
        whole = self.state["at"] - self.late
        self.state["at"] = self.state["at"] + 1
        found: list[tuple[Hashable, np.ndarray]] = []
        if told:
            ready = ((whole >= 0) & (whole < self.state["length"])).nonzero()[:, 0]
            codes = self._codes(self.state["tokens"][ready, whole[ready]])[0]
            found = [(self.names[row], codes[i : i + 1]) for i, row in enumerate(ready.tolist())]
        if self.late:
            self._leave(whole < self.state["length"])
        return found

    def _recent(self, row: Tensor, frame: Tensor, level: int) -> Tensor:
        """``[rows, window]`` the columns that each clip drew last at ``level``; −1 before it began."""
        window = self.sampling.repetition_window
        window = min(window, int(frame.max())) if window else 0
        places = frame[:, None] + torch.arange(-window, 0, device=self.device)
        columns = self.state["columns"]  # a clip that has none left to draw here may be past its last
        return columns[row[:, None], places.clamp(0, columns.shape[1] - 1), level].masked_fill(places < 0, -1)

    def _positions(self, frames: int) -> int:
        """Positions that ``frames`` can take: all their tokens and the end, delays included."""
        return (frames + self.late + 1) * self.vocabulary.levels

    def _layout(self, prompt: np.ndarray) -> np.ndarray:
        return prompt

    def _prepare(self) -> None:
        head = head_of(self.model)
        self.heads = [head.rows(ids) for ids in self.ids]

    def _logits(self, level: int) -> Tensor:
        """``[rows, tokens]`` over the ids that are legal at ``level``."""
        return self.heads[level].logits(self.hidden)

    def _feed(self, level: int, drawn: Tensor, exists: Tensor) -> None:
        """Give the model its own ``drawn [clips]`` ids; rows without a token now (``exists`` False) stand still."""
        self._advance(drawn[:, None], exists)

    def _end_step(self) -> None:
        """After the last level of a step."""

    def _advance(self, ids: Tensor, exists: Tensor) -> None:
        """One position further with ``ids [clips, 1 (, levels)]``."""
        if self.guided:
            ids, exists = torch.cat([ids, ids]), exists.repeat(2)
        assert self.cache is not None
        self.cache.advance(ids, exists)

    def _codes(self, ids: Tensor) -> tuple[np.ndarray, bool]:
        """Raw codes of ``ids [frames, levels]`` and whether each id was a code of its level."""
        table = ids.cpu().numpy()
        try:
            return self.vocabulary.ids_to_codes(table), True
        except VocabularyError:  # cannot happen unless the mask above is broken: reported, never hidden
            return np.zeros_like(table), False

    def _clip(self, ids: Tensor, ended: bool, score: float, seed: int) -> Generation:
        codes, legal = self._codes(ids)
        return Generation(codes, ended, legal, score / (ids.numel() + ended) if len(ids) else score, seed)


def _below(table: Tensor, more: Tensor) -> Tensor:
    """The rows of both ``[rows, …]``, zeros behind those of the shorter second dimension."""
    if table.ndim > 1:
        places = max(table.shape[1], more.shape[1])
        table, more = (
            torch.cat([one, one.new_zeros(len(one), places - one.shape[1], *one.shape[2:])], 1) for one in (table, more)
        )
    return torch.cat([table, more])


class DepthBatch(Batch):
    """A batch of the depth variant: its levels are drawn inside a step, and the temporal model goes one position
    further per step.
    """

    def _layout(self, prompt: np.ndarray) -> np.ndarray:
        return folded(prompt, self.vocabulary)

    def _positions(self, frames: int) -> int:
        return frames + 2

    def _prepare(self) -> None:
        self.step_ids: Tensor | None = None
        self.step_exists: Tensor | None = None

    def _logits(self, level: int) -> Tensor:
        columns = self._columns()
        if self.guided:
            columns = torch.cat([columns, columns])
        return self.model.level_logits(self.hidden, columns[:, :level]).float()

    def _columns(self) -> Tensor:
        if self.step_ids is None:
            self.step_ids = torch.full((len(self), self.vocabulary.levels), NONE, device=self.device)
            self.step_exists = torch.zeros(len(self), dtype=torch.bool, device=self.device)
        return self.step_ids

    def _feed(self, level: int, drawn: Tensor, exists: Tensor) -> None:
        columns = self._columns()
        columns[:, level] = torch.where(exists, drawn, columns[:, level])
        assert self.step_exists is not None
        self.step_exists |= exists

    def _keep(self, keep: Tensor) -> None:
        super()._keep(keep)
        if self.step_ids is not None and self.step_exists is not None:
            self.step_ids, self.step_exists = self.step_ids[keep], self.step_exists[keep]

    def _end_step(self) -> None:
        columns = self._columns()
        assert self.step_exists is not None
        self._advance(columns[:, None], self.step_exists)
        self.step_ids = self.step_exists = None
