"""Standard output and standard error as they may be: closed, full, or a pipe that nobody reads. Light.

open_closed()              # before anything is printed
say("error: …")            # on standard error, if anybody can be told
settle(sys.stdout)         # before a program ends with a status of its own
output = unbroken()        # from here on what hinders standard output is noted, and ends nothing
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, redirect_stdout, suppress
from typing import Any, TextIO, cast


def open_closed() -> None:
    """Where a program was started with a closed stream (``>&-``), what is printed goes nowhere, and nothing is there to
    be read. Without, Python has None there, and the next file that is opened takes the stream's number, and with it
    what libraries print.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):  # in the order of their numbers
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))


def settle(stream: TextIO) -> None:
    """Hand on what ``stream`` still holds; if nobody takes it, it goes nowhere: Python would try again as it ends,
    complain, and change the exit status.
    """
    try:
        stream.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def say(text: str) -> None:
    """Print ``text`` on standard error. Where that cannot be written (``2>&1 | head``) the exit status still tells."""
    with suppress(OSError):
        print(text, file=sys.stderr)
    settle(sys.stderr)


class Unbroken:
    """A stream that goes on where nobody takes what is printed, and tells by ``error`` what hindered it; the rest is
    printed on standard error.

    For who has something to save first: of ``training | tee log`` Ctrl-C ends the reader at once, and a terminal that
    closes takes no more lines.
    """

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.error: OSError | None = None

    def write(self, text: str) -> int:
        self._try(lambda stream: stream.write(text))
        return len(text)

    def flush(self) -> None:
        self._try(lambda stream: stream.flush())

    def _try(self, do: Callable[[TextIO], object]) -> None:
        try:
            do(sys.stderr if self.error else self.stream)
        except OSError as error:
            self.error = self.error or error

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


def unbroken() -> Unbroken:
    """Standard output, which nothing breaks from here on."""
    output = sys.stdout if isinstance(sys.stdout, Unbroken) else Unbroken(sys.stdout)
    sys.stdout = cast(TextIO, output)
    return output


def told_aside(wanted: bool) -> AbstractContextManager[Any]:
    """Where it is ``wanted``, what is printed in the ``with`` block goes to standard error, if anybody reads there."""
    return redirect_stdout(cast(TextIO, Unbroken(sys.stderr))) if wanted else nullcontext()
