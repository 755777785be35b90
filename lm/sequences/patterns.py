"""How the levels of a frame become one sequence: pattern providers with an exact inverse.

A pattern delays each level by some steps, as MusicGen's codebook patterns do (Copet et al. 2023, section 2.2):
step s holds, coarse to fine, level k of frame s − delays[k], where that frame exists. Here all steps are written
into ONE stream, because a plain LLaMA predicts one token at a time.

    flat                 A0 B0 C0  A1 B1 C1  </audio>
    delay                A0  A1 B0  </audio> B1 C0  C1
    one_frame_delay      A0  A1 B0 C0  </audio> B1 C1

``</audio>`` stands where level 0 of the first frame that does not exist would stand. What the delayed levels still
owe follows it; its length follows from the number of frames, so that a model needs no second sign.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np

NONE = -1  # in folded ids: the position has no token of this level


class Pattern(ABC):
    """An order over all (frame, level) pairs of a clip."""

    name: str

    @abstractmethod
    def delays(self, levels: int) -> tuple[int, ...]:
        """Steps by which each level comes later than its frame; level 0 is never late, and later levels never
        come before earlier ones.
        """

    def order(self, frames: int, levels: int) -> np.ndarray:
        """``[frames * levels, 2]``: (frame, level) of each position of the sequence; each pair exactly once."""
        delays = np.array(self.delays(levels))
        step, level = np.meshgrid(np.arange(frames + delays.max()), np.arange(levels), indexing="ij")
        frame = step - delays[level]
        valid = (frame >= 0) & (frame < frames)
        return np.stack([frame[valid], level[valid]], axis=1)

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

    def tail(self, frames: int, levels: int) -> list[int]:
        """Levels of the tokens that follow the end mark of a clip of ``frames``, in their order."""
        delays = self.delays(levels)
        return [
            level
            for step in range(frames, frames + max(delays))
            for level in range(levels)
            if 0 <= step - delays[level] < frames
        ]

    def close(self, values: np.ndarray, end: int) -> np.ndarray:
        """``[frames, levels]`` → ``[frames * levels + 1]``: flattened, with ``end`` in its place."""
        frames, levels = values.shape
        return np.insert(self.flatten(values), frames * levels - len(self.tail(frames, levels)), end)

    def open(self, sequence: np.ndarray, levels: int, end: int) -> np.ndarray:
        """Inverse of `close`.

        Raises:
            ValueError: no end mark, or not in the place that the number of tokens demands.
        """
        place = np.flatnonzero(sequence == end)
        frames = (len(sequence) - 1) // levels
        if len(place) != 1 or place[0] != frames * levels - len(self.tail(frames, levels)):
            raise ValueError(f"the end of audio stands at {place.tolist()} of {len(sequence)} tokens.")
        return self.unflatten(np.delete(sequence, place), levels)

    def place(self, number: int, levels: int) -> tuple[int, int]:
        """(step, level) of token ``number`` (0, 1, …) of a clip that has not ended yet."""
        delays = self.delays(levels)
        step = 0
        while step < max(delays):  # steps in which not every level has begun
            present = [level for level in range(levels) if delays[level] <= step]
            if number < len(present):
                return step, present[number]
            number -= len(present)
            step += 1
        return step + number // levels, number % levels


class Flat(Pattern):
    """Frame after frame, coarse to fine inside a frame: the k-th token of the audio has level k mod levels."""

    name = "flat"

    def delays(self, levels: int) -> tuple[int, ...]:
        return (0,) * levels


class Delay(Pattern):
    """Level k comes k steps later."""

    name = "delay"

    def delays(self, levels: int) -> tuple[int, ...]:
        return tuple(range(levels))


class OneFrameDelay(Pattern):
    """All levels but the first come one step later: the acoustic delay of Moshi (Défossez et al. 2024)."""

    name = "one_frame_delay"

    def delays(self, levels: int) -> tuple[int, ...]:
        return (0,) + (1,) * (levels - 1)


PATTERNS: dict[str, Pattern] = {pattern.name: pattern for pattern in (Flat(), Delay(), OneFrameDelay())}


def fold(ids: np.ndarray, level_of: np.ndarray, levels: int) -> np.ndarray:
    """A stream of ids ``[length]`` → one row per step ``[positions, levels]``, `NONE` where a level is absent.

    Text and control tokens, the end of audio among them, stand in column 0 of a row; tokens of level 1 and beyond join
    the row before them. For patterns in which every step begins with level 0 or the end: delays of at most 1.

    Args:
        level_of: ``[length]`` level of each id, −1 for what is no audio token.
    """
    joins = level_of > 0
    row = np.cumsum(~joins) - 1
    folded = np.full((int(row[-1]) + 1 if len(row) else 0, levels), NONE, dtype=ids.dtype)
    folded[row, np.maximum(level_of, 0)] = ids
    return folded
