"""What is typed is what arrives: texts and names of a command line, written in Hydra's grammar.

    as_typed("lm_generate", ["text=1.50, it's"], folder)   →  ["text='1.50, it\\\\'s'"]

Hydra reads ``1.50`` as a number and a comma as a sweep. A key is a string where its comment in ``configs/`` begins with
``str``, or its default is a string and the comment names no other type; ``list of str``, or a list of strings as its
default, makes a list of them. Such values are quoted before Hydra sees them. ``null`` alone stays null (in a list it
is a word), and what is in quotes already stays what it is.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, QuotedString
from hydra.errors import HydraException

from training.quoting import literal
from training.schema import options

ELEMENT = re.compile(r"""\s*('(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*"|[^,'"\s][^,]*|)\s*(?:,|$)""")


def strings(folder: Path, config_name: str, groups: tuple[str, ...] = ()) -> dict[str, str]:
    """Dotted key → the shape (`training.schema.Option`), of the keys that hold strings."""
    return {key: option.shape for key, option in options(folder, config_name, groups).items() if option.base == "str"}


def as_typed(config_name: str, overrides: Sequence[str], folder: Path) -> list[str]:
    """``overrides`` with the values of string keys quoted; everything else as it is.

    Args:
        folder: of the YAML files, ``configs/``.
    """
    try:
        shapes = strings(folder, config_name, groups_in(overrides, folder))
    except HydraException:  # an option that does not exist: refused when the overrides are checked
        shapes = strings(folder, config_name)
    sweeps = any(option in ("-m", "--multirun") for option in overrides)
    found = []
    for override in overrides:
        key, is_override, value = override.partition("=")
        name = key.lstrip("+")
        shape = shapes.get(name, shapes.get(f"{name.rpartition('.')[0]}.*"))
        if not is_override or shape is None or key.startswith(("-", "~")):
            found.append(override)
        else:
            found.append(f"{key}={_typed(value.strip(), shape, sweeps)}")
    return found


def groups_in(overrides: Sequence[str], folder: Path) -> tuple[str, ...]:
    """Those that choose an option of a group, as ``task=asr``."""
    found = []
    for override in overrides:
        key, _, value = override.partition("=")
        group = key.lstrip("+").partition("@")[0]
        if group and (folder / group).is_dir() and value and "," not in value:
            found.append(override)
    return tuple(found)


def _typed(value: str, shape: str, sweeps: bool) -> str:
    """``value`` of a key that holds strings, in Hydra's grammar."""
    parsed = _parsed(value)
    read = parsed._value if parsed is not None else None
    is_sweep = sweeps and parsed is not None and parsed.is_sweep_override()
    if value == "null" or isinstance(read, QuotedString) or (is_sweep and re.match(r"[a-z_]+\(.*\)$", value)):
        return value
    if shape != "one" and value.startswith("[") and value.endswith("]") and (elements := _elements(value[1:-1])):
        return f"[{','.join(elements)}]"
    if shape == "list" or (shape == "default" and isinstance(read, dict | list)):
        return value  # what is no list is refused when the overrides are checked
    if is_sweep and (elements := _elements(value)):
        return ",".join(elements)
    return literal(value)


def _parsed(value: str) -> Override | None:
    """``value`` as Hydra reads it, None where it cannot."""
    try:
        return OverridesParser.create().parse_override(f"key={value}")
    except HydraException:
        return None


def _elements(text: str) -> list[str] | None:
    """The elements of ``a, 'b, c', 1.50``, quoted; None where a quotation mark or a bracket in them is not closed."""
    found, place = [], 0
    while place < len(text):
        match = ELEMENT.match(text, place)
        if match is None or any(match[1].count(pair[0]) != match[1].count(pair[1]) for pair in ("[]", "{}")):
            return None
        element = match[1].strip()
        if element:
            found.append(element if element[0] in "'\"" else literal(element))
        place = match.end()
    return found
