"""What each key of a configuration may hold: the comment beside its default in ``configs/`` is the schema.

    batch_size: 4        # int, at least 1: crops per process and step
    betas: [0.9, 0.99]   # 2 floats, at least 0 and below 1: AdamW momenta
    quiet: null          # float or one per level, dB, from -90 to 0; null: as it comes
    schedule: cosine     # cosine | wsd | constant: after the warm-up

A comment begins with what the key holds, its unit and its range, or with all that it can be. ``--help`` prints it, and
a value that it does not allow is refused in its words. A key whose comment says nothing of this holds what its default
is; null is allowed where it is the default, or said. The comment of a dictionary is about each entry of it.
"""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import hydra
import yaml
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf

TYPE = re.compile(r"(2 |list of )?(str|int|float|bool|dict)(s rising|s| or list|,? or one per level)?\b")
CHOICES = re.compile(r"[a-z\d_.-]+( \| [a-z\d_.-]+)+$")
LIMIT = re.compile(r"\b(at least|above|at most|below|from|to) (-?[\d.e+-]*\d)")
NAMES = {"int": ("a whole number", "whole numbers"), "float": ("a number", "numbers"), "bool": ("true or false", "")}


def limits(words: str) -> tuple[float, float]:
    """``at least 0 and below 1``, ``from 1 to 8`` … → the least and the greatest value."""
    least, most = -math.inf, math.inf
    for word, number in LIMIT.findall(words):
        value = float(number)
        if word in ("at least", "from", "above"):
            least = math.nextafter(value, math.inf) if word == "above" else value
        else:
            most = math.nextafter(value, -math.inf) if word == "below" else value
    return least, most


def is_number(value: object, whole: bool = False) -> bool:
    """Whether ``value`` is a number, finite or not, and a whole one where that is asked for."""
    return isinstance(value, int if whole else int | float) and not isinstance(value, bool)


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def shown(value: object) -> str:
    """``value`` as it is typed."""
    return {"None": "null", "True": "true", "False": "false"}.get(text := str(value), text[:200])


@dataclass(frozen=True)
class Option:
    """What a key holds.

    Attributes:
        base: ``str``, ``int``, ``float``, ``bool``; empty where nothing is known.
        shape: ``one``; ``either``, one or a list of them; ``list``; ``pair``; ``rising``, a pair with the smaller
            first; ``dict``; ``default``, a string by its default alone, in whose place lists and dictionaries may be
            meant.
        range: of the numbers, in words; empty: any.
        also: words that it can be besides, ``null`` among them.
        choices: all that it can be; empty: anything.
    """

    base: str = ""
    shape: str = "one"
    range: str = ""
    also: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()

    @classmethod
    def said(cls, comment: str) -> Option:
        """What a comment says; ``Option()`` where it says nothing of this."""
        head = re.split(r"[:;(]", comment)[0].strip()
        if CHOICES.match(head):
            choices = tuple(head.split(" | "))
            typed = all(choice.isdigit() or choice == "null" for choice in choices)  # as Hydra reads them
            return cls("" if typed else "str", "default", choices=choices)
        if not (found := TYPE.match(head)):
            return cls()
        before, base, after = found.groups()
        several = {"s rising": "rising", "s": "pair" if before == "2 " else "list", None: "list" if before else "one"}
        first, *rest = head.removeprefix(found[0]).split(", ")
        words = ", ".join(part for part in rest if LIMIT.search(part))
        also = tuple(re.findall(r"\bor ([a-z]+)", first))
        return cls("", "dict", also=also) if base == "dict" else cls(base, several.get(after, "either"), words, also)

    @classmethod
    def of_default(cls, value: object) -> Option:
        """What a key without a comment holds."""
        if isinstance(value, list):
            return cls("str" if value and all(isinstance(item, str) for item in value) else "", "list")
        if isinstance(value, str):
            return cls("str", "default")
        return cls(type(value).__name__ if isinstance(value, bool | int | float) else "")

    def fault(self, value: object) -> str | None:
        """Why the key cannot hold ``value``, as ``must be at least 1``; None where it can. Interpolations pass."""
        optional = "null" in self.also or not (self.choices or self.base in NAMES or self.shape in ("list", "dict"))
        if isinstance(value, str) and ("${" in value or value in self.also) or value is None and optional:
            return None
        if self.choices:
            known = shown(value) in self.choices
            return None if known else f"is unknown; choose one of {', '.join(self.choices)}"
        also = "".join(f" or {word}" for word in self.also)
        if not self._fits(value):
            return f"must be {self._kind()}{self.range and ', '}{self.range}{also}"
        least, most = limits(self.range)
        for number in _listed(value) if self.base in ("int", "float") else ():
            if not (math.isfinite(number) and least <= number <= most):
                return f"must be {self.range or 'finite'}{also}"
        return None

    def _fits(self, value: object) -> bool:
        """Whether it is of the base and the shape, whatever its range."""
        if self.shape == "dict":
            return isinstance(value, dict)
        is_list, wants_list = isinstance(value, list), self.shape in ("list", "pair", "rising")
        if (wants_list and not is_list) or (is_list and self.shape == "one" and self.base in NAMES):
            return False
        values = _listed(value)
        if self.shape == "either" and not values:
            return False
        if self.base == "bool" and not all(isinstance(item, bool) for item in values):
            return False
        if self.base in ("int", "float") and not all(is_number(item, self.base == "int") for item in values):
            return False
        return self.shape not in ("pair", "rising") or (
            len(values) == 2 and (self.shape == "pair" or values[0] <= values[1])
        )

    def _kind(self) -> str:
        one, several = NAMES.get(self.base, ("", ""))
        return {
            "either": f"{one} or a list of them",
            "list": f"a list of {several}, as [1,2]" if several else "a list, as [a,b]",
            "pair": "two numbers",
            "dict": "a dictionary, as {key: value}",
            "rising": "two numbers, the smaller first",
        }.get(self.shape, one)


