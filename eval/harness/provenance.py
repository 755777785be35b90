"""How a number was made: versions, file hashes, seeds. Two results that differ here are not comparable."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import platform
from collections.abc import Iterable
from pathlib import Path
from typing import Any


def sha256(path: Path) -> str:
    """SHA-256 (hex) of a file."""
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def folder_hash(folder: Path, names: Iterable[str] | None = None) -> str:
    """SHA-256 (hex) over names and contents of the files in a folder (all of them, or ``names``)."""
    files = (
        sorted(p for p in folder.rglob("*") if p.is_file()) if names is None else [folder / n for n in sorted(names)]
    )
    digest = hashlib.sha256()
    for path in files:
        digest.update(f"{path.relative_to(folder).as_posix()}\n{sha256(path)}\n".encode())
    return digest.hexdigest()


def record_hash(record: Any) -> str:
    """SHA-256 (hex) of anything that JSON can hold, independent of key order."""
    return hashlib.sha256(json.dumps(record, sort_keys=True, default=str).encode()).hexdigest()


def versions(*packages: str) -> dict[str, str]:
    """Python, platform and the installed version of each package ("not installed" where it is absent)."""
    found = {"python": platform.python_version(), "platform": f"{platform.system()} {platform.machine()}"}
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found
