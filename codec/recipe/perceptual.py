"""PESQ during training: wide band (ITU-T P.862.2, 16 kHz) and narrow band (P.862.1, 8 kHz), where pesq is installed.

Its C code can end the process it runs in, so it runs in one of its own (this file as a script): a crash costs the
scores of that validation, never the training.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

RATES = {"wb": 16_000, "nb": 8_000}
LONGEST = 30.0  # s of a clip that are judged
PATIENCE = 600.0  # s for all clips of a validation


def pesq_scores(pairs: list[tuple[np.ndarray, np.ndarray]], sample_rate: int) -> dict[str, float]:
    """Mean scores of ``(reference, output)`` pairs, float32 ``[samples]`` of equal length at ``sample_rate`` Hz.

    Returns:
        ``pesq_wb``, ``pesq_nb``, and ``pesq_failed`` (pairs without a score) where there are any; nothing at all when
        pesq is not installed.
    """
    if not pairs or importlib.util.find_spec("pesq") is None:
        return {}
    import soxr

    arrays: dict[str, Any] = {}
    for number, pair in enumerate(pairs):
        for mode, rate in RATES.items():
            clips = [soxr.resample(wav[: int(LONGEST * sample_rate)], sample_rate, rate, "HQ") for wav in pair]
            arrays[f"{mode}{number}"] = np.stack(clips)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pairs.npz"
        np.savez(path, **arrays)  # type: ignore[arg-type]  # numpy types its own options only
        try:
            worker = subprocess.run(  # in a session of its own: what stops a training lets its validation end
                [sys.executable, __file__, str(path)],
                stdout=subprocess.PIPE, timeout=PATIENCE, text=True, start_new_session=True,
            )  # fmt: skip
            lines = worker.stdout.splitlines()
        except subprocess.TimeoutExpired as error:
            lines = (error.stdout or b"").decode().splitlines() if isinstance(error.stdout, bytes | None) else []
    found = dict(json.loads(line) for line in lines if line.endswith("]"))
    result: dict[str, float] = {}
    for mode in RATES:
        values = [v for k, v in found.items() if k.startswith(mode) and v is not None]
        if values:
            result[f"pesq_{mode}"] = float(np.mean(values))
    failed = sum(any(found.get(f"{mode}{n}") is None for mode in RATES) for n in range(len(pairs)))
    return {**result, "pesq_failed": float(failed)} if failed else result


def main(path: str) -> None:
    """Scores of a file of pairs, one JSON line each as soon as it is known."""
    import pesq

    with np.load(path) as arrays:
        for name in arrays.files:
            mode = name[:2]
            reference, output = arrays[name]
            score = None
            if np.any(reference) and np.any(output):
                try:
                    score = float(pesq.pesq(RATES[mode], reference, output, mode))
                except pesq.PesqError:
                    score = None  # no utterance found, or too short
            print(json.dumps([name, score]), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
