"""Requests that a server does not answer: the status, and one sentence in the shape that OpenAI's clients know.

raise Refused(413, "the request is larger than 25 MB: send less.")
"""

from __future__ import annotations

import json

KINDS = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}


class Refused(Exception):
    """A request that is not answered: the status, one sentence that says why and what to do, and headers beside it."""

    def __init__(self, status: int, message: str, **headers: str) -> None:
        super().__init__(message)
        self.status, self.headers = status, {name.replace("_", "-"): value for name, value in headers.items()}


def busy(waiting: int) -> Refused:
    """No place in a queue of so many."""
    return Refused(429, f"{waiting} requests are waiting already: try again a little later.", retry_after="1")


def error_body(status: int, message: str) -> bytes:
    """The JSON of an error."""
    kind = KINDS.get(status, "server_error" if status >= 500 else "invalid_request_error")
    return json.dumps({"error": {"message": message, "type": kind, "param": None, "code": status}}).encode()
