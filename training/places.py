"""Where the settings and the models that ship lie: beside the code, in a checkout and in an installed package."""

from __future__ import annotations

import os
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
SHIPPED = REPOSITORY / "almkit"  # holds configs/ and checkpoints/: links in a checkout, folders in an installed package
CONFIG_DIR = SHIPPED / "configs"


def beside_code(path: str | Path) -> Path:
    """``path`` as it stands where there is such a thing; else what ships under that name, ``checkpoints/NAME`` or
    ``data/NAME``, so that programs find it from any directory.
    """
    place = Path(path)
    if place.parts[:1] in (("checkpoints",), ("data",)) and not place.exists():
        return next((found for root in (SHIPPED, REPOSITORY) if (found := root / place).exists()), place)
    return place


def environment() -> dict[str, str]:
    """This process's, for programs of this repository, which find its packages from any directory."""
    path = os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": path}
