"""The key-value cache of a batch that is being generated: one that grows, or one of fixed size for torch.compile.

Both are given left-padded prompts, then one position at a time; rows leave the batch as their clips end.

    cache = open_cache(Engine(), model, ids, mask, [600] * len(ids))
    while ...:
        cache.advance(next_ids, exists)   # cache.hidden: [rows, width]
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from omegaconf import DictConfig
from torch import Tensor
from transformers import DynamicCache, StaticCache

from lm.network.head import ModelError, backbone_of

LENGTH_STEP = 256  # caches of fixed size are as long as a multiple of this: fewer shapes to compile


@dataclass(frozen=True)
class Engine:
    """How a model is run for generation.

    Attributes:
        cache: ``dynamic`` grows, and shrinks as clips end; ``static`` keeps its size, as compiling needs it.
        compile: compile the step with torch.compile; needs the static cache.
        backend: of torch.compile.
    """

    cache: str = "dynamic"
    compile: bool = False
    backend: str = "inductor"

    def __post_init__(self) -> None:
        if self.compile and self.cache != "static":
            raise ValueError("compile=true needs cache=static: a growing cache has another shape in every step.")

    @classmethod
    def of(cls, options: DictConfig, device: str) -> Engine:
        """From the keys ``generation.cache`` and ``generation.compile``; by themselves they compile on GPUs.

        Raises:
            ValueError: a growing cache that is to be compiled.
        """
        compiled = (
            device.startswith("cuda") and options.cache != "dynamic" if options.compile is None else options.compile
        )
        chosen = options.cache if options.cache != "auto" else "static" if compiled else "dynamic"
        return cls(chosen, bool(compiled))


def batches(prompts: Sequence[Any], opening: int, what: str, size: int) -> Iterator[list[int]]:
    """Numbers of the ``prompts`` that are continued together: ``size`` of similar length.

    Args:
        opening: the id that each of them ends in, and ``what`` it opens.

    Raises:
        ValueError: a prompt that ends in another.
    """
    for number, prompt in enumerate(prompts):
        if not len(prompt) or prompt[-1] != opening:
            raise ValueError(
                f"prompt {number} does not end in <{what}>: render the document with an open {what} segment."
            )
    order = sorted(range(len(prompts)), key=lambda i: (len(prompts[i]), i))
    yield from (order[first : first + size] for first in range(0, len(order), size))


def padded(prompts: Sequence[np.ndarray], pad: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Ids ``[rows, width (, levels)]`` ``pad`` on the left so that all end at one place, and their mask, 1 on ids."""
    width = max(len(prompt) for prompt in prompts)
    ids = torch.full((len(prompts), width, *prompts[0].shape[1:]), pad)
    mask = torch.zeros(len(prompts), width, dtype=torch.long)
    for row, prompt in enumerate(prompts):
        ids[row, width - len(prompt) :] = torch.from_numpy(prompt)
        mask[row, width - len(prompt) :] = 1
    return ids.to(device), mask.to(device)


def open_cache(
    engine: Engine, model: Any, ids: Tensor, mask: Tensor, following: Sequence[int]
) -> GrowingCache | FixedCache:
    """The cache of ``engine`` after the prompts ``ids [rows, width (, levels)]``, ``mask [rows, width]`` 1 on ids.

    Args:
        model: a causal LM, or a `lm.network.depth.DepthLM`.
        following: positions that may follow each of them.

    Raises:
        ModelError: a row needs more positions than a model with a table of them has.
    """
    config = model.config.get_text_config()
    positions = getattr(config, "max_position_embeddings", None)
    if positions and getattr(config, "rope_parameters", None) is None:
        for length, more in zip(mask.sum(1).tolist(), following, strict=True):
            if length + more > positions:
                raise ModelError(
                    f"{type(model).__name__} has {positions} positions, and a prompt of {length} with up to {more} "
                    "behind it needs more: lower the limit of what is generated."
                )
    if engine.cache == "dynamic":
        return GrowingCache(model, ids, mask)
    return FixedCache(model, ids, mask, max(following), engine)


class GrowingCache:
    """A cache of as many rows as are still in the batch.

    Attributes:
        hidden: ``[rows, width]`` state of each row's last position.
    """

    def __init__(self, model: Any, ids: Tensor, mask: Tensor) -> None:
        self.model, self.mask = model, mask
        self.position = mask.sum(1)  # of the next id of each row
        self.cache = DynamicCache(config=model.config)
        self.hidden = self._forward(ids, (mask.cumsum(1) - 1).clamp(min=0))

    def _forward(self, ids: Tensor, positions: Tensor) -> Tensor:
        out = backbone_of(self.model)(
            input_ids=ids,
            attention_mask=self.mask,
            position_ids=positions,
            past_key_values=self.cache,
            use_cache=True,
        )
        return out.last_hidden_state[:, -1]

    def advance(self, ids: Tensor, exists: Tensor) -> None:
        """One position further with ``ids [rows, 1 (, levels)]``; rows without an id now (``exists`` False) stand."""
        self.mask = torch.cat([self.mask, exists[:, None].to(self.mask)], dim=1)
        hidden = self._forward(ids, self.position[:, None])
        self.hidden = hidden if exists.all() else torch.where(exists[:, None], hidden, self.hidden)
        self.position = self.position + exists.to(self.position)

    def keep(self, keep: Tensor) -> None:
        """Drop the rows where ``keep`` is False; or the numbers of the rows to keep, in their order."""
        self.cache.batch_select_indices(keep.nonzero()[:, 0] if keep.dtype == torch.bool else keep)
        self.mask, self.position, self.hidden = self.mask[keep], self.position[keep], self.hidden[keep]

    def join(self, other: GrowingCache, parts: int = 1) -> None:
        """Take in the rows of another cache, part by part: both hold as many ``parts`` of equal size.

        Places before the first id of all rows are given up, so that a batch that others join for ever stays short.

        Raises:
            ModelError: a model whose layers look back over a window only.
        """
        width = max(int(cache.mask.shape[1] - _empty(cache.mask)) for cache in (self, other))
        for mine, theirs in zip(self.cache.layers, other.cache.layers, strict=True):
            if mine.is_sliding:
                raise ModelError("clips cannot join a batch of a model with sliding windows: generate them alone.")
            mine.keys = torch.cat([_fitted(layer.keys, width, 2) for layer in (mine, theirs)])
            mine.values = torch.cat([_fitted(layer.values, width, 2) for layer in (mine, theirs)])
        self.mask = torch.cat([_fitted(cache.mask, width, 1) for cache in (self, other)])
        self.position = torch.cat([self.position, other.position])
        self.hidden = torch.cat([self.hidden, other.hidden])
        if parts > 1:
            here, there = torch.arange(len(self.mask), device=self.mask.device).split(
                [len(self.mask) - len(other.mask), len(other.mask)]
            )
            order = torch.cat([row for pair in zip(here.chunk(parts), there.chunk(parts), strict=True) for row in pair])
            self.keep(order)


