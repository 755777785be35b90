"""What the vectors of one row tell: probes with their controls, clusters, variances, an additive model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from omegaconf import DictConfig
from sklearn.decomposition import PCA

from eval.harness.report import Report
from eval.space import clusters, effects
from eval.space.probing import Side, probe
from eval.space.recordings import SPLITS, Recording

ENOUGH = 10  # test recordings of a register that what was learnt below it is tried on
COMPONENTS = 32  # principal components of train, beside all dimensions
Vectors = NDArray[np.float64]
Mask = NDArray[np.bool_]


class Scores:
    """Files what one row's vectors ``[recordings, d]`` tell about ``recordings``."""

    def __init__(self, report: Report, recordings: Sequence[Recording], cfg: DictConfig) -> None:
        self.report, self.cfg, self.recordings = report, cfg, recordings
        self.labels = list(cfg.labels)
        self.split = np.array([recording.split for recording in recordings])
        self.groups = np.array([recording.group for recording in recordings])
        self.classes = {label: sorted({r.labels[label] for r in recordings}) for label in self.labels}
        self.y = {
            label: np.array([names.index(r.labels[label]) for r in recordings]) for label, names in self.classes.items()
        }
        self.items: list[dict[str, Any]] = []
        self.leaks: list[str] = []

    def values(self, label: str, split: str) -> list[str]:
        return [r.labels[label] for r in self.recordings if r.split == split]

    def file(self, row: str, vectors: Vectors) -> None:
        """All scores of one row."""
        train, valid, test = (vectors[self.split == split] for split in SPLITS)
        for label in self.labels:
            self.probe(row, label, vectors)
        self.conditional(row, vectors)
        scaled = clusters.scaled(train, valid, test)
        for label in self.labels:
            self.clusters(row, label, scaled[0], scaled[2])
        n = len(test)
        self.report.number(row, "effective-dimension", effects.effective_dimension(train), len(train))
        for label in self.labels:
            self.report.number(
                row, f"variance-ratio/{label}", effects.variance_ratio(test, self.values(label, "test")), n
            )
        model = effects.Additive.fit(train, self.additive("train"))
        r2 = effects.explained(test, model.predict(self.additive("test")), train.mean(0))
        self.report.number(row, "additive-r2", r2, n, labels=list(self.additive("test")))

    def additive(self, split: str) -> dict[str, list[str]]:
        """The labels of the additive model: the first, and pitch where it is known, else the others."""
        own = [r for r in self.recordings if r.split == split]
        first = {self.labels[0]: [r.labels[self.labels[0]] for r in own]}
        if all(r.midi is not None for r in self.recordings):
            return first | {"pitch": [str(r.midi) for r in own]}
        return first | {label: [r.labels[label] for r in own] for label in self.labels[1:]}

    def sides(
        self,
        vectors: Vectors,
        y: NDArray[np.int64],
        heard: Mask | None = None,
        tested: Mask | None = None,
    ) -> tuple[Side, Side, Side]:
        """Train, valid and test; of the first two those that are ``heard`` (None: all), of test those ``tested``."""

        def side(split: str, chosen: Mask | None) -> Side:
            mask = (self.split == split) & (True if chosen is None else chosen)
            return Side(vectors[mask].astype(np.float32), y[mask], self.groups[mask])

        return side("train", heard), side("valid", heard), side("test", tested)

    def share(self, row: str, metric: str, ids: Sequence[str], right: NDArray[np.float64], **extra: Any) -> None:
        """A share of test recordings, with its interval over groups."""
        parts: dict[str, tuple[float, float]] = {}
        for name, value in zip(ids, right.tolist(), strict=True):
            before = parts.get(name, (0.0, 0.0))
            parts[name] = (before[0] + value, before[1] + 1)
        self.report.rate(row, metric, parts, recordings=len(right), **extra)

    def probe(self, row: str, label: str, vectors: Vectors) -> None:
        y, names = self.y[label], self.classes[label]
        sides = self.sides(vectors, y)
        found = probe(*sides, len(names), self.cfg.seed)
        groups = sides[2].groups.tolist()
        self.share(
            row, f"accuracy/{label}", groups, found.right, classes=len(names), chance=1 / len(names),
            most_frequent=found.most_frequent, train=len(sides[0].y), decay=found.decay, p=found.p,
        )  # fmt: skip
        control = found.shuffled
        interval = (float(np.percentile(control, 2.5)), float(np.percentile(control, 97.5)))
        self.report.number(
            row,
            f"accuracy-shuffled/{label}",
            float(control.mean()),
            len(sides[2].y),
            interval,
            shuffles=len(control),
            p=found.p,
        )
        self.report.number(row, f"macro-f1/{label}", found.f1, len(sides[2].y), found.f1_interval)
        if found.leaks:
            self.leaks.append(f"{row}, {label}: the shuffled control is above chance: something leaks between splits")
        if row == "duration-and-level" and found.p is not None and found.p <= 0.05:
            self.leaks.append(
                f"{row}, {label}: {100 * found.right.mean():.0f} %, p {found.p:.2f}: how long or how loud a recording "
                f"is tells its {label}, and no row's score of it is of the sound alone"
            )
        if vectors.shape[1] > COMPONENTS < len(sides[0].y):
            few = PCA(COMPONENTS, random_state=self.cfg.seed).fit(sides[0].x).transform(vectors.astype(np.float32))
            found32 = probe(*self.sides(few, y), len(names), self.cfg.seed, 0, found.decay)
            self.share(row, f"accuracy-{COMPONENTS}-components/{label}", groups, found32.right, decay=found.decay)
        test = [r for r in self.recordings if r.split == "test"]
        for recording, guess in zip(test, found.guesses, strict=True):
            self.items.append(
                {
                    "id": recording.id,
                    "row": row,
                    "probe": label,
                    "label": recording.labels[label],
                    "guess": names[guess],
                }
            )

    def conditional(self, row: str, vectors: Vectors) -> None:
        """The first label within each class of the last and the other way round, and in a register not trained on."""
        first, last = self.labels[0], self.labels[-1]
        if first == last:
            return
        for asked, held in ((first, last), (last, first)):
            within = [self.y[held] == k for k in range(len(self.classes[held]))]
            self.asked(row, f"accuracy-within/{asked} by {held}", vectors, asked, [(mask, mask) for mask in within])
        if all(name.lstrip("-").isdigit() for name in self.classes[last]) and len(self.classes[last]) > 2:
            counts = Counter(self.values(last, "test"))
            highest = max((name for name, count in counts.items() if count >= ENOUGH), key=int, default=None)
            if highest is None:
                return
            place = np.array([int(name) for name in self.classes[last]])[self.y[last]]
            sides = (place < int(highest), place == int(highest))
            self.asked(row, f"accuracy-transfer/{first} to {last} {highest}", vectors, first, [sides])

    def asked(self, row: str, metric: str, vectors: Vectors, label: str, parts: Sequence[tuple[Mask, Mask]]) -> None:
        """File what probes of ``label`` get right together: each hears one mask of recordings and is tested on another;
        nothing where there is nothing to tell apart or to test.
        """
        groups, right = [], []
        for heard, tested in parts:
            sides = self.sides(vectors, self.y[label], heard, tested)
            if len(set(sides[0].y)) > 1 and len(sides[2].y):
                right += probe(*sides, len(self.classes[label]), self.cfg.seed, 0, 1e-2).right.tolist()
                groups += sides[2].groups.tolist()
        if groups:
            self.share(row, metric, groups, np.array(right), chance=1 / len(self.classes[label]))

    def clusters(self, row: str, label: str, train: Vectors, test: Vectors) -> None:
        """Clusters as many as classes and as BIC says, against this label and against the same dealt out anew."""
        values, seed, n = self.values(label, "test"), self.cfg.seed, len(test)
        count = self.cfg.clusters or len(self.classes[label])
        found = clusters.assignments(train, test, count, seed)
        for method, own in found.items():
            for kind, value in clusters.agreement(values, own).items():
                self.report.number(row, f"{kind}-{method}/{label}", value, n, clusters=count)
        generator = np.random.default_rng(seed)
        dealt = [clusters.agreement(generator.permutation(values).tolist(), found["k-means"])["ami"] for _ in range(20)]
        low, high = np.percentile(dealt, [2.5, 97.5])
        self.report.number(
            row, f"ami-shuffled/{label}", float(np.mean(dealt)), n, (float(low), float(high)), clusters=count
        )
        if (score := clusters.silhouette(test, values)) is not None:
            self.report.number(row, f"silhouette/{label}", score, n)
        if label == self.labels[0]:
            best = clusters.choose_count(train, seed)
            own = clusters.mixture(train, best, seed).predict(test)
            self.report.number(row, f"ami-by-bic/{label}", clusters.agreement(values, own)["ami"], n, clusters=best)
            self.report.number(row, "stability", clusters.stability(train, test, count), n, seeds=clusters.SEEDS)
