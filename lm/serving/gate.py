"""What stands before a server's every answer: who may ask, how much may come, and how an error looks.

    app = Gate(app, key=None, local=True, limits=cfg.limits, told=metrics.answered)

Nothing of a request is logged.
"""

from __future__ import annotations

import asyncio
import hmac
import resource
import time
import traceback
from collections.abc import Callable
from typing import Any
from urllib.parse import SplitResult, urlsplit

from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from lm.serving.refusals import Refused, error_body
from training.streams import say

LOOPBACK = ("127.0.0.1", "localhost", "::1")
# Nothing secret; and a page cannot send a key for itself.
OPEN_PATHS = ("/", "/playground.css", "/playground.js", "/health")
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; media-src blob:; "
    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
}


async def refuse(send: Send, refused: Refused) -> None:
    """Send a refusal as the whole answer."""
    body = error_body(refused.status, str(refused))
    headers = {"content-type": "application/json", "content-length": str(len(body)), **refused.headers}
    pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": refused.status, "headers": pairs})
    await send({"type": "http.response.body", "body": body})


class Gate:
    """The outermost application.

    Args:
        key: that requests must bear; None: none.
        local: bound to this machine alone: then only its own names are answered to, so that no page of another site
            reaches the server by a name that leads here.
        limits: ``megabytes`` of a request's body, ``upload_seconds`` in which it must have come, ``seconds`` until all
            is answered, and ``requests`` in work at the same time.
        told: gets path, status and seconds of each answer.
    """

    def __init__(
        self,
        app: ASGIApp,
        key: str | None,
        local: bool,
        limits: Any,
        told: Callable[[str, int, float], None],
    ) -> None:
        self.app, self.key, self.local, self.limits, self.told = app, key, local, limits, told
        self.requests = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        start, status, whole = time.perf_counter(), 0, False

        async def marked(message: Message) -> None:
            nonlocal status, whole
            if message["type"] == "http.response.start":
                status = message["status"]
                more = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
                message = {**message, "headers": [*message["headers"], *more]}
            else:
                whole = not message.get("more_body", False)
            await send(message)

        counted = scope["path"] not in OPEN_PATHS  # what needs no key takes no place from those who have one
        self.requests += counted
        try:
            self._check(scope, counted)
            async with asyncio.timeout(self.limits.seconds):
                await self.app(scope, self._bounded(receive), marked)
        except Refused as refused:
            await refuse(marked, refused)
        except TimeoutError:
            if status:
                raise  # the answer had begun: the connection ends, so that its end is missed
            late = f"the answer was not there within {self.limits.seconds:g} s: try again later, or ask for less."
            await refuse(marked, Refused(503, late, retry_after="5"))
        except Exception as error:
            # What an exception says may hold what a person wrote: where it happened is enough.
            places = "".join(traceback.format_tb(error.__traceback__))
            say(f"{type(error).__name__} in answering a request:\n{places}")
            if not whole:
                raise  # as above
        finally:
            self.requests -= counted
            self.told(scope["path"], status, time.perf_counter() - start)

    def _check(self, scope: Scope, counted: bool) -> None:
        """Raises Refused."""
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        host = headers.get("host", "")
        if self.local and _split(f"//{host}").hostname not in LOOPBACK:
            raise Refused(403, "this server answers to its own machine only: ask it as 127.0.0.1 or localhost.")
        if (origin := headers.get("origin")) is not None and _split(origin).netloc.lower() != host.lower():
            raise Refused(403, "pages of other origins may not ask this server.")
        if self.key is not None and counted:
            given = headers.get("authorization", "")
            scheme, _, said = given.partition(" ")
            if scheme.lower() != "bearer" or not hmac.compare_digest(said.strip().encode(), self.key.encode()):
                raise Refused(401, "a key is needed: send it as Authorization: Bearer KEY.", www_authenticate="Bearer")
        if counted and self.requests > self.limits.requests:
            raise Refused(
                503, f"{self.limits.requests} requests are in work: try again a little later.", retry_after="1"
            )
        length = headers.get("content-length", "0")
        if length.isdigit() and int(length) > self.limits.megabytes * 1e6:
            raise self._too_large

    @property
    def _too_large(self) -> Refused:
        return Refused(413, f"the request is larger than {self.limits.megabytes:g} MB: send less.")

    def _bounded(self, receive: Receive) -> Receive:
        """``receive`` that raises Refused for a body that is too large or too slow."""
        until, size, whole = time.monotonic() + self.limits.upload_seconds, 0, False

        async def bounded() -> Message:
            nonlocal size, whole
            if whole:  # nothing but the client's leave can come
                return await receive()
            try:
                message = await asyncio.wait_for(receive(), max(0.0, until - time.monotonic()))
            except TimeoutError:
                raise Refused(
                    408, f"the request did not come whole within {self.limits.upload_seconds:g} s.", connection="close"
                ) from None
            size += len(message.get("body", b""))
            if size > self.limits.megabytes * 1e6:
                raise self._too_large
            whole = not message.get("more_body", False)
            return message

        return bounded


def _split(address: str) -> SplitResult:
    """The parts of a Host or Origin header. Raises Refused for what is no address."""
    try:
        return urlsplit(address)
    except ValueError:
        raise Refused(400, "the Host or Origin of the request is no address.") from None


class Patient(H11Protocol):
    """uvicorn's HTTP, whose patience ends: with connections that send no whole head of a request, with bodies that
    nobody reads any more, and with clients that read nothing of what they asked for.
    """

    patience: float = 20.0  # seconds
    _deadline: asyncio.TimerHandle | None = None
    _stuck: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        if len(self.connections) > most_connections():
            transport.abort()
        self._await_more()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._answering and self._deadline is not None:  # it has come; the next one has a time of its own
            self._deadline.cancel()
            self._deadline = None
        self._await_more()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._stuck = self.loop.call_later(self.patience, self.transport.abort)

    def resume_writing(self) -> None:
        if self._stuck is not None:
            self._stuck.cancel()
        super().resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in (self._deadline, self._stuck):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        body = error_body(400, "this is no HTTP request.")
        head = f"HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n"
        self.transport.write(head.encode() + b"connection: close\r\n\r\n" + body)
        self.transport.close()

    @property
    def _answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _await_more(self) -> None:
        """Begin to count where a request has begun and not come whole."""
        if self._deadline is None and not self._answering and not self.transport.is_closing():
            self._deadline = self.loop.call_later(self.patience, self._give_up)

    def _give_up(self) -> None:
        self._deadline = None
        if not self._answering:
            self.transport.abort()


def most_connections() -> int:
    """So many that half of the files a process may have open are left: for recordings, and for what libraries read."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2


def patient(seconds: float) -> type[Patient]:
    """The protocol with that patience."""
    return type("Patient", (Patient,), {"patience": seconds})
