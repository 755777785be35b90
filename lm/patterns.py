"""How the levels of a frame become one sequence: pattern providers with an exact inverse.

A pattern is an order over (frame, level) pairs, as in MusicGen's codebook patterns (Copet et al. 2023,
section 2.2); here every pattern is written into ONE stream, because a plain LLaMA predicts one token at a
time.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np


class Pattern(ABC):
    """An order over all (frame, level) pairs of a clip."""

    name: str

    @abstractmethod
    def order(self, frames: int, levels: int) -> np.ndarray:
        """``[frames * levels, 2]``: (frame, level) of each position of the sequence; each pair exactly once."""

    def flatten(self, values: np.ndarray) -> np.ndarray:
        """``[frames, levels]`` → ``[frames * levels]`` in the order of the sequence."""
        order = self.order(*values.shape)
        return values[order[:, 0], order[:, 1]]

    def unflatten(self, sequence: np.ndarray, levels: int) -> np.ndarray:
        """Inverse of `flatten`: ``[frames * levels]`` → ``[frames, levels]``."""
        if len(sequence) % levels:
            raise ValueError(f"{len(sequence)} tokens are no whole number of frames of {levels} levels.")
        order = self.order(len(sequence) // levels, levels)
        values = np.empty((len(sequence) // levels, levels), dtype=sequence.dtype)
        values[order[:, 0], order[:, 1]] = sequence
        return values


class Flat(Pattern):
    """Frame after frame, coarse to fine inside a frame: the k-th token of the audio has level k mod levels."""

    name = "flat"

    def order(self, frames: int, levels: int) -> np.ndarray:
        index = np.arange(frames * levels)
        return np.stack([index // levels, index % levels], axis=1)


class Delay(Pattern):
    """Level k comes k steps later: step s holds level k of frame s − k, where that frame exists."""

    name = "delay"

    def order(self, frames: int, levels: int) -> np.ndarray:
        step, level = np.meshgrid(np.arange(frames + levels - 1), np.arange(levels), indexing="ij")
        frame = step - level
        valid = (frame >= 0) & (frame < frames)
        return np.stack([frame[valid], level[valid]], axis=1)


PATTERNS: dict[str, Pattern] = {"flat": Flat(), "delay": Delay()}
