"""Recordings as points on paper: PCA and LDA fitted on train, t-SNE of what is shown; with what each does not show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.manifold import TSNE

Vectors = NDArray[np.float64]
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#8c6d31")  # Okabe and Ito
MARKERS = "osD^vPX*"


@dataclass(frozen=True)
class Projection:
    """``points [n, 2]`` of the recordings that are shown, and a caption."""

    name: str
    points: Vectors
    caption: str


def project(train: Vectors, labels: Sequence[str], shown: Vectors, seed: int, label: str) -> list[Projection]:
    """The pictures of ``shown [n, d]``; ``train [m, d]`` with the classes ``labels`` of ``label`` fits PCA and LDA."""
    pca = PCA(2, random_state=seed).fit(train)
    share = 100 * pca.explained_variance_ratio_
    found = [
        Projection(
            "PCA", pca.transform(shown),
            f"The two widest axes of the training recordings ({share[0]:.0f} % and {share[1]:.0f} % of the variance): "
            "what is close here may be far apart on the axes that are not shown.",
        )
    ]  # fmt: skip
    if len(set(labels)) > 2:
        lda = LinearDiscriminantAnalysis(n_components=2, solver="eigen", shrinkage="auto").fit(train, labels)
        found.append(
            Projection(
                "LDA", lda.transform(shown),
                f"The two axes that tell {label} apart best on the training recordings; shown are test recordings, "
                "which they have not seen. Of its own training points LDA separates noise.",
            )
        )  # fmt: skip
    perplexity = min(30.0, (len(shown) - 1) / 3)
    if perplexity >= 2:
        found.append(
            Projection(
                "t-SNE",
                TSNE(2, perplexity=perplexity, random_state=seed, init="pca", max_iter=500).fit_transform(shown),
                f"Neighbours stay neighbours (perplexity {perplexity:.0f}, seed {seed}); sizes of groups and distances "
                "between groups mean nothing.",
            )
        )  # fmt: skip
    return found


def draw(projection: Projection, classes: Sequence[str], title: str, path: Path) -> None:
    """An SVG: colour and shape by class."""
    from matplotlib.figure import Figure  # takes a second, and only who draws needs it

    figure = Figure(figsize=(6, 5), layout="constrained")
    axes = figure.add_subplot()
    values = np.array(classes)
    for number, name in enumerate(sorted(set(classes))):
        own = projection.points[values == name]
        axes.scatter(
            own[:, 0], own[:, 1], s=22, label=name[:30].replace("$", r"\$"), alpha=0.8, linewidths=0,
            c=COLOURS[number % len(COLOURS)], marker=MARKERS[number % len(MARKERS)],
        )  # fmt: skip
    axes.set(title=f"{title}: {projection.name}".replace("$", r"\$"), xticks=[], yticks=[])
    if len(set(classes)) <= 24:
        axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})
