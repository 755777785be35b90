"""CLAP score and CLAP retrieval: does the audio fit its caption?

Score: mean cosine of a clip's embedding (mean over its fixed windows) and its caption's. Models can score above ground
truth, so the ground-truth row belongs beside it, and the checkpoint belongs to the name. Retrieval: how often a
caption's own clip is among the k clips that fit best, out of all clips of the set; the size of the set is part of it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from eval.metrics.clip_metric import ClipMetric


def clip_vector(windows: NDArray[np.float32]) -> NDArray[np.float64]:
    """Mean of window embeddings ``[windows, d]``, of length 1."""
    mean = windows.astype(np.float64).mean(0)
    return mean / np.linalg.norm(mean)


class ClapScore(ClipMetric):
    """Mean cosine; ``update(embeddings of windows, embeddings of captions)``, as `Clap` makes them."""

    higher_is_better = True

    def __init__(self) -> None:
        super().__init__(lambda windows, caption: float(clip_vector(windows) @ caption))


def retrieval(
    queries: NDArray[np.float64], items: NDArray[np.float64], targets: Sequence[int], at: Sequence[int] = (1, 5, 10)
) -> dict[str, list[float]]:
    """Per query: 1 where its own item is among the best k (``recall@k``), and the reciprocal of its rank.

    Args:
        queries: ``[queries, d]`` of length 1.
        items: ``[items, d]`` of length 1.
        targets: index of each query's own item.

    Ties count against the query: a space in which all vectors are equal retrieves nothing.
    """
    similarity = queries @ items.T
    own = similarity[np.arange(len(queries)), list(targets)]
    ranks = (similarity >= own[:, None]).sum(1)  # 1 = best
    found = {f"recall@{k}": (ranks <= k).astype(float).tolist() for k in at if k < len(items)}
    return found | {"reciprocal-rank": (1.0 / ranks).tolist()}