def _empty(mask: Tensor) -> int:
    """Places before the first id of all rows."""
    return int(mask.any(0).int().argmax())


def _fitted(table: Tensor, width: int, axis: int) -> Tensor:
    """``table`` with its last ``width`` places along ``axis``, zeros before them where it has fewer."""
    have = table.shape[axis]
    if have >= width:
        return table.narrow(axis, have - width, width)
    shape = list(table.shape)
    shape[axis] = width - have
    return torch.cat([table.new_zeros(shape), table], axis)


class FixedCache:
    """A cache whose shapes never change: rows that have left the batch go on idly.

    The number of rows is rounded up to a power of two and the length to a multiple of `LENGTH_STEP`, so that few shapes
    are compiled. The cache of the last batch is used again for one of the same shape.

    Attributes:
        hidden: ``[rows, width]`` state of the last position of each row that is still in the batch.
    """

    def __init__(self, model: Any, ids: Tensor, mask: Tensor, longest: int, engine: Engine) -> None:
        count, width = mask.shape
        total = 1 << (count - 1).bit_length()
        length = -(-(width + longest) // LENGTH_STEP) * LENGTH_STEP
        fill = [0] * (total - count)  # rows that nobody asked for repeat the first one
        rows = torch.tensor([*range(count), *fill], device=mask.device)
        ids, mask = ids[rows], mask[rows]
        self.rows = torch.arange(count, device=mask.device)  # of those still in the batch
        self.mask = torch.zeros(total, length, dtype=torch.bool, device=mask.device)
        self.mask[:, :width] = mask.bool()
        self.position, self.place = mask.sum(1), width
        self.step, self.cache = _prepared(model, engine, total, length)
        hidden = _step(backbone_of(model), ids, self.mask, (mask.cumsum(1) - 1).clamp(min=0), self.cache)
        self.all_hidden = hidden.clone()

    @property
    def hidden(self) -> Tensor:
        """``[rows, width]``."""
        return self.all_hidden[self.rows]

    def advance(self, ids: Tensor, exists: Tensor) -> None:
        """As `GrowingCache.advance`."""
        all_ids = torch.zeros(len(self.mask), *ids.shape[1:], dtype=ids.dtype, device=ids.device)
        all_exists = torch.zeros(len(self.mask), dtype=torch.bool, device=ids.device)
        all_ids[self.rows], all_exists[self.rows] = ids, exists
        # A row attends at least to its own position, whose state is thrown away where it does not exist.
        self.mask[:, self.place] = True
        hidden = self.step(all_ids, self.mask, self.position[:, None], self.cache)
        self.mask[:, self.place] = all_exists
        self.place += 1
        self.all_hidden = torch.where(all_exists[:, None], hidden, self.all_hidden)
        self.position = self.position + all_exists.to(self.position)

    def keep(self, keep: Tensor) -> None:
        """Forget the rows where ``keep`` is False."""
        self.rows = self.rows[keep]


def _step(backbone: Callable[..., Any], ids: Tensor, mask: Tensor, positions: Tensor, cache: StaticCache) -> Tensor:
    out = backbone(input_ids=ids, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True)
    return out.last_hidden_state[:, -1]


@dataclass
class _Prepared:
    steps: dict[Engine, Callable[..., Tensor]]
    shape: tuple[int, int] | None = None
    cache: StaticCache | None = None


_of_models: WeakKeyDictionary[Any, _Prepared] = WeakKeyDictionary()


def _prepared(model: Any, engine: Engine, rows: int, length: int) -> tuple[Callable[..., Tensor], StaticCache]:
    """The step of ``model``, compiled once, and an empty cache."""
    kept = _of_models.setdefault(model, _Prepared({}))
    if engine not in kept.steps:
        step = partial(_step, backbone_of(model))
        kept.steps[engine] = torch.compile(step, backend=engine.backend, dynamic=False) if engine.compile else step
    if kept.shape != (rows, length) or kept.cache is None:
        kept.shape, kept.cache = (rows, length), StaticCache(config=model.config, max_cache_len=length)
    else:
        kept.cache.reset()
    return kept.steps[engine], kept.cache
