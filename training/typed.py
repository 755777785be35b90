"""What is typed is what arrives: texts and names of a command line, written in Hydra's grammar.

    as_typed("lm_generate", ["text=1.50, it's"], folder)   →  ["text='1.50, it\\\\'s'"]

Hydra reads ``1.50`` as a number and a comma as a sweep. A key is a string where its comment in ``configs/`` begins with
``str``, or its default is a string and the comment names no other type; ``list of str``, or a list of strings as its
default, makes a list of them. Such values are quoted before Hydra sees them. ``null`` alone stays null (in a list it
is a word), and what is in quotes already stays what it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

import hydra
import yaml
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, QuotedString
from hydra.errors import HydraException
from omegaconf import DictConfig, ListConfig, OmegaConf

# How a comment begins, by what its key holds; the first that fits.
WORDS = {
    "strs": "list of str",
    "either": "str or list",
    "str": "str",
    "wholes": "int or one per level",
    "numbers": "float,? or one per level",
    "whole": "int",
    "number": "float",
    "other": "bool|list of (int|float)",
}
STRINGS = ("strs", "either", "str", "choice")
ELEMENT = re.compile(r"""\s*('(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*"|[^,'"\s][^,]*|)\s*(?:,|$)""")


def quoted(text: str) -> str:
    """``text`` as a quoted value of Hydra's, whatever it contains: backslashes count double before a quote only."""
    return "'" + re.sub(r"(\\*)('|$)", lambda found: 2 * found[1] + ("\\'" if found[2] else ""), text) + "'"


def literal(text: str) -> str:
    """``text`` quoted, with nothing in it to interpolate."""
    return quoted(re.sub(r"(\\*)\$\{", lambda found: 2 * found[1] + r"\${", text))


def string_kinds(folder: Path, config_name: str, groups: tuple[str, ...]) -> dict[str, str]:
    """`kinds` of the keys that hold strings."""
    return {key: kind for key, kind in kinds(folder, config_name, groups).items() if kind in STRINGS}


@cache
def kinds(folder: Path, config_name: str, groups: tuple[str, ...]) -> dict[str, str]:
    """Dotted key → what it holds, of the keys whose comment or default says so.

    ``str``, ``strs`` (a list of them), ``either``; ``choice``, a string by its default alone, for which lists and
    dictionaries may be meant as well; ``whole``, ``number``, and ``wholes`` and ``numbers`` where one per level may be
    given; ``other``.

    Args:
        folder: of the YAML files.
        groups: overrides that choose options, as ``task=asr``.
    """
    running = GlobalHydra.instance().hydra  # of the script that asks; there can only be one at a time
    GlobalHydra.instance().clear()
    try:
        with hydra.initialize_config_dir(version_base=None, config_dir=str(folder)):
            cfg = hydra.compose(config_name, overrides=list(groups), return_hydra_config=True)
    finally:
        GlobalHydra.instance().hydra = running
    said: dict[str, str] = {}
    for chosen, option in cfg.hydra.runtime.choices.items():
        group, _, package = str(chosen).partition("@")
        path = folder / group / f"{option}.yaml"
        if path.is_file():
            is_global = path.read_text(encoding="utf-8").startswith("# @package _global_")
            prefix = "" if is_global else (package or group).replace("/", ".") + "."
            said |= {f"{prefix}{key}": kind for key, kind in _said_in(path)}
    said |= _said_in(folder / f"{config_name}.yaml")  # what the program's own file says about a key goes first
    by_default = {key: kind for key, value in _values(cfg, "") if (kind := _kind_of_default(value))}
    return by_default | said


@cache
def _said_in(path: Path) -> tuple[tuple[str, str], ...]:
    """(dotted key, kind) of what the comments of a YAML file say."""
    text = path.read_text(encoding="utf-8")
    lines = text.splitlines()

    def walk(node: yaml.Node, prefix: str) -> Iterator[tuple[str, str]]:
        for key, value in node.value if isinstance(node, yaml.MappingNode) else ():
            name = f"{prefix}{key.value}"
            if (
                isinstance(value, yaml.MappingNode) and not value.flow_style
            ):  # a comment behind {a: 1, b: 2} is about the whole
                yield from walk(value, f"{name}.")
            # of a value in several lines, the comment stands behind the key
            end = value.end_mark if value.start_mark.line == value.end_mark.line else key.end_mark
            comment = re.search(r"#\s*(.*)", lines[end.line][end.column :]) if end.line < len(lines) else None
            for kind, words in WORDS.items():
                if comment and re.match(rf"({words})\b", comment[1]):
                    yield name, kind
                    break

    return tuple(walk(yaml.compose(text), ""))


def _values(cfg: DictConfig, prefix: str) -> Iterator[tuple[str, object]]:
    """(dotted key, value) of all leaves that are there."""
    for name in map(str, cfg):
        if name != "hydra" and not OmegaConf.is_missing(cfg, name):
            value = cfg[name]
            if isinstance(value, DictConfig):
                yield from _values(value, f"{prefix}{name}.")
            else:
                yield f"{prefix}{name}", value


def _kind_of_default(value: object) -> str | None:
    if isinstance(value, ListConfig):
        return "strs" if len(value) and all(isinstance(item, str) for item in value) else None
    return "choice" if isinstance(value, str) else None


def as_typed(config_name: str, overrides: Sequence[str], folder: Path) -> list[str]:
    """``overrides`` with the values of string keys quoted; everything else as it is.

    Args:
        folder: of the YAML files, ``configs/``.
    """
    groups = tuple(o for o in overrides if _chooses_group(o, folder))
    try:
        kinds = string_kinds(folder, config_name, groups)
    except HydraException:  # an option that does not exist: refused when the overrides are checked
        kinds = string_kinds(folder, config_name, ())
    sweeps = any(option in ("-m", "--multirun") for option in overrides)
    found = []
    for override in overrides:
        key, is_override, value = override.partition("=")
        kind = kinds.get(key.lstrip("+"))
        if not is_override or kind is None or key.startswith(("-", "~")):
            found.append(override)
        else:
            found.append(f"{key}={_typed(value.strip(), kind, sweeps)}")
    return found


def _chooses_group(override: str, folder: Path) -> bool:
    key, _, value = override.partition("=")
    return (folder / key.lstrip("+").partition("@")[0]).is_dir() and bool(value) and "," not in value


def _typed(value: str, kind: str, sweeps: bool) -> str:
    """``value`` of a key that holds strings, in Hydra's grammar."""
    parsed = _parsed(value)
    read = parsed._value if parsed is not None else None
    is_sweep = sweeps and parsed is not None and parsed.is_sweep_override()
    if value == "null" or isinstance(read, QuotedString) or (is_sweep and re.match(r"[a-z_]+\(.*\)$", value)):
        return value
    if kind != "str" and value.startswith("[") and value.endswith("]") and (elements := _elements(value[1:-1])):
        return f"[{','.join(elements)}]"
    if kind == "strs" or (kind == "choice" and isinstance(read, dict | list)):
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
