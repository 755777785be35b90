"""Sounds moved in the space: z' = z + a (what the target has − what the source has).

``additive`` moves by the effect of the class alone (eval/space/effects.py), so that pitch stays; ``class`` by the means
of both classes and ``clip`` by the clip's own mean, as the reproduction of the paper does, so that pitch, loudness and
pauses move too. Nothing of what is moved is in the fit: neither its group nor any recording of its class and pitch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from eval.space.effects import Additive
from eval.space.recordings import Recording

Vectors = NDArray[np.float64]
SPEECH = "speech"  # the class of what a corpus of speech adds to the fit


@dataclass(frozen=True)
class Fit:
    """Train recordings as vectors ``[n, d]``, with class, pitch ("" where there is none) and group of each."""

    vectors: Vectors
    classes: Sequence[str]
    pitches: Sequence[str]
    groups: Sequence[str]

    def shift(self, source: str, label: str | None, target: str, held: Recording | None, own: Vectors) -> Vectors:
        """``[d]`` from the class ``label`` (None: unknown) to ``target``.

        Args:
            source: ``additive``, ``class`` or ``clip``.
            held: what is moved, where it is of the corpus.
            own: ``[d]`` its mean.
        """
        pitch = pitch_name(held)
        keep = [
            held is None or (group != held.group and (name, tone) != (label, pitch))
            for name, tone, group in zip(self.classes, self.pitches, self.groups, strict=True)
        ]
        vectors, classes = self.vectors[keep], [c for c, k in zip(self.classes, keep, strict=True) if k]
        if source == "clip" or label is None or label not in classes:
            return vectors[[name == target for name in classes]].mean(0) - own
        if source == "class":
            return vectors[[n == target for n in classes]].mean(0) - vectors[[n == label for n in classes]].mean(0)
        pitches = [p for p, k in zip(self.pitches, keep, strict=True) if k]
        return Additive.fit(vectors, {"class": classes, "pitch": pitches}).shift("class", label, target)


def pitch_name(recording: Recording | None) -> str:
    """The pitch of a recording as a class of the fit; empty where it has none."""
    return "" if recording is None or recording.midi is None else str(recording.midi)


def fit_of(train: Sequence[Recording], vectors: Mapping[str, Vectors], label: str, speech: Sequence[Vectors]) -> Fit:
    """Of recordings, and of ``speech``, each ``[d]``, as a class without pitch."""
    return Fit(
        np.stack([*(vectors[r.id] for r in train), *speech]),
        [*(r.labels[label] for r in train), *[SPEECH] * len(speech)],
        [*map(pitch_name, train), *[""] * len(speech)],
        [*(r.group for r in train), *(f"{SPEECH} {k}" for k in range(len(speech)))],
    )


def random_like(shift: Vectors, generator: np.random.Generator) -> Vectors:
    """A direction drawn at random, as long as ``shift``."""
    other = generator.standard_normal(shift.shape)
    return other * float(np.linalg.norm(shift)) / float(np.linalg.norm(other))
