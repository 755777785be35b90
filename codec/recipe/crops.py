"""What each step of a training learns from: its crops, and what else it draws.

All of it is a pure function of (seed, step). Nothing about the data has to be saved to resume exactly, another number
of processes sees the same crops as long as the global batch is the same, and so does another number of workers.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from omegaconf import DictConfig
from torch import Tensor
from torch.utils.data import Dataset

from codec.audio.files import length_at, read_span
from codec.corpus import AudioError, Clip, CorpusError
from codec.network.architecture import MAX_WINDOW, MIN_WINDOW, ALMTokenizerConfig
from codec.objectives.flow import FlowDraw
from codec.objectives.losses import Resolution
from training.ahead import made_ahead
from training.threads import cores

FADE_SECONDS = 0.01  # a hard splice is a click that no recording has


class CropSampler:
    """Draws crops of a fixed length from clips of any length and rate, and reads no more of them than it cuts.

    A clip as long as the crop fills it, from a random place. Shorter ones are joined in random order, cross-faded
    over ``FADE_SECONDS``, until the crop is full, so no step is spent on padding.

    Args:
        clips: the training clips; their ``domain`` selects the weight.
        weights: share of crops per domain, normalised over the domains that occur; 0 leaves its clips out.
        gain_db: range of a crop's random level, in dB.
        by_duration: a clip is drawn in its share of its domain's seconds, not as often as any other.

    Raises:
        ValueError: clips of a domain without a weight, or none with one above 0.
    """

    def __init__(
        self,
        clips: list[Clip],
        sample_rate: int,
        weights: dict[str, float],
        gain_db: tuple[float, float],
        seed: int,
        by_duration: bool = False,
    ) -> None:
        self.sample_rate, self.gain_db, self.seed = sample_rate, gain_db, seed
        self.by_domain: dict[str, list[Clip]] = {}
        for clip in clips:
            self.by_domain.setdefault(clip.domain, []).append(clip)
        unnamed = [d for d in sorted(self.by_domain) if d not in weights]
        if unnamed:
            counts = ", ".join(f"{len(self.by_domain[d])} of domain {d}" for d in unnamed)
            raise ValueError(
                f"trainer.domain_weights names no share for clips of the corpus ({counts}): "
                f"give one with +trainer.domain_weights.{unnamed[0]}=0.1, or leave them out with =0."
            )
        self.domains = [d for d in sorted(self.by_domain) if weights.get(d, 0) > 0]
        if not self.domains:
            raise ValueError(f"no clip has a domain with a share in trainer.domain_weights ({', '.join(weights)}).")
        total = sum(weights[d] for d in self.domains)
        self.shares = np.array([weights[d] / total for d in self.domains])
        self.rejected: dict[str, str] = {}
        self.ends: dict[str, np.ndarray] = {}  # of a domain: where each clip's samples end, one clip after another
        if by_duration:
            self.ends = {d: np.cumsum([self.length(clip) for clip in self.by_domain[d]]) for d in self.domains}

    def length(self, clip: Clip) -> int:
        """Samples of a clip at the codec's rate; 0 where its file cannot be read."""
        try:
            return length_at(clip.path, self.sample_rate)
        except AudioError as error:
            self.reject(clip, error)
            return 0

    def reject(self, clip: Clip, error: AudioError) -> None:
        """Name an unreadable file, once. It is tried again: what is drawn must not depend on what was drawn before."""
        if str(clip.path) not in self.rejected:
            self.rejected[str(clip.path)] = str(error)
            with suppress(OSError):  # nobody reads: the training finds that out by itself, and saves first
                print(f"skipped in training: {error}", flush=True)

    def draw(self, rng: np.random.Generator, domain: str) -> Clip:
        """A clip of ``domain``."""
        clips = self.by_domain[domain]
        if domain not in self.ends or not self.ends[domain][-1]:
            return clips[rng.integers(len(clips))]
        ends = self.ends[domain]
        return clips[int(np.searchsorted(ends, rng.integers(ends[-1]), side="right"))]

    def crop(self, step: int, item: int, samples: int) -> tuple[np.ndarray, list[Path]]:
        """Crop number ``item`` of ``step``: ``[samples]`` float32 and the files it was cut from."""
        rng = np.random.default_rng([self.seed, step, item])
        domain = self.domains[rng.choice(len(self.domains), p=self.shares)]
        crop = np.zeros(0, np.float32)
        files: list[Path] = []
        for _ in range(1000):
            clip = self.draw(rng, domain)
            length = self.length(clip)
            if length == 0:
                continue
            fade = min(int(FADE_SECONDS * self.sample_rate), len(crop), length // 2)
            need = samples - len(crop) + fade
            if length >= need:
                start = int(rng.integers(length - need + 1))
            else:  # a crop that begins with a short clip need not begin where that one does
                start = 0 if len(crop) else int(rng.integers(length // 2 + 1))
            try:
                wav = read_span(clip.path, self.sample_rate, start, min(need, length - start))
            except AudioError as error:
                self.reject(clip, error)
                continue
            # in steps of 16 bits, as most recordings have them
            wav = np.round(np.clip(wav, -1, 1) * 32767).astype(np.int16).astype(np.float32) / 32767
            crop = joined(crop, wav, fade)
            files.append(clip.path)
            if len(crop) >= samples:
                crop = crop * 10 ** (rng.uniform(*self.gain_db) / 20)
                return crop / max(1.0, float(np.abs(crop).max())), files
        if files:
            seconds = samples / self.sample_rate
            raise CorpusError(f"1000 clips of domain {domain} do not fill {seconds:g} s: lower trainer.crop_seconds.")
        reasons = "; ".join(list(self.rejected.values())[:3]) or "they have no samples"
        raise CorpusError(f"none of 1000 clips of domain {domain} can be read ({reasons}): look at its files.")

    def batch(self, step: int, first: int, size: int, samples: int) -> tuple[Tensor, list[Path]]:
        """Crops ``first … first + size − 1`` of a step: ``[size, samples]`` and the files they were cut from."""
        crops = [self.crop(step, first + i, samples) for i in range(size)]
        return torch.from_numpy(np.stack([c for c, _ in crops])), [file for _, files in crops for file in files]


def joined(before: np.ndarray, after: np.ndarray, fade: int) -> np.ndarray:
    """``before`` and ``after``, overlapping by ``fade`` samples, with equal power: they have nothing in common."""
    rise = np.sin(0.5 * np.pi * (np.arange(fade, dtype=np.float32) + 0.5) / max(1, fade))
    kept = len(before) - fade
    overlap = before[kept:] * rise[::-1] + after[:fade] * rise
    return np.concatenate([before[:kept], overlap, after[fade:]])


class Draw(NamedTuple):
    """What a step draws beside its crops."""

    window: int
    levels: int | None  # None: all
    resolutions: list[Resolution]
    noise_offset: int


def draw_step(step: int, cfg: DictConfig, codec: ALMTokenizerConfig) -> Draw:
    """From (seed, step) alone, the same on all processes."""
    rng = np.random.default_rng([cfg.seed, step, 1 << 20])
    train = cfg.trainer
    window = codec.window
    if rng.random() >= train.default_window_share and codec.bottleneck == "queries":
        window = int(rng.integers(MIN_WINDOW, MAX_WINDOW + 1))
    levels = None
    if rng.random() < train.level_dropout and len(codec.codebook_sizes) > 1:
        levels = int(rng.integers(1, len(codec.codebook_sizes)))
    chosen = rng.choice(len(cfg.loss.resolutions), size=cfg.loss.draw, replace=False)
    resolutions = [Resolution(*cfg.loss.resolutions[int(i)]) for i in sorted(chosen)]
    return Draw(window, levels, resolutions, int(rng.integers(1 << 17)))


def draw_unquantised(step: int, cfg: DictConfig, first: int, count: int) -> Tensor | None:
    """Which of the crops ``first`` … ``first + count − 1`` of a step pass without quantising, ``[count]`` bool."""
    if not (share := cfg.trainer.unquantised_share):
        return None
    draws = [np.random.default_rng([cfg.seed, step, item, 1 << 23]).random() for item in range(first, first + count)]
    return torch.tensor(draws) < share


def draw_masking(step: int, cfg: DictConfig) -> tuple[float, torch.Generator]:
    """The step's share of masked frames and the generator of their places, the same on all processes."""
    share = float(np.random.default_rng([cfg.seed, step, 1 << 22]).uniform(*cfg.mae.share))
    return share, torch.Generator().manual_seed(cfg.seed * 1_000_003 + step * 1009 + 500_009)


def regression_steps(cfg: DictConfig) -> int:
    """Steps of stage 3 in which the regression head learns alone; none without one."""
    return int(cfg.flow.regression_steps) if cfg.flow.prior == "regression" else 0


def draw_flow(step: int, cfg: DictConfig, first: int, count: int) -> FlowDraw:
    """What stage 3 draws for the crops ``first`` … ``first + count − 1`` of a step: a seed for each of them."""
    items = range(first, first + count)
    seeds = [int(np.random.default_rng([cfg.seed, step, item, 1 << 24]).integers(1 << 62)) for item in items]
    flow = cfg.flow
    begun = step >= regression_steps(cfg)
    return FlowDraw(seeds, begun, int(flow.draws), float(flow.condition_dropout), float(flow.random_codes))


@dataclass
class Batch:
    """Crops of one process, ``[batch, samples]`` whole windows.

    Attributes:
        first: crops of the global batch before these.
        files: that they were cut from.
        unquantised: ``[batch]`` bool, or None.
    """

    wav: Tensor
    files: list[Path]
    first: int
    draw: Draw
    unquantised: Tensor | None


class Batches(Dataset[Batch | CorpusError]):
    """A training's batches on process ``rank``: number ``step * accumulate + part`` is one part of a step."""

    def __init__(self, sampler: CropSampler, cfg: DictConfig, codec: ALMTokenizerConfig, rank: int) -> None:
        self.sampler, self.cfg, self.codec, self.rank = sampler, cfg, codec, rank

    def __getitem__(self, number: int) -> Batch | CorpusError:
        train, codec = self.cfg.trainer, self.codec
        step, part = divmod(number, train.accumulate)
        draw = draw_step(step, self.cfg, codec)
        unit = codec.hop * draw.window
        samples = int(train.crop_seconds * codec.sample_rate) // unit * unit
        first = (self.rank * train.accumulate + part) * train.batch_size
        try:
            wav, files = self.sampler.batch(step, first, train.batch_size, samples)
        except CorpusError as error:  # a worker's exception would come with its traceback
            return error
        return Batch(wav, files, first, draw, draw_unquantised(step, self.cfg, first, train.batch_size))

    @contextmanager
    def from_step(self, step: int) -> Iterator[Iterator[list[Batch]]]:
        """The ``accumulate`` batches of each step, from ``step`` to the end of the training.

        Raises:
            CorpusError: crops cannot be filled.
            HelperEnded: anywhere in the ``with`` block (`made_ahead`).
        """
        train = self.cfg.trainer
        workers = train.workers
        if workers is None:
            workers = int(cores() > 1)
        numbers = range(step * train.accumulate, train.max_steps * train.accumulate)
        made: Iterator[Batch | CorpusError]
        with made_ahead(self, numbers, workers) as made:
            yield in_steps(made, train.accumulate)


def in_steps(made: Iterator[Batch | CorpusError], accumulate: int) -> Iterator[list[Batch]]:
    """``accumulate`` batches at a time."""
    batches: list[Batch] = []
    for batch in made:
        if isinstance(batch, CorpusError):
            raise batch
        batches.append(batch)
        if len(batches) == accumulate:
            yield batches
            batches = []