@contextmanager
def composing(folder: Path) -> Iterator[None]:
    """Hydra composes from ``folder`` inside the ``with`` block, also within a program that runs under Hydra."""
    running = GlobalHydra.instance().hydra  # there can only be one at a time
    GlobalHydra.instance().clear()
    try:
        with hydra.initialize_config_dir(version_base=None, config_dir=str(folder)):
            yield
    finally:
        GlobalHydra.instance().hydra = running


@cache
def options(folder: Path, config_name: str, groups: tuple[str, ...] = ()) -> dict[str, Option]:
    """Dotted key → what it holds; ``key.*`` is about what a dictionary holds.

    Args:
        folder: of the YAML files.
        groups: overrides that choose options of groups, as ``task=asr``.
    """
    with composing(folder):
        cfg = hydra.compose(config_name, overrides=list(groups), return_hydra_config=True)
    said: dict[str, Option] = {}
    for chosen, option in cfg.hydra.runtime.choices.items():
        group, _, package = str(chosen).partition("@")
        path = folder / group / f"{option}.yaml"
        if path.is_file():
            said |= _said_in(path, (package or group).replace("/", ".") + ".")
    said |= _said_in(folder / f"{config_name}.yaml", "")  # what the program's own file says about a key goes first
    known: dict[str, Option] = {}
    for key, value in nodes(OmegaConf.to_container(cfg, throw_on_missing=False)):
        of_entries = known.get(f"{key.rpartition('.')[0]}.*")
        if isinstance(value, dict):
            known[key] = Option(shape="dict", also=of_entries.also if of_entries else ())
            known |= {f"{key}.*": said[key]} if key in said else {}
        else:
            option = said.get(key) or of_entries or Option.of_default(value)
            known[key] = replace(option, also=tuple(dict.fromkeys((*option.also, "null")))) if value is None else option
    return known


def first_fault(cfg: DictConfig, known: dict[str, Option]) -> str | None:
    """The first value of ``cfg`` that its key cannot hold, in one sentence: ``seed=-1 must be at least 0.``

    Raises:
        OmegaConfBaseException: a value names another that is not there.
    """
    for key, value in nodes(OmegaConf.to_container(cfg, resolve=True)):
        option = known.get(key) or known.get(f"{key.rpartition('.')[0]}.*")
        if option and (why := option.fault(value)):
            return f"{key}={shown(value)} {why}."
    return None


def first_fault_in(thing: object, prefix: str = "") -> str | None:
    """The same of an object whose class says in such words what its attributes hold.

    ``hop: Annotated[int, "int, at least 1"]``
    """
    for key, hint in inspect.get_annotations(type(thing), eval_str=True).items():
        value = getattr(thing, key)
        if why := Option.said(hint.__metadata__[0]).fault(list(value) if isinstance(value, tuple) else value):
            return f"{prefix}{key}={shown(value)} {why}."
    return None


def nodes(values: object, prefix: str = "") -> Iterator[tuple[str, object]]:
    """(dotted key, value) of a dictionary and of the dictionaries in it."""
    for name, value in values.items() if isinstance(values, dict) else ():
        if prefix or name != "hydra":
            yield f"{prefix}{name}", value
            yield from nodes(value, f"{prefix}{name}.")


@cache
def _said_in(path: Path, package: str) -> dict[str, Option]:
    """Dotted key → what the comments of a YAML file, and of the files of its group that it builds on, say.

    Args:
        package: that its keys lie in, with a dot behind it, unless it says ``# @package _global_``.
    """
    text = path.read_text(encoding="utf-8")
    lines = text.splitlines()
    own = "" if text.startswith("# @package _global_") else package
    said: dict[str, Option] = {}
    for default in (yaml.safe_load(text) or {}).get("defaults", ()):
        name, _, place = default.partition("@") if isinstance(default, str) else ("", "", "")
        if (below := path.parent / f"{name}.yaml").is_file():
            said |= _said_in(below, f"{own}{place}." if place else package)

    def walk(node: yaml.Node, prefix: str) -> Iterator[tuple[str, Option]]:
        for key, value in node.value if isinstance(node, yaml.MappingNode) else ():
            name = f"{prefix}{key.value}"
            if isinstance(value, yaml.MappingNode) and not value.flow_style:  # behind {a: 1} it is about each in it
                yield from walk(value, f"{name}.")
            # of a value in several lines, the comment stands behind the key
            end = value.end_mark if value.start_mark.line == value.end_mark.line else key.end_mark
            comment = re.search(r"#\s*(.*)", lines[end.line][end.column :]) if end.line < len(lines) else None
            if comment and (option := Option.said(comment[1])) != Option():
                null = value.tag.endswith(":null")  # is allowed where it is the default, whatever a group chooses
                yield name, replace(option, also=tuple(dict.fromkeys((*option.also, "null")))) if null else option

    return said | dict(walk(yaml.compose(text), own))
