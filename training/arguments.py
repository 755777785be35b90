"""What options of argparse may be, for the programs that have no configuration.

parser.add_argument("--rounds", type=at_least(1), default=5)
"""

from __future__ import annotations

from argparse import ArgumentTypeError
from collections.abc import Callable


def at_least(least: int) -> Callable[[str], int]:
    """The type of an option that is a whole number from ``least`` on; argparse refuses others in a sentence."""

    def number(text: str) -> int:
        if not (text.isascii() and text.isdigit()) or int(text) < least:
            raise ArgumentTypeError(f"{text!r} must be a whole number, at least {least}")
        return int(text)

    return number
