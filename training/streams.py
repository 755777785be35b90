"""Standard output and standard error as they may be: closed, full, or a pipe that nobody reads. Light.

open_closed()              # before anything is printed
say("error: …")            # on standard error, if anybody can be told
settle(sys.stdout)         # before a program ends with a status of its own
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import TextIO


def open_closed() -> None:
    """Where a program was started with a closed stream (``>&-``), what is printed goes nowhere. Without, Python has
    None there, and the next file that is opened takes the stream's number, and with it what libraries print.
    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))


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
