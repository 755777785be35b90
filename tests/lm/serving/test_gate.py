"""What stands before a server's answers, with answers of the tests' own: late ones, and ones that nobody reads."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from types import SimpleNamespace

import pytest
import uvicorn

from lm.serve import listening
from lm.serving.gate import Gate, patient

LIMITS = SimpleNamespace(megabytes=1, upload_seconds=5, seconds=0.2, requests=4)
SCOPE = {"type": "http", "path": "/v1/audio/speech", "headers": [(b"host", b"localhost")]}
START = {"type": "http.response.start", "status": 200, "headers": []}


@pytest.mark.parametrize("begun", [False, True])
def test_an_answer_that_is_late_is_told_or_cut_off(begun: bool) -> None:
    """Before its first byte it is a 503 that says so; after it the connection ends: no part is taken for the whole."""
    sent, told = [], []

    async def never(scope, receive, send) -> None:
        if begun:
            await send(dict(START))
        await asyncio.sleep(60)

    async def receive() -> dict:
        return {"type": "http.request", "body": b""}

    async def send(message: dict) -> None:
        sent.append(message)

    gate, start = Gate(never, None, True, LIMITS, lambda *given: told.append(given)), time.monotonic()
    if begun:
        with pytest.raises(TimeoutError):
            asyncio.run(gate(SCOPE, receive, send))
        assert [message["type"] for message in sent] == ["http.response.start"]
    else:
        asyncio.run(gate(SCOPE, receive, send))
        head, body = sent
        error = json.loads(body["body"])["error"]
        assert head["status"] == 503 == error["code"] and (b"retry-after", b"5") in head["headers"]
        assert error["message"] == "the answer was not there within 0.2 s: try again later, or ask for less."
    assert time.monotonic() - start < 30 and gate.requests == 0
    assert [given[:2] for given in told] == [(SCOPE["path"], 200 if begun else 503)]


@pytest.mark.parametrize("reads", [False, True])
def test_who_reads_nothing_of_an_answer_is_cut_off(reads: bool) -> None:
    """64 MB, more than any socket keeps: a client that reads gets all of it, however slowly it is sent."""
    pieces, ended = 1024, threading.Event()

    async def large(scope, receive, send) -> None:
        await send(dict(START))
        for left in reversed(range(pieces)):
            await send({"type": "http.response.body", "body": bytes(1 << 16), "more_body": left > 0})
        if not reads:
            while (await receive())["type"] != "http.disconnect":
                pass
        ended.set()

    server = uvicorn.Server(uvicorn.Config(large, log_level="critical", lifespan="off", ws="none", http=patient(1.0)))
    with socket.create_server(("127.0.0.1", 0)) as bound:
        thread = threading.Thread(target=lambda: asyncio.run(server.serve([bound])))
        thread.start()
        try:
            with socket.create_connection(bound.getsockname(), timeout=60) as client:
                client.sendall(b"GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
                if not reads:
                    assert ended.wait(60), "it is still being sent"
                size = 0
                try:
                    while more := client.recv(1 << 20):
                        size += len(more)
                except ConnectionError:
                    assert not reads
            assert (size > pieces << 16) == reads
        finally:
            server.should_exit = True
            thread.join()


@pytest.mark.parametrize("host", ["a..b", "x" * 300])
def test_an_address_that_is_none_is_refused(host: str, refusal) -> None:
    assert f"host={host[:80]} is no name of a machine and no address" in refusal(listening, host, 0)
