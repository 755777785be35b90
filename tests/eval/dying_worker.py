"""A worker for test_worker_pool.py: answers, fails, dies or hangs as the job says."""

import os
import time
from typing import Any

from eval.harness.worker_pool import Answer, Handler, serve


def start(settings: dict[str, Any]) -> Handler:
    if settings.get("linger"):
        time.sleep(60)
    if settings.get("refuse"):
        raise ModuleNotFoundError("no such model")

    def handle(header: dict[str, Any], payload: bytes) -> Answer:
        print("noise on standard output")  # foreign code does that; it must not reach the answers
        if header["do"] == "die":
            os.abort()
        if header["do"] == "hang":
            time.sleep(60)
        if header["do"] == "raise":
            raise ValueError("bad clip\nsecond line")
        return {"bytes": len(payload), "number": header["number"]}

    return handle


if __name__ == "__main__":
    if "GARBLE" in os.environ:
        print("a banner of a library, on standard output", flush=True)
    serve(start)
