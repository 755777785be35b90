"""What evaluations wrote (`eval.harness.report.Report`), read back: nothing in it is trusted."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from training.config import ConfigError


def is_number(value: object) -> bool:
    """Whether a value of a JSON is a finite number, and none of a thousand digits."""
    return type(value) in (int, float) and -sys.float_info.max <= value <= sys.float_info.max  # type: ignore[operator]


def read_record(path: Path) -> dict[str, Any]:
    """The record in a JSON file. Raises ConfigError: it is none."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is not JSON ({error}): run the evaluation again.") from None
    if not isinstance(found, dict):
        raise ConfigError(f"{path} holds no record: run the evaluation again.")
    return found


def read_results(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """``results.json`` and ``clips.json`` of an evaluation, the second empty where an older one has none.

    Raises:
        ConfigError: there are none, or something in them is not as it should be.
    """
    path, parts = folder / "results.json", folder / "clips.json"
    if not path.is_file():
        raise ConfigError(f"runs: {folder} has no results.json; give folders that an evaluation wrote.")
    results, clips = read_record(path), read_record(parts) if parts.is_file() else {}
    if fault := fault_of_results(results, clips):
        raise ConfigError(f"{path}: {fault}; run the evaluation again.")
    return results, clips


def name_of(folder: Path) -> str:
    """What an evaluation is called: the run that it is of."""
    return folder.parent.name if folder.name.startswith("eval-") else folder.name


def fault_of_results(results: dict[str, Any], clips: dict[str, Any]) -> str | None:
    """What is not as `Report.write` writes it in the contents of results.json and clips.json; None where all is."""
    if not isinstance(results.get("rows"), dict):
        return "has no 'rows': is it from this version's eval scripts?"
    if not isinstance(results.get("how", {}), dict) or not isinstance(results.get("differences", []), list):
        return "'how' must be a record and 'differences' a list"
    for row, cells in results["rows"].items():
        if not isinstance(cells, dict):
            return f"row {row} is no record of metrics"
        for metric, cell in cells.items():
            where = f"{row}, {metric}"
            if not isinstance(cell, dict) or not {"value", "n", "n_failed", "low", "high"} <= cell.keys():
                return f"{where}: a score is a record with value, n, n_failed, low and high"
            numbers = [cell[key] for key in ("value", "low", "high") if cell[key] is not None]
            counts = [cell["n"], cell["n_failed"], cell.get("undelivered") or 0]
            if not all(map(is_number, numbers)) or (cell["low"] is None) != (cell["high"] is None):
                return f"{where}: value, low and high must be numbers or null, and low and high come together"
            if not all(type(count) is int for count in counts):
                return f"{where}: n, n_failed and undelivered must be whole numbers"
            why = cell.get("failures", [])
            if not isinstance(why, list) or not all(
                isinstance(f, dict) and isinstance(f.get("reason"), str) for f in why
            ):
                return f"{where}: failures must be a list of reasons"
    if not all(isinstance(cells, dict) for cells in clips.values()):
        return "clips.json beside it is no record of rows"
    for row, cells in clips.items():
        for metric, parts in cells.items():
            pairs = list(parts.values()) if isinstance(parts, dict) else [None]
            if not all(isinstance(p, list) and len(p) == 2 and all(map(is_number, p)) for p in pairs):
                return f"clips.json beside it, {row}, {metric}: each clip has two numbers"
    return None
