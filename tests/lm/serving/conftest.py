"""A server in a thread of the test, with the models that ship."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import httpx2 as httpx  # what huggingface_hub and openai bring
import pytest

from lm.serve import listening, server_of, service_of
from lm.serving.api import Service
from training.config import compose

MODEL, SAID = "lm-all-mini", "peter carried the purple ladder"
SETTINGS = ["host=127.0.0.1", "device=cpu", "together=4", "waiting=4", "limits.upload_seconds=10", "limits.megabytes=2"]


def wait_until(so: Callable[[], Any]) -> None:
    """Wait for what others do, a minute at most."""
    until = time.monotonic() + 60
    while not so():
        assert time.monotonic() < until, "it has not come to it"
        time.sleep(0.01)


@dataclass
class Running:
    """A server, and who asks it."""

    service: Service
    port: int
    client: httpx.Client

    def speak(self, text: str = SAID, **more: Any) -> httpx.Response:
        return self.client.post("/v1/audio/speech", json={"model": MODEL, "input": text, "temperature": 0, **more})

    def idle(self) -> bool:
        """Whether nobody has a place in it; waits until that is so."""
        speaking, hearing = self.service.speaking, self.service.hearing
        wait_until(lambda: not (speaking.running or speaking.waiting or hearing.waiting))
        return True


@pytest.fixture(scope="session")
def start() -> Iterator[Callable[..., Running]]:
    """Start a server of the one service, with a key or other settings of its own."""
    cfg = compose("serve", SETTINGS)
    service, ends = service_of(cfg), []

    def begin(*settings: str, key: str | None = None) -> Running:
        server = server_of(compose("serve", [*SETTINGS, *settings]), service, key)
        bound = listening("127.0.0.1", 0)
        thread = threading.Thread(target=lambda: asyncio.run(server.serve([bound])))
        thread.start()
        port = bound.getsockname()[1]
        client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=120)
        ends.append((server, thread, client))
        return Running(service, port, client)

    yield begin
    for server, thread, client in ends:
        client.close()
        server.should_exit = True
        thread.join()
    service.close()


@pytest.fixture(scope="session")
def server(start: Callable[..., Running]) -> Running:
    return start()
