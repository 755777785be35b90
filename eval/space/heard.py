"""What is heard of a moved sound: pitch, onsets, and which class a probe of recordings takes it for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import spearmanr
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from codec.network.pitch import pitch
from eval.harness.audio import CannotScore, Wave
from eval.space.features import Frames, log_mel, middle
from eval.space.walks import Path

PERIODIC = 0.6  # periodicity from which a frame has a pitch
LOW, HIGH = 60.0, 2300.0  # Hz
GRAIN = 8  # frames of 10 ms that a class or a step is judged over


def pitch_track(wav: Wave, rate: int) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Hz of each 10 ms, and whether it has a pitch."""
    hop = rate // 100
    whole = torch.from_numpy(np.ascontiguousarray(wav[: len(wav) // hop * hop], np.float32))[None]
    if not whole.shape[1]:
        raise CannotScore("shorter than 10 ms")
    frequency, periodicity = pitch(whole, rate, hop, LOW, HIGH, 0.05, rate)
    return frequency[0].double().numpy(), (periodicity[0] > PERIODIC).numpy()


@dataclass(frozen=True)
class Heard:
    """A sound ``wav [samples]`` at ``rate`` Hz; what several scores ask of it is found once."""

    wav: Wave
    rate: int

    @cached_property
    def pitch(self) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """`pitch_track`."""
        return pitch_track(self.wav, self.rate)

    @cached_property
    def frames(self) -> Frames:
        """`log_mel`."""
        return log_mel(self.wav, self.rate)

    @property
    def grains(self) -> NDArray[np.float32]:
        """``[n, 8, 64]``: the frames, 80 ms at a time."""
        n = len(self.frames) // GRAIN
        return self.frames[: n * GRAIN].reshape(n, GRAIN, -1)


def cents_apart(made: Heard, source: Heard) -> tuple[float, float]:
    """Median of |cents| between two sounds where both have a pitch, and the share of these frames within 50.

    Raises:
        CannotScore: "no pitch" in one of them.
    """
    (a, voiced), (b, other) = made.pitch, source.pitch
    n = min(len(a), len(b))
    both = voiced[:n] & other[:n]
    if not other.any():
        raise CannotScore("no pitch in the source")
    if both.sum() < 5:
        raise CannotScore("no pitch where the source has one")
    cents = np.abs(1200 * np.log2(a[:n][both] / b[:n][both]))
    return float(np.median(cents)), float((cents < 50).mean())


def onsets_alike(made: Heard, source: Heard) -> float:
    """Correlation of the onset envelopes: what log-mel bands gain from one 10 ms to the next."""
    first, second = (np.maximum(0, np.diff(part.frames, axis=0)).mean(1) for part in (made, source))
    n = min(len(first), len(second))
    if n < 3 or first[:n].std() < 1e-9 or second[:n].std() < 1e-9:
        raise CannotScore("nothing begins")
    return float(np.corrcoef(first[:n], second[:n])[0, 1])


class ClassProbe:
    """Which class a sound is taken for, by the mean of its log-mel frames without their level."""

    def __init__(self, sounds: Sequence[Heard], labels: Sequence[str]) -> None:
        self.model: Pipeline = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500))
        self.model.fit(np.stack([self.features(sound) for sound in sounds]), labels)
        self.classes = [str(name) for name in self.model.classes_]

    def features(self, sound: Heard) -> NDArray[np.float64]:
        """The middle half, less its mean over bands; how the bands vary."""
        return self.of_frames(middle(sound.frames))

    @staticmethod
    def of_frames(frames: NDArray[np.floating]) -> NDArray[np.float64]:
        mean = frames.mean(0)
        return np.concatenate([mean - mean.mean(), mean[1:] - mean[:-1]]).astype(np.float64)

    def posterior(self, sound: Heard, target: str) -> float:
        """Of the class ``target``."""
        return float(self.model.predict_proba(self.features(sound)[None])[0, self.classes.index(target)])

    def along(self, sound: Heard, target: str) -> NDArray[np.float64]:
        """The posterior of ``target`` every 80 ms."""
        features = np.stack([self.of_frames(grain) for grain in sound.grains])
        return self.model.predict_proba(features)[:, self.classes.index(target)]


def score_walk(
    sound: Heard, path: Path, classes: Sequence[str], hertz: Sequence[float | None], probe: ClassProbe
) -> dict[str, float]:
    """Scores of one walk from way-point to way-point of the given classes and pitches.

    ``waypoint-class``, ``waypoint-cents``: how often a hold is taken for its class, and how far its pitch is off.
    ``periodic-halfway``: share of the 10 ms in the middle fifth of the moves that have a pitch; ``pitch-between``: that
    have one between those of the two way-points (a cross-fade has these two instead, and is periodic all the same).
    ``path-ratio``: length of the path in log-mel over the straight way; ``largest-jump``: the largest step of 80 ms
    over the mean one; ``posterior-rank``: rank correlation of the place with the last way-point's posterior.
    """
    place = path.at(len(sound.wav))
    found: dict[str, list[float]] = {"waypoint-class": [], "waypoint-cents": []}
    for k, (name, wanted) in enumerate(zip(classes, hertz, strict=True)):
        held = np.nonzero(np.abs(place - k) < 1e-3)[0]
        own = Heard(sound.wav[held[0] : held[-1] + 1], sound.rate)
        features = probe.features(own)[None]
        found["waypoint-class"].append(float(probe.classes[int(probe.model.predict_proba(features).argmax())] == name))
        frequency, voiced = own.pitch
        if wanted is not None and voiced.sum() >= 5:
            off = abs(1200 * np.log2(float(np.median(frequency[voiced])) / wanted))
            found["waypoint-cents"].append(float(off))
    hop = sound.rate // 100
    frequency, periodic = sound.pitch
    at = place[np.minimum(np.arange(len(periodic)) * hop + hop // 2, len(place) - 1)] % 1
    halfway = (at > 0.4) & (at < 0.6)
    grains = sound.grains.mean(1)
    steps = np.linalg.norm(np.diff(grains, axis=0), axis=1)
    scores = {name: float(np.mean(values)) for name, values in found.items() if values}
    if halfway.any():
        scores["periodic-halfway"] = float(periodic[halfway].mean())
        if len(hertz) == 2 and None not in hertz:
            low, high = sorted(1200 * np.log2(np.array(hertz, dtype=float)))
            edge = 50.0 if high - low >= 200 else -50.0  # nearly the same pitch: stay there
            cents = 1200 * np.log2(frequency[halfway])
            scores["pitch-between"] = float((periodic[halfway] & (cents > low + edge) & (cents < high - edge)).mean())
    scores["path-ratio"] = float(steps.sum() / max(np.linalg.norm(grains[-1] - grains[0]), 1e-6))
    scores["largest-jump"] = float(steps.max() / max(steps.mean(), 1e-9))
    posterior = probe.along(sound, classes[-1])
    where = place[np.minimum(np.arange(len(posterior)) * GRAIN * hop + GRAIN * hop // 2, len(place) - 1)]
    if classes[0] != classes[-1] and posterior.std() > 0:
        scores["posterior-rank"] = float(spearmanr(where, posterior).statistic)
    return scores
