"""Texts as values in Hydra's grammar, exactly as they are; imports nothing that takes long."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any


def quoted(text: str) -> str:
    """``text`` as a quoted value of Hydra's, whatever it contains: backslashes count double before a quote only."""
    return "'" + re.sub(r"(\\*)('|$)", lambda found: 2 * found[1] + ("\\'" if found[2] else ""), text) + "'"


def literal(text: str) -> str:
    """``text`` quoted, with nothing in it to interpolate."""
    return quoted(re.sub(r"(\\*)\$\{", lambda found: 2 * found[1] + r"\${", text))


def written(value: Any) -> str:
    """``value``, also a list or a dictionary, in Hydra's grammar."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {written(part)}" for key, part in value.items()) + "}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return f"[{','.join(map(written, value))}]"
    if isinstance(value, str | PurePath):
        return literal(str(value))
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
