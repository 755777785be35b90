"""DNSMOS: predicted opinion scores of speech without a reference (Reddy et al. 2021, 2022).

Four numbers that papers mix up: ``p808`` (overall, P.808 network) and ``sig``, ``bak``, ``ovrl`` (P.835
network). The networks are the files inside the package ``speechmos``, which are Microsoft's; the code around
them is ours, so that neither librosa nor a download is needed, and is tested against the package. No level
normalisation: ``ovrl`` depends on the level (0.4 MOS at a gain of 0.05), ``p808`` does not. It is not a judge
of silence (which scores 1.8).
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from eval.harness.audio import CannotScore, Wave, check_wave, resample
from eval.harness.worker_pool import Answer, Job, WorkerPool
from training.identity import file_hash

RATE = 16_000
SCORES = ("p808", "sig", "bak", "ovrl")
SHORTEST = 0.1  # s


def scores_of(answer: Answer) -> dict[str, float] | CannotScore:
    """What a worker's answer says."""
    return CannotScore(answer["failure"]) if "failure" in answer else {name: answer[name] for name in SCORES}


class DNSMOS(ExitStack):
    """DNSMOS P.808 and P.835 in worker processes, which a ``with`` block ends.

    Raises:
        CannotScore: speechmos or onnxruntime is not installed.
    """

    def __init__(self, processes: int = 2, timeout: float = 600.0) -> None:
        super().__init__()
        found = importlib.util.find_spec("speechmos")  # not imported: that would load librosa
        if found is None or found.origin is None or importlib.util.find_spec("onnxruntime") is None:
            raise CannotScore("not computed: speechmos or onnxruntime is not installed")
        folder = Path(found.origin).parent / "dnsmos_models"
        self.networks = {"p835": folder / "sig_bak_ovr.onnx", "p808": folder / "model_v8.onnx"}
        settings = {name: str(path) for name, path in self.networks.items()}
        self.pool = WorkerPool("eval.metrics.mos_worker", settings, processes, timeout)
        self.callback(self.pool.close)

    def score(self, waves: list[Wave], sample_rate: int) -> list[dict[str, float] | CannotScore]:
        """``{"p808", "sig", "bak", "ovrl"}`` of each clip ``[samples]``, or why not."""
        found: list[Any] = []
        jobs: list[Job] = []
        for wav in waves:
            try:
                check_wave(wav, sample_rate, SHORTEST)
                found.append(None)
            except CannotScore as error:
                found.append(error)
                continue
            # resampling can overshoot full scale by a little; the networks expect -1 ... 1
            samples = resample(wav, sample_rate, RATE).clip(-1.0, 1.0)
            jobs.append(({}, np.ascontiguousarray(samples, dtype="<f4").tobytes()))
        answers = iter(self.pool.map(jobs))
        return [value or scores_of(next(answers)) for value in found]

    def how(self) -> dict[str, object]:
        """What a result records about these scores."""
        return {
            "package": f"speechmos {importlib.metadata.version('speechmos')}",
            "onnxruntime": importlib.metadata.version("onnxruntime"),
            "sha256": {name: file_hash(path) for name, path in self.networks.items()},
            "sample_rate": RATE,
            "level": "not normalised",
        }
