"""The sounds of walks and transfers, in all rows, with what is heard of each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from codec.interface import HasLatents
from eval.harness.audio import CannotScore, Wave
from eval.space import features, heard, moves, walks
from eval.space.recordings import Recording

Frames = Mapping[str, NDArray[np.float32]]
Sounds = dict[str, tuple[Wave, dict[str, float], dict[str, str]]]  # row → sound, scores, why others are missing


def row_of(row: str, amount: float) -> str:
    """What a transfer that goes ``amount`` of the way is called in the row ``continuous`` or ``requantised``."""
    if row == "requantised" and amount == 0:
        return "unmoved"
    return row if amount == 1 else f"{row} a={amount:g}"


class Space:
    """The recordings in the space: latents, means, the fit and the class probe.

    Args:
        label: the column along which sounds are moved.
    """

    def __init__(
        self, tokenizer: HasLatents, recordings: Sequence[Recording], waves: Mapping[str, Wave], z: Frames,
        speech: Sequence[NDArray[np.float64]], label: str,
    ) -> None:  # fmt: skip
        self.tokenizer, self.rate, self.label = tokenizer, tokenizer.sample_rate, label
        self.recordings, self.waves, self.z = recordings, waves, z
        pooled = features.pooled(recordings, z, waves, self.rate)
        self.means = {recording.id: mean for recording, mean in zip(recordings, pooled, strict=True)}
        self.fit = moves.fit_of(recordings, self.means, label, speech)
        train = [r for r in recordings if r.split == "train"]
        self.probe = heard.ClassProbe([waves[r.id] for r in train], [r.labels[label] for r in train], self.rate)
        test = [r for r in recordings if r.split == "test"]
        found = self.probe.model.predict(np.stack([self.probe.features(waves[r.id]) for r in test]))
        self.known = float(np.mean([name == r.labels[label] for name, r in zip(found, test, strict=True)]))

    def sound(self, vectors: NDArray[Any], requantise: bool, samples: int | None = None) -> Wave:
        wav = self.tokenizer.from_latents(torch.from_numpy(np.asarray(vectors, np.float32)), requantise)[0]
        return wav[:samples].float().cpu().numpy()

    def codes(self, vectors: NDArray[np.float32]) -> NDArray[np.int64]:
        device = self.tokenizer.device
        with torch.inference_mode():
            return self.tokenizer.quantise(torch.from_numpy(vectors).to(device)).cpu().numpy()

    # ---- walks ---------------------------------------------------------------------------------------------------
    def walk(self, points: Sequence[Sequence[Recording]], mode: str, untrained: Space | None) -> Sounds:
        """One walk in all rows; of each way-point the recordings it is the mean of, the first its note."""
        rate = self.tokenizer.frame_rate
        path = walks.walk(len(points), rate)
        along = self.path(points, mode, path)
        samples = len(along) * self.tokenizer.samples_per_frame
        sounds = {row: self.sound(along, row == "requantised") for row in ("continuous", "requantised")}
        if untrained is not None:
            sounds["untrained"] = untrained.sound(untrained.path(points, mode, path), False)
        sounds["cross-fade"] = walks.cross_fade(path, [self.waves[own[0].id] for own in points], samples)
        classes = [own[0].labels[self.label] for own in points]
        midis = [{r.midi for r in own} for own in points]
        hertz = [440 * 2 ** ((int(m) - 69) / 12) if len(own) == 1 and (m := next(iter(own))) is not None else None
                 for own in midis]  # fmt: skip
        found: Sounds = {}
        for row, wav in sounds.items():
            scores = heard.score_walk(wav, self.rate, path, classes, hertz, self.probe)
            if row == "requantised":
                codes = self.codes(along)
                scores["distinct-codes"] = len(np.unique(codes, axis=0)) / len(codes)
            found[row] = (wav, scores, {})
        return found

    def path(self, points: Sequence[Sequence[Recording]], mode: str, path: walks.Path) -> NDArray[np.float32]:
        means = np.stack([np.mean([self.means[r.id] for r in own], axis=0) for own in points])
        along = path.vectors(means.astype(np.float32))
        return along if mode == "centroid" else walks.with_notes(path, along, [self.z[own[0].id] for own in points])

    # ---- transfers -------------------------------------------------------------------------------------------------
    def transfer(
        self, wav: Wave, z: NDArray[np.float32], held: Recording | None, label: str | None, target: str,
        source: str, amounts: Sequence[float], generator: np.random.Generator,
    ) -> Sounds:  # fmt: skip
        """One sound moved to ``target`` in all rows, each amount as a row of its own (`row_of`)."""
        own = self.means[held.id] if held is not None else z.mean(0).astype(np.float64)
        shift = self.fit.shift(source, label, target, held, own)
        others = sorted(set(self.fit.classes) - {label, target, moves.SPEECH})
        real = [r for r in self.recordings if r.split == "test" and r.labels[self.label] == target]
        real = [r for r in real if held is None or r.midi == held.midi] if held is not None else []
        sounds: dict[str, Wave] = {"reference": wav}
        for amount in amounts:
            for row in ("continuous", "requantised"):
                moved = self.sound(z + amount * shift, row == "requantised", len(wav))
                sounds[row_of(row, amount)] = moved
        sounds["random"] = self.sound(z + moves.random_like(shift, generator), True, len(wav))
        if others:
            third = self.fit.shift(source, label, others[int(generator.integers(len(others)))], held, own)
            sounds["other-class"] = self.sound(z + third, True, len(wav))
        if real:
            sounds["target"] = self.sound(self.z[real[0].id], True)
        found: Sounds = {}
        for row, made in sounds.items():
            scores, failures = {"posterior-target": self.probe.posterior(made, target)}, {}
            tests: dict[str, Callable[[Wave], float]] = {
                "onset-correlation": lambda made: heard.onsets_alike(made, wav, self.rate),
                "pitch-cents": lambda made: heard.cents_apart(made, wav, self.rate)[0],
                "pitch-within-50": lambda made: heard.cents_apart(made, wav, self.rate)[1],
            }
            for metric, test in tests.items():
                try:
                    scores[metric] = test(made)
                except CannotScore as error:
                    failures[metric] = error.reason
            scores["level-difference"] = heard.level(made) - heard.level(wav)
            scores["clipped"] = float((np.abs(made) >= 1).mean())
            if real:
                a, b = (self.probe.features(part) for part in (made, self.waves[real[0].id]))
                scores["distance-to-target"] = float(np.abs(a - b)[: len(a) // 2 + 1].mean())
            found[row] = (made, scores, failures)
        return found
