"""What stands above the clips of a page: title, authors, abstract, links and a figure, from a small YAML file.

title: Speech at 412 bit/s
authors: [{name: A. Author, url: https://…, at: Some University}]
abstract: One paragraph.
links: {Paper: https://…, Code: https://…}
figure: overview.png        # beside the file
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from training.config import ConfigError
from training.identity import first_line

PICTURES = (".png", ".webp", ".jpg", ".jpeg", ".svg")


@dataclass(frozen=True)
class Front:
    """What a person wrote about a page; empty where they did not."""

    title: str = ""
    authors: tuple[Mapping[str, str], ...] = ()  # name, url and at of each
    abstract: str = ""
    links: Mapping[str, str] = field(default_factory=dict)  # address by name
    figure: Path | None = None


def _text(found: Any, key: str) -> str:
    """``found`` as text: a title may be a number, but no list."""
    if isinstance(found, str | int | float) and not isinstance(found, bool):
        return str(found)
    raise ValueError(f"{key} is {found!r}: write a text")


def _address(found: Any, key: str) -> str:
    """``found`` as an address of the web: nothing else may stand behind a link of a page."""
    address = _text(found, key)
    if not address.startswith(("https://", "http://")):
        raise ValueError(f"'{address}' is no address that begins with https:// or http://")
    return address


def _author(found: Any) -> dict[str, str]:
    author = found if isinstance(found, dict) else {"name": found}
    if "name" not in author or set(author) - {"name", "url", "at"}:
        raise ValueError(f"authors has {found!r}: write a name, or {{name: …, url: …, at: …}}")
    kinds = {"name": _text, "url": _address, "at": _text}
    return {key: kind(author[key], f"authors.{key}") if author.get(key) else "" for key, kind in kinds.items()}


def _figure(found: Any, folder: Path) -> Path:
    figure = folder / _text(found, "figure")
    if figure.suffix.lower() not in PICTURES or not figure.is_file():
        raise ValueError(f"there is no figure {figure} ({', '.join(PICTURES)})")
    return figure


def read_front(path: Path) -> Front:
    """The front matter in the file ``path``.

    Raises:
        ConfigError: the file or its figure cannot be read, a key is unknown, something is of the wrong kind, or an
            address is not one of the web.
    """
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise ConfigError(f"front={path} cannot be read: {first_line(error)}") from None
    keys = Front.__dataclass_fields__
    if not isinstance(found, dict) or set(found) - set(keys):
        raise ConfigError(f"front={path}: the keys are {', '.join(keys)}.")
    given = {key: value for key, value in found.items() if value is not None}
    try:
        for key, kind in (("authors", list), ("links", dict)):
            if not isinstance(given.get(key, kind()), kind):
                raise ValueError(f"{key} is {given[key]!r}: write a {'list' if kind is list else 'dictionary'}")
        return Front(
            _text(given.get("title", ""), "title"),
            tuple(_author(author) for author in given.get("authors", [])),
            _text(given.get("abstract", ""), "abstract"),
            {_text(name, "links"): _address(to, f"links.{name}") for name, to in given.get("links", {}).items()},
            _figure(given["figure"], path.parent) if "figure" in given else None,
        )
    except ValueError as error:
        raise ConfigError(f"front={path}: {error}.") from None
