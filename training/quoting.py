"""Texts as values in Hydra's grammar, exactly as they are; imports nothing that takes long."""

from __future__ import annotations

import re


def quoted(text: str) -> str:
    """``text`` as a quoted value of Hydra's, whatever it contains: backslashes count double before a quote only."""
    return "'" + re.sub(r"(\\*)('|$)", lambda found: 2 * found[1] + ("\\'" if found[2] else ""), text) + "'"


def literal(text: str) -> str:
    """``text`` quoted, with nothing in it to interpolate."""
    return quoted(re.sub(r"(\\*)\$\{", lambda found: 2 * found[1] + r"\${", text))
