"""How a number was made: versions, hashes of records. Two results that differ here are not comparable."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import platform
from typing import Any


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
