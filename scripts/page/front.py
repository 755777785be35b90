"""What stands above the clips of a page: title, authors, abstract, links and a figure, from a small YAML file.

title: Speech at 412 bit/s
authors: [{name: A. Author, url: https://…, at: Some University}]
abstract: One paragraph.
links: {Paper: https://…, Code: https://…}
figure: overview.png        # beside the file
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from page.data import PageError

KEYS = ("title", "authors", "abstract", "links", "figure")
PICTURES = (".png", ".webp", ".jpg", ".jpeg", ".svg")


def read_front(path: Path | None) -> dict[str, Any]:
    """The front matter in ``path``; every key is there, empty where the file, or None, does not have it.

    Raises:
        PageError: the file or its figure cannot be read, a key is unknown, or an address is not one of the web.
    """
    if path is None:
        return {"title": None, "authors": [], "abstract": "", "links": {}, "figure": None}
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise PageError(f"error: front={path} cannot be read: {str(error).splitlines()[0]}") from None
    if not isinstance(found, dict) or set(found) - set(KEYS):
        raise PageError(f"error: front={path}: the keys are {', '.join(KEYS)}.")
    authors = [author if isinstance(author, dict) else {"name": author} for author in found.get("authors") or []]
    links = dict(found.get("links") or {})
    for address in [*links.values(), *(author["url"] for author in authors if author.get("url"))]:
        if not str(address).startswith(("https://", "http://")):
            raise PageError(f"error: front={path}: '{address}' is no address that begins with https:// or http://.")
    figure = path.parent / str(found["figure"]) if found.get("figure") else None
    if figure and (figure.suffix.lower() not in PICTURES or not figure.is_file()):
        raise PageError(f"error: front={path}: there is no figure {figure} ({', '.join(PICTURES)}).")
    return {
        "title": found.get("title"),
        "authors": [{"name": str(a.get("name", "")), "url": a.get("url", ""), "at": a.get("at", "")} for a in authors],
        "abstract": str(found.get("abstract") or ""),
        "links": links,
        "figure": figure,
    }
