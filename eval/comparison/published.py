"""Values that others published, beside a comparison: tables of their own, never a column among those measured here.

The file (eval/comparison/published.yaml, or one of yours) says of each table its source, how it was made, its columns
and its rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from eval.harness.tables import Table
from training.config import REPOSITORY, ConfigError

KEYS = ("source", "how", "columns", "rows")


@dataclass(frozen=True)
class Published:
    """A table of others; ``title`` says whose, where it stands and how it was made."""

    name: str
    title: str
    table: Table


def read_published(path: str | None) -> list[Published]:
    """The tables in the file at ``path``, from here or from the repository; none where it is None.

    Raises:
        ConfigError: no such file, or not of this form.
    """
    if not path:
        return []
    place = next((file for file in (Path(path), REPOSITORY / path) if file.is_file()), Path(path))
    try:
        found = yaml.safe_load(place.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"comparison.published={path} cannot be read: {' '.join(str(error).split())}") from None
    if not isinstance(found, dict):
        raise ConfigError(f"comparison.published={path} must name tables, each with {', '.join(KEYS)}.")
    return [_published(path, str(name), of) for name, of in found.items()]


def _published(path: str, name: str, of: Any) -> Published:
    """One table, or a refusal that names what is wrong in it."""
    if not isinstance(of, dict) or set(of) != set(KEYS):
        raise ConfigError(f"{path}: the table '{name}' must have {', '.join(KEYS)}, and nothing else.")
    columns, rows = of["columns"], of["rows"]
    if not isinstance(columns, list) or not isinstance(rows, dict):
        raise ConfigError(f"{path}: in '{name}' columns must be a list, and rows a list of values for each tokenizer.")
    for row, values in rows.items():
        numbers = isinstance(values, list) and all(v is None or type(v) in (int, float) for v in values)
        if not numbers or len(values) != len(columns):
            raise ConfigError(
                f"{path}: '{row}' in '{name}' must have {len(columns)} numbers, one for each column, or null."
            )
    body = [[str(row), *("-" if v is None else f"{v:g}" for v in values)] for row, values in rows.items()]
    title = f"Published, not measured here: {name} ({of['source']}; {of['how']})"
    return Published(name, title, Table(["", *map(str, columns)], body))
