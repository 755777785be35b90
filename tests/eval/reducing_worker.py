"""One of two processes that hold half of the clips each; prints what the metrics give over both.

python reducing_worker.py RANK MEETING_FILE
"""

import json
import sys

import numpy as np
import torch.distributed

from eval.metrics.clip_metric import ClipMetric
from eval.metrics.divergence import PosteriorDivergence
from eval.metrics.frechet import FrechetDistance
from eval.metrics.signal import si_sdr
from eval.metrics.wer import ErrorRate

REFERENCES = ["the tiger is near", "anna found a ladder", "who lost the guitar", "a b c d e"]
HYPOTHESES = ["the tiger is here", "anna found ladder", "who lost a guitar", ""]


def results(places: slice) -> dict[str, float]:
    """All metrics over the clips at ``places`` (of all processes)."""
    generator = np.random.default_rng(0)
    points = generator.standard_normal((4, 2, 20, 5))
    posteriors = generator.dirichlet(np.ones(6), (4, 2))
    waves = generator.standard_normal((4, 2, 400)).astype(np.float32)
    waves[3, 1, 5] = np.nan  # a failure, which must be counted once
    words, frechet = ErrorRate(), FrechetDistance()
    divergence, signal = PosteriorDivergence(), ClipMetric(si_sdr)
    words.update(HYPOTHESES[places], REFERENCES[places])
    divergence.update(posteriors[places, 0], posteriors[places, 1])
    signal.update(waves[places, 0], waves[places, 1])
    for first, second in points[places]:
        frechet.update(first, reference=True)
        frechet.update(second, reference=False)
    found = {name: float(metric.compute()) for name, metric in (
        ("wer", words), ("fad", frechet), ("kl", divergence), ("si-sdr", signal),
    )}  # fmt: skip
    with signal.sync_context(should_sync=torch.distributed.is_initialized()):
        found["failed"] = int(signal.failed)
    return found


if __name__ == "__main__":
    rank, meeting = int(sys.argv[1]), sys.argv[2]
    torch.distributed.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)
    print(json.dumps(results(slice(2 * rank, 2 * rank + 2))))
    torch.distributed.destroy_process_group()
