"""The sounds of walks and transfers, in all rows, with what is heard of each."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from eval.harness.audio import CannotScore, Wave
from eval.space import features, heard, moves, walks
from eval.space.heard import ClassProbe, Heard
from eval.space.reading import Located
from eval.space.recordings import Recording

Sounds = dict[str, tuple[Wave, dict[str, float], dict[str, str]]]  # row → sound, scores, why others are missing


def row_of(row: str, amount: float) -> str:
    """What a transfer that goes ``amount`` of the way is called in the row ``continuous`` or ``requantised``."""
    if row == "requantised" and amount == 0:
        return "unmoved"
    return row if amount == 1 else f"{row} a={amount:g}"


class Space:
    """The recordings in the space: sounds, latents, means, the fit and the class probe.

    Args:
        speech: means of clips of speech, ``[d]`` each.
        label: the column along which sounds are moved.
    """

    def __init__(self, located: Located, speech: Sequence[NDArray[np.float64]], label: str) -> None:
        self.located, self.speech, self.label = located, speech, label
        self.tokenizer, self.rate = located.tokenizer, located.tokenizer.sample_rate
        self.heard = {name: Heard(wav, self.rate) for name, wav in located.waves.items()}
        names = [recording.id for recording in located.recordings]
        self.means = dict(zip(names, located.pooled(located.z), strict=True))

    @cached_property
    def fit(self) -> moves.Fit:
        return moves.fit_of(self.located.of("train"), self.means, self.label, self.speech)

    @cached_property
    def probe(self) -> ClassProbe:
        """Of the train recordings."""
        train = self.located.of("train")
        return ClassProbe([self.heard[r.id] for r in train], [r.labels[self.label] for r in train])

    def known(self) -> float:
        """The share of test recordings that the class probe is right on."""
        test = self.located.of("test")
        found = self.probe.model.predict(np.stack([self.probe.features(self.heard[r.id]) for r in test]))
        return float(np.mean([name == r.labels[self.label] for name, r in zip(found, test, strict=True)]))

    def sound(self, vectors: NDArray[Any], requantise: bool, samples: int | None = None) -> Wave:
        wav = self.tokenizer.from_latents(torch.from_numpy(np.asarray(vectors, np.float32)), requantise)[0]
        return wav[:samples].float().cpu().numpy()

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
        sounds["cross-fade"] = walks.cross_fade(path, [self.heard[own[0].id].wav for own in points], samples)
        classes = [own[0].labels[self.label] for own in points]
        midis = [{r.midi for r in own} for own in points]
        hertz = [440 * 2 ** ((int(m) - 69) / 12) if len(own) == 1 and (m := next(iter(own))) is not None else None
                 for own in midis]  # fmt: skip
        found: Sounds = {}
        for row, wav in sounds.items():
            scores = heard.score_walk(Heard(wav, self.rate), path, classes, hertz, self.probe)
            if row == "requantised":
                codes = features.codes_of(self.tokenizer, along)
                scores["distinct-codes"] = len(np.unique(codes, axis=0)) / len(codes)
            found[row] = (wav, scores, {})
        return found

    def path(self, points: Sequence[Sequence[Recording]], mode: str, path: walks.Path) -> NDArray[np.float32]:
        means = np.stack([np.mean([self.means[r.id] for r in own], axis=0) for own in points])
        along = path.vectors(means.astype(np.float32))
        return (
            along
            if mode == "centroid"
            else walks.with_notes(path, along, [self.located.z[own[0].id] for own in points])
        )

    # ---- transfers -------------------------------------------------------------------------------------------------
    def transfer(
        self, original: Heard, z: NDArray[np.float32], held: Recording | None, label: str | None, target: str,
        source: str, amounts: Sequence[float], generator: np.random.Generator,
    ) -> Sounds:  # fmt: skip
        """One sound moved to ``target`` in all rows, each amount as a row of its own (`row_of`)."""
        own = self.means[held.id] if held is not None else z.mean(0).astype(np.float64)
        shift = self.fit.shift(source, label, target, held, own)
        others = sorted(set(self.fit.classes) - {label, target, moves.SPEECH})
        alike = [r for r in self.located.of("test") if held is not None and r.midi == held.midi]
        real = [r for r in alike if r.labels[self.label] == target]
        sounds: dict[str, Wave] = {"reference": original.wav}
        samples = len(original.wav)
        for amount in amounts:
            for row in ("continuous", "requantised"):
                sounds[row_of(row, amount)] = self.sound(z + amount * shift, row == "requantised", samples)
        sounds["random"] = self.sound(z + moves.random_like(shift, generator), True, samples)
        if others:
            third = self.fit.shift(source, label, others[int(generator.integers(len(others)))], held, own)
            sounds["other-class"] = self.sound(z + third, True, samples)
        if real:
            sounds["target"] = self.sound(self.located.z[real[0].id], True)
        found: Sounds = {}
        for row, wav in sounds.items():
            made, failures = Heard(wav, self.rate), {}
            scores = {"posterior-target": self.probe.posterior(made, target)}
            try:
                scores["onset-correlation"] = heard.onsets_alike(made, original)
            except CannotScore as error:
                failures["onset-correlation"] = error.reason
            try:
                scores["pitch-cents"], scores["pitch-within-50"] = heard.cents_apart(made, original)
            except CannotScore as error:
                failures |= dict.fromkeys(("pitch-cents", "pitch-within-50"), error.reason)
            scores["level-difference"] = features.level(wav) - features.level(original.wav)
            scores["clipped"] = float((np.abs(wav) >= 1).mean())
            if real:
                a, b = (self.probe.features(part) for part in (made, self.heard[real[0].id]))
                scores["distance-to-target"] = float(np.abs(a - b)[: len(a) // 2 + 1].mean())
            found[row] = (wav, scores, failures)
        return found
