"""How a server ends: what is being answered is let end, and what is for nobody is not waited for."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx2 as httpx  # what huggingface_hub and openai bring
import numpy as np
import pytest

from lm.serving.hearing import Hearing
from lm.serving.refusals import Refused
from lm.serving.speaking import Speaking
from tests.lm.serving.conftest import MODEL, SAID, Running, wait_until
from training.config import REPOSITORY


def test_the_end_waits_for_the_recording_in_work_and_for_no_other() -> None:
    go, made, told = threading.Semaphore(0), [], []

    def reconstruct(wave: np.ndarray, rate: int) -> int:
        made.append(len(wave))
        assert go.acquire(timeout=60)
        return rate

    model: Any = SimpleNamespace(tokenizer=SimpleNamespace(sample_rate=24_000))
    hearing = Hearing(model, lambda *_: SimpleNamespace(reconstruct=reconstruct), together=4, waiting=4)  # type: ignore[arg-type, return-value]
    for size in (1, 2, 3, 4):
        hearing.ask(("reconstruct", None, None), np.zeros(size), told.append)
        wait_until(lambda: made)  # the first alone, and those that come while it is made together
    go.release()
    wait_until(lambda: len(made) == 2)
    start = time.monotonic()
    assert hearing.close(0.2) is False and time.monotonic() - start < 30
    go.release()
    assert hearing.close(60) is True
    assert made == [1, 2] and told[0] == 24_000
    assert [str(one) for one in told[1:] if isinstance(one, Refused)] == 3 * [
        "the server is ending: ask again when it is back."
    ]


def begun(folder: Path, *command: str, **settings: str) -> Any:
    """A server in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), **settings}
    return subprocess.Popen(
        [sys.executable, *command, "port=0", "device=cpu"],
        cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


STUCK = """
import threading, types
import lm.serve
threading.Thread(target=threading.Event().wait).start()
stuck = types.SimpleNamespace(name="stuck", close=lambda seconds: False, metrics=types.SimpleNamespace(answered=None))
lm.serve.service_of, lm.serve.application = lambda cfg: stuck, lambda service: None
{early}lm.serve.main()
"""
# a signal between the line that tells where the server is and uvicorn's hearing it
EARLY = """honest = lm.serve.server_of
def server_of(*given):
    import os, signal
    os.kill(os.getpid(), signal.SIGTERM)
    return honest(*given)
lm.serve.server_of = server_of
"""


@pytest.mark.slow
@pytest.mark.parametrize("early", ["", EARLY])
def test_what_cannot_be_ended_does_not_keep_the_server(tmp_path: Path, early: str) -> None:
    with begun(tmp_path, "-c", STUCK.format(early=early)) as run:
        assert run.stdout.readline().startswith("stuck at http://127.0.0.1:")
        if not early:
            run.send_signal(signal.SIGTERM)
        try:
            assert run.wait(60) == 128 + signal.SIGTERM
        finally:
            run.kill()
        assert run.stderr.read().splitlines()[-1] == "ended; what was in work is left, and was for nobody any more."


@pytest.mark.slow
def test_the_end_does_not_wait_for_what_nobody_waits_for(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    model, steps, go = server.service.model, [], threading.Event()
    speaking, step = Speaking(model, 2, 8, (3, 25, 9)), Speaking._step

    def held(self: Speaking, *given) -> None:
        steps.append(given)
        go.wait(60)
        step(self, *given)

    monkeypatch.setattr(Speaking, "_step", held)
    prompt, sampling, _ = model.speech(SAID, None, temperature=0.0)
    for seed in range(6):
        speaking.ask(prompt, sampling, seed, lambda _: None)
    end = threading.Thread(target=speaking.close)
    end.start()
    wait_until(lambda: speaking._closed)
    go.set()
    end.join(60)
    assert not end.is_alive() and len(steps) <= 2 and not speaking.asked


@pytest.mark.slow
def test_sigterm_lets_what_is_being_answered_end(tmp_path: Path) -> None:
    with begun(tmp_path, str(REPOSITORY / "lm/serve.py"), "host=0.0.0.0", ALMKIT_API_KEY="a-key") as run:
        said = run.stdout.readline()
        port = int(said.partition("http://0.0.0.0:")[2].partition("/")[0])
        assert "a-key" not in said
        asked = {"model": MODEL, "input": SAID, "temperature": 0, "response_format": "pcm"}
        client = httpx.Client(
            base_url=f"http://127.0.0.1:{port}", headers={"authorization": "Bearer a-key"}, timeout=120
        )
        whole = client.post("/v1/audio/speech", json=asked).content
        with client.stream("POST", "/v1/audio/speech", json=asked) as answer:
            pieces = answer.iter_raw()
            first = next(pieces)
            run.send_signal(signal.SIGTERM)
            rest = b"".join(pieces)
        heard, told = (np.frombuffer(pcm, "<i2").astype(int) for pcm in (first + rest, whole))
        assert len(heard) == len(told)
        assert np.abs(heard - told).max() < 0.01 * 32767  # who is late makes longer pieces, which sound a little other
        assert run.wait(60) == 128 + signal.SIGTERM
        assert "let end first" in run.stderr.read()
