"""What is heard of a moved sound: pitch, onsets, level, and which class a probe of recordings takes it for."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import spearmanr
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from codec.network.pitch import pitch
from eval.harness.audio import CannotScore, Wave
from eval.space.features import log_mel
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


def cents_apart(wav: Wave, source: Wave, rate: int) -> tuple[float, float]:
    """Median of |cents| between two sounds where both have a pitch, and the share of these frames within 50.

    Raises:
        CannotScore: "no pitch" in one of them.
    """
    (a, voiced), (b, other) = pitch_track(wav, rate), pitch_track(source, rate)
    n = min(len(a), len(b))
    both = voiced[:n] & other[:n]
    if not other.any():
        raise CannotScore("no pitch in the source")
    if both.sum() < 5:
        raise CannotScore("no pitch where the source has one")
    cents = np.abs(1200 * np.log2(a[:n][both] / b[:n][both]))
    return float(np.median(cents)), float((cents < 50).mean())


def onsets_alike(wav: Wave, source: Wave, rate: int) -> float:
    """Correlation of the onset envelopes: what log-mel bands gain from one 10 ms to the next."""
    first, second = (np.maximum(0, np.diff(log_mel(part, rate), axis=0)).mean(1) for part in (wav, source))
    n = min(len(first), len(second))
    if n < 3 or first[:n].std() < 1e-9 or second[:n].std() < 1e-9:
        raise CannotScore("nothing begins")
    return float(np.corrcoef(first[:n], second[:n])[0, 1])


def level(wav: Wave) -> float:
    """dB of the mean square."""
    return float(10 * np.log10(np.square(wav.astype(np.float64)).mean() + 1e-10))


class ClassProbe:
    """Which class a sound is taken for, by the mean of its log-mel frames without their level."""

    def __init__(self, waves: Sequence[Wave], labels: Sequence[str], rate: int) -> None:
        self.rate = rate
        self.model: Pipeline = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500))
        self.model.fit(np.stack([self.features(wav) for wav in waves]), labels)
        self.classes = [str(name) for name in self.model.classes_]

    def features(self, wav: Wave) -> NDArray[np.float64]:
        """The middle half, less its mean over bands; how the bands vary."""
        frames = log_mel(wav, self.rate)
        middle = frames[len(frames) // 4 : max(len(frames) // 4 + 1, 3 * len(frames) // 4)]
        return self.of_frames(middle)

    @staticmethod
    def of_frames(frames: NDArray[np.floating]) -> NDArray[np.float64]:
        mean = frames.mean(0)
        return np.concatenate([mean - mean.mean(), mean[1:] - mean[:-1]]).astype(np.float64)

    def posterior(self, wav: Wave, target: str) -> float:
        """Of the class ``target``."""
        return float(self.model.predict_proba(self.features(wav)[None])[0, self.classes.index(target)])

    def along(self, wav: Wave, target: str) -> NDArray[np.float64]:
        """The posterior of ``target`` every 80 ms."""
        frames = log_mel(wav, self.rate)
        grains = [frames[k : k + GRAIN] for k in range(0, len(frames) - GRAIN + 1, GRAIN)]
        return self.model.predict_proba(np.stack([self.of_frames(g) for g in grains]))[:, self.classes.index(target)]


def score_walk(
    wav: Wave, rate: int, path: Path, classes: Sequence[str], hertz: Sequence[float | None], probe: ClassProbe
) -> dict[str, float]:
    """Scores of one walk from way-point to way-point of the given classes and pitches.

    ``waypoint-class``, ``waypoint-cents``: how often a hold is taken for its class, and how far its pitch is off.
    ``periodic-halfway``: share of the 10 ms in the middle fifth of the moves that have a pitch; ``pitch-between``: that
    have one between those of the two way-points (a cross-fade has these two instead, and is periodic all the same).
    ``path-ratio``: length of the path in log-mel over the straight way; ``largest-jump``: the largest step of 80 ms
    over the mean one; ``posterior-rank``: rank correlation of the place with the last way-point's posterior.
    """
    place = np.interp(np.arange(len(wav)) / len(wav), (np.arange(len(path.place)) + 0.5) / len(path.place), path.place)
    found: dict[str, list[float]] = {"waypoint-class": [], "waypoint-cents": []}
    for k, (name, wanted) in enumerate(zip(classes, hertz, strict=True)):
        held = np.nonzero(np.abs(place - k) < 1e-3)[0]
        own = wav[held[0] : held[-1] + 1]
        features = probe.features(own)[None]
        found["waypoint-class"].append(float(probe.classes[int(probe.model.predict_proba(features).argmax())] == name))
        frequency, voiced = pitch_track(own, rate)
        if wanted is not None and voiced.sum() >= 5:
            off = abs(1200 * np.log2(float(np.median(frequency[voiced])) / wanted))
            found["waypoint-cents"].append(float(off))
    hop = rate // 100
    frequency, periodic = pitch_track(wav, rate)
    at = place[np.minimum(np.arange(len(periodic)) * hop + hop // 2, len(place) - 1)] % 1
    middle = (at > 0.4) & (at < 0.6)
    frames = log_mel(wav, rate)
    grains = np.stack([frames[k : k + GRAIN].mean(0) for k in range(0, len(frames) - GRAIN + 1, GRAIN)])
    steps = np.linalg.norm(np.diff(grains, axis=0), axis=1)
    scores = {name: float(np.mean(values)) for name, values in found.items() if values}
    if middle.any():
        scores["periodic-halfway"] = float(periodic[middle].mean())
        if len(hertz) == 2 and None not in hertz:
            low, high = sorted(1200 * np.log2(np.array(hertz, dtype=float)))
            edge = 50.0 if high - low >= 200 else -50.0  # nearly the same pitch: stay there
            cents = 1200 * np.log2(frequency[middle])
            scores["pitch-between"] = float((periodic[middle] & (cents > low + edge) & (cents < high - edge)).mean())
    scores["path-ratio"] = float(steps.sum() / max(np.linalg.norm(grains[-1] - grains[0]), 1e-6))
    scores["largest-jump"] = float(steps.max() / max(steps.mean(), 1e-9))
    posterior = probe.along(wav, classes[-1])
    where = place[np.minimum(np.arange(len(posterior)) * GRAIN * hop + GRAIN * hop // 2, len(place) - 1)]
    if classes[0] != classes[-1] and posterior.std() > 0:
        scores["posterior-rank"] = float(spearmanr(where, posterior).statistic)
    return scores
