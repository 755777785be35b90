"""Worker process of PESQ (see eval/harness/worker_pool.py): reference and degraded clip in one buffer, a score out."""

from __future__ import annotations

from typing import Any

import numpy as np

from eval.harness.worker_pool import Answer, Handler, serve

REASONS = {  # the package's exceptions, in words that can be counted
    "NoUtterancesError": "no utterance found in the reference",
    "BufferTooShortError": "shorter than 0.25 s",
}


def start(settings: dict[str, Any]) -> Handler:
    """No settings."""
    import pesq

    def handle(header: dict[str, Any], payload: bytes) -> Answer:
        reference, degraded = np.frombuffer(payload, "<f4").reshape(2, -1)
        try:
            return {"score": float(pesq.pesq(header["rate"], reference, degraded, header["mode"]))}
        except pesq.PesqError as error:
            name = type(error).__name__
            return {"failure": REASONS.get(name, name)}

    return handle


if __name__ == "__main__":
    serve(start)
