"""How a served model does under load: requests for speech, one at a time and many at once.

    python scripts/bench_serve.py                             # 20 alone, then 200, eight at once
    python scripts/bench_serve.py --requests 400 --together 16 --model runs/lm-all/final

Starts the server on this machine (lm/serve.py, port 0) and asks it for the test sentences of the embedded corpus, each
with a seed of its own. Prints: how many were lost; seconds to the first audio and to the last (median and 95th
percentile); the real-time factor, seconds until the last sample per second of audio; the server's processor seconds per
second of audio; and how its resident memory grew over the second half. Beside that the load of the machine, which all
of it depends on.
"""

import training.help  # noqa: F401

import argparse
import http.client
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil

from training.arguments import at_least
from training.config import ending_plainly
from training.places import REPOSITORY
from training.streams import say

METADATA = REPOSITORY / "data/mini/metadata.jsonl"


@dataclass(frozen=True)
class Asked:
    """What came of one request: seconds to its first audio and to its last, and of audio; None: it was lost."""

    first: float
    last: float
    audio: float


def ask(port: int, model: str, text: str, seed: int, rate: int) -> Asked | None:
    """One request for raw samples at ``rate`` Hz, read as they come."""
    body = json.dumps({"model": model, "input": text, "seed": seed, "response_format": "pcm"})
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
    start, first, size = time.perf_counter(), 0.0, 0
    try:
        connection.request("POST", "/v1/audio/speech", body)
        answer = connection.getresponse()
        while piece := answer.read1(1 << 16):
            first = first or time.perf_counter() - start
            size += len(piece)
    except (OSError, http.client.HTTPException) as error:
        say(f"lost: {error!r}")
        return None
    finally:
        connection.close()
    if answer.status != 200 or not size:
        say(f"lost: status {answer.status}")
        return None
    return Asked(first, time.perf_counter() - start, size / 2 / rate)


def row(name: str, found: list[Asked | None], processor: float) -> str:
    """A line of the table."""
    whole = [one for one in found if one is not None]
    if not whole:
        return f"| {name} | {len(found)} of {len(found)} | | | | |"

    def of(values: list[float]) -> str:
        return " / ".join(f"{value:.2f}" for value in np.percentile(values, (50, 95)))

    audio = sum(one.audio for one in whole)
    columns = of([one.first for one in whole]), of([one.last for one in whole]), of([o.last / o.audio for o in whole])
    return f"| {name} | {len(found) - len(whole)} of {len(found)} | {' | '.join(columns)} | {processor / audio:.2f} |"


@ending_plainly()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=at_least(1), default=200)
    parser.add_argument("--alone", type=at_least(0), default=20, help="requests before them, one at a time")
    parser.add_argument("--together", type=at_least(1), default=8, help="asked at once")
    parser.add_argument("--model", default="checkpoints/lm-all-mini")
    options = parser.parse_args()
    lines = map(json.loads, METADATA.read_text(encoding="utf-8").splitlines())
    texts = [line["text"] for line in lines if line["domain"] == "speech" and line["split"] == "test"]
    command = [sys.executable, str(REPOSITORY / "lm/serve.py"), "port=0", f"model={options.model}"]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    try:
        assert server.stdout is not None
        said = server.stdout.readline()
        if "http://" not in said:
            raise SystemExit(f"the server did not start: {said}")
        port, process = int(said.rpartition(":")[2].partition("/")[0]), psutil.Process(server.pid)
        connection = http.client.HTTPConnection("127.0.0.1", port)
        connection.request("GET", "/v1/models")
        card = json.loads(connection.getresponse().read())["data"][0]

        def one(number: int) -> tuple[Asked | None, int]:
            found = ask(port, card["id"], texts[number % len(texts)], number, card["sample_rate"])
            return found, process.memory_info().rss

        def run(name: str, count: int, together: int) -> list[int]:
            before = sum(process.cpu_times()[:2])
            with ThreadPoolExecutor(together) as pool:
                done = list(pool.map(one, range(count)))
            processor = sum(process.cpu_times()[:2]) - before
            print(row(name, [found for found, _ in done], processor), flush=True)
            return [memory for _, memory in done]

        print(
            f"{os.cpu_count()} cores, load {' '.join(f'{load:.1f}' for load in os.getloadavg())}; {Path(options.model)}"
        )
        print("| at once | lost | first audio, s: p50 / p95 | last | real-time factor | processor s per s of audio |")
        print("|---|---|---|---|---|---|")
        run("1", options.alone, 1)
        memory = run(str(options.together), options.requests, options.together)
        half = memory[len(memory) // 2 :]
        print(
            f"memory of the second half: {half[0] / 1e6:.0f} MB at its start, {max(half) / 1e6:.0f} MB at most, "
            f"{half[-1] / 1e6:.0f} MB at its end; load {os.getloadavg()[0]:.1f}"
        )
    finally:
        server.terminate()
        server.wait()


if __name__ == "__main__":
    main()
