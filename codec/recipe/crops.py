"""Training crops: which audio a step sees is a pure function of (seed, step).

Nothing about the data has to be saved to resume exactly, and another number of processes sees the same crops as long
as the global batch is the same.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from codec.corpus import AudioError, Clip, CorpusError, read_audio

FADE_SECONDS = 0.01  # a hard splice is a click that no recording has


class CropSampler:
    """Draws crops of a fixed length from clips of any length and rate.

    A clip as long as the crop fills it, from a random place. Shorter ones are joined in random order, cross-faded
    over ``FADE_SECONDS``, until the crop is full, so no step is spent on padding. Decoded audio is kept in memory as
    int16 at the codec's rate, up to ``cache_bytes``.

    Args:
        clips: the training clips; their ``domain`` selects the weight.
        weights: share of crops per domain, normalised over the domains that occur; 0 leaves its clips out.
        gain_db: range of a crop's random level, in dB.

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
        cache_bytes: int = 4 << 30,
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
        self.cache: dict[str, np.ndarray] = {}
        self.cache_bytes = cache_bytes
        self.rejected: dict[str, str] = {}

    def audio(self, clip: Clip) -> np.ndarray:
        """``[samples]`` float32 of a clip; an unreadable file is remembered in ``rejected`` and gives no samples."""
        key = str(clip.path)
        if key in self.rejected:
            return np.zeros(0, np.float32)
        stored = self.cache.get(key)
        if stored is None:
            try:
                wav = read_audio(clip.path, self.sample_rate)
            except AudioError as error:
                self.rejected[key] = str(error)
                print(f"skipped in training: {error}", flush=True)
                return np.zeros(0, np.float32)
            stored = np.round(np.clip(wav, -1, 1) * 32767).astype(np.int16)
            if self.cache_bytes > stored.nbytes:
                self.cache_bytes -= stored.nbytes
                self.cache[key] = stored
        return stored.astype(np.float32) / 32767

    def crop(self, step: int, item: int, samples: int) -> tuple[np.ndarray, list[Path]]:
        """Crop number ``item`` of ``step``: ``[samples]`` float32 and the files it was cut from."""
        rng = np.random.default_rng([self.seed, step, item])
        clips = self.by_domain[self.domains[rng.choice(len(self.domains), p=self.shares)]]
        crop = np.zeros(0, np.float32)
        files: list[Path] = []
        for _ in range(1000):
            clip = clips[rng.integers(len(clips))]
            wav = self.audio(clip)
            if len(wav) == 0:
                continue
            fade = min(int(FADE_SECONDS * self.sample_rate), len(crop), len(wav) // 2)
            need = samples - len(crop) + fade
            if len(wav) >= need:
                start = int(rng.integers(len(wav) - need + 1))
            else:  # a crop that begins with a short clip need not begin where that one does
                start = 0 if len(crop) else int(rng.integers(len(wav) // 2 + 1))
            crop = joined(crop, wav[start : start + need], fade)
            files.append(clip.path)
            if len(crop) >= samples:
                crop = crop * 10 ** (rng.uniform(*self.gain_db) / 20)
                return crop / max(1.0, float(np.abs(crop).max())), files
        domain = clips[0].domain
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
