"""Walks from sound to sound: way-points, the path between them, and the cross-fade that any walk must beat.

z(t) stands ``HOLD`` seconds at each way-point and takes ``MOVE`` seconds from one to the next, in a straight line.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from eval.harness.audio import Wave
from eval.space.features import middle
from eval.space.recordings import Recording
from training.config import ConfigError

HOLD, MOVE = 0.5, 1.5  # s
Vectors = NDArray[np.float32]


@dataclass(frozen=True)
class Path:
    """``place [frames]``: 0 at the first way-point, 1 at the second …; ``held [frames]``: standing at one."""

    place: NDArray[np.float64]
    held: NDArray[np.bool_]

    @property
    def legs(self) -> int:
        return int(round(self.place[-1]))

    def holds(self, frame_rate: float) -> list[tuple[float, float]]:
        """From and to in seconds, where it stands at each way-point."""
        frames = [np.nonzero(self.held & (self.place == k))[0] for k in range(self.legs + 1)]
        return [(round(own[0] / frame_rate, 3), round((own[-1] + 1) / frame_rate, 3)) for own in frames]

    def at(self, samples: int) -> NDArray[np.float64]:
        """``place [samples]`` of a sound that lasts as long as the path."""
        return np.interp(np.arange(samples) / samples, (np.arange(len(self.place)) + 0.5) / len(self.place), self.place)

    def vectors(self, points: Vectors) -> Vectors:
        """``[frames, d]`` along ``points [way-points, d]``, and at them where it stands."""
        first = np.minimum(self.place.astype(int), self.legs - 1)
        part = (self.place - first)[:, None]
        return ((1 - part) * points[first] + part * points[first + 1]).astype(np.float32)


def walk(points: int, frame_rate: float) -> Path:
    """The path through so many way-points. Raises ConfigError: fewer than two."""
    if points < 2:
        raise ConfigError("walks: a walk has at least two way-points.")
    stand, go = max(1, round(HOLD * frame_rate)), max(1, round(MOVE * frame_rate))
    place, held = [np.zeros(stand)], [np.ones(stand, bool)]
    for leg in range(points - 1):
        place += [leg + np.arange(1, go + 1) / (go + 1), np.full(stand, leg + 1.0)]
        held += [np.zeros(go, bool), np.ones(stand, bool)]
    return Path(np.concatenate(place), np.concatenate(held))


def find(text: str, labels: Sequence[str], recordings: Sequence[Recording]) -> list[Recording]:
    """The recordings of a way-point: ``flute C5`` or ``flute C 5`` for the labels instrument, note, octave; ``flute``.

    Raises:
        ConfigError: none, with the nearest that there are.
    """
    parts = str(text).split()
    if len(parts) == 2 and len(labels) >= 3 and parts[1][-1:].isdigit():
        parts = [parts[0], parts[1].rstrip("0123456789-"), parts[1].lstrip("ABCDEFGabcdefg#♯♭s")]
    chosen = list(recordings)
    for label, part in zip(labels, parts, strict=False):
        known = sorted({recording.labels[label] for recording in chosen})
        chosen = [recording for recording in chosen if recording.labels[label] == part]
        if not chosen:
            raise ConfigError(f"walks: there is no recording of '{text}': its {label} can be {', '.join(known[:20])}.")
    if not parts or len(parts) > len(labels):
        raise ConfigError(f"walks: '{text}' is no way-point: write {' '.join(labels)}, or the first of them.")
    return chosen


def with_notes(path: Path, along: Vectors, notes: Sequence[Vectors]) -> Vectors:
    """``along [frames, d]`` with what each way-point's note ``[frames, d]`` has beside its mean, begun anew at each."""
    out = along.copy()
    starts = [int(np.argmax(path.held & (path.place == k))) for k in range(path.legs + 1)]
    for start, end, note in zip(starts, [*starts[1:], len(out)], notes, strict=True):
        own = (note - middle(note).mean(0))[: end - start]
        out[start : start + len(own)] += own
    return out


def sustained(wav: Wave, samples: int) -> Wave:
    """The middle half of a recording to and fro, so that it lasts."""
    half = middle(wav)
    return np.resize(np.concatenate([half, half[::-1]]), samples).astype(np.float32)


def cross_fade(path: Path, waves: Sequence[Wave], samples: int) -> Wave:
    """The way-points' recordings, each as loud as the path is near: smooth, and two pitches half-way."""
    place = path.at(samples)
    parts = [np.maximum(0, 1 - np.abs(place - k)) * sustained(wav, samples) for k, wav in enumerate(waves)]
    return np.sum(parts, axis=0).astype(np.float32)
