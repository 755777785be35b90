"""What an evaluation writes: ``results.json`` (scores with intervals and how they were made), ``items.jsonl``
(one line per clip) and a table for people.

    report = Report(how={...}, rows=["reference", "generated"])
    report.mean("generated", "dnsmos/p808", {clip id: value}, failures={clip id: reason})
    report.rate("generated", "wer/ctc-mini", {clip id: (errors, words)})
    report.write(folder, items)
    print(report.table(["wer/ctc-mini", "dnsmos/p808"]))

A clip that could not be judged is counted with its reason and is in no mean; ``n + n_failed`` is the number of clips
of the row. A clip that a system did not deliver is a score where one is known (all of its words are wrong).
"""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eval.harness.intervals import HOW, Estimate, paired_difference, ratio
from eval.harness.processes import is_main
from eval.harness.tables import Table
from training.checkpoint import write_file
from training.identity import printable, without_credentials

SHARES = (
    "wer",
    "cer",
    "limit",
    "early",
    "repeated",
    "legal",
    "ended",
    "usage",
    "silent",
    "empty",
    "accuracy",
    "class",
    "recall",
)  # families of metrics that count: read in percent, with the intervals of shares
Parts = Mapping[str, Sequence[float]]  # clip id -> (numerator, denominator)
LACKING = {"undelivered": "not delivered", "n_failed": "failed"}


@dataclass(frozen=True)
class _Cell:
    """One metric of one row: sums per clip, and the clips without a score."""

    parts: dict[str, tuple[float, float]]  # clip id -> (numerator, denominator)
    failures: dict[str, str]  # clip id -> reason
    extra: dict[str, Any]
    metric: str

    def record(self) -> dict[str, Any]:
        found = estimate(self.metric, self.parts)
        return {
            "value": found.value if found else None,
            "n": len(self.parts),
            "n_failed": len(self.failures),
            "low": found.low if found else None,
            "high": found.high if found else None,
            "failures": by_reason(self.failures),
            **self.extra,
        }


def by_reason(failures: Mapping[str, str]) -> list[dict[str, Any]]:
    """``{clip: reason}`` as a list of reasons with their clips."""
    reasons: dict[str, list[str]] = {}
    for clip, reason in failures.items():
        reasons.setdefault(reason, []).append(clip)
    return [{"reason": reason, "n": len(ids), "ids": ids} for reason, ids in sorted(reasons.items())]


def is_share(metric: str) -> bool:
    """Whether a metric counts clips, words or codes that are right or wrong, whatever values it happens to have."""
    return re.split("[-@ ]", metric.removeprefix("retrieval/").split("/")[0])[0] in SHARES


def estimate(metric: str, parts: Parts) -> Estimate | None:
    """The ratio of sums with its interval."""
    return ratio(*_sums(parts, parts), counted=is_share(metric))


def difference(metric: str, first: Parts, second: Parts) -> Estimate | None:
    """The difference of two ratios over the clips that both have, first minus second, with its paired interval."""
    common = [clip for clip in first if clip in second]
    return paired_difference(_sums(first, common), _sums(second, common), counted=is_share(metric))


def _sums(parts: Parts, clips: Iterable[str]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Numerators and denominators ``[clips]``."""
    numerators, denominators = np.array([parts[clip] for clip in clips], dtype=np.float64).reshape(-1, 2).T
    return numerators, denominators


class Report:
    """Collects scores row by row.

    Args:
        how: how the numbers were made; two reports whose ``how`` differ are not comparable.
        rows: the rows in the order of the table.
    """

    def __init__(self, how: Mapping[str, Any], rows: Sequence[str]) -> None:
        self.how = {**how, "interval": HOW}
        self.cells: dict[str, dict[str, _Cell]] = {row: {} for row in rows}
        self.numbers: dict[str, dict[str, Any]] = {row: {} for row in rows}
        self.differences: list[dict[str, Any]] = []

    def rate(
        self,
        row: str,
        metric: str,
        parts: Mapping[str, tuple[float, float]],
        failures: Mapping[str, str] | None = None,
        **extra: Any,
    ) -> None:
        """A ratio of sums, ``parts[clip id] = (errors, words)``; ``extra`` is written beside it."""
        self.cells[row][metric] = _Cell(dict(parts), dict(failures or {}), extra, metric)

    def mean(
        self,
        row: str,
        metric: str,
        values: Mapping[str, float],
        failures: Mapping[str, str] | None = None,
        **extra: Any,
    ) -> None:
        """A mean over clips; values that are not finite count as failures."""
        failed = dict(failures or {})
        failed |= {clip: "the score is not finite" for clip, value in values.items() if not math.isfinite(value)}
        parts = {clip: (float(value), 1.0) for clip, value in values.items() if math.isfinite(value)}
        self.rate(row, metric, parts, failed, **extra)

    def number(
        self,
        row: str,
        metric: str,
        value: float,
        n: int,
        interval: tuple[float, float] | None = None,
        failures: Mapping[str, str] | None = None,
        **extra: Any,
    ) -> None:
        """A number of the row as a whole (speed, BLEU, a Fréchet distance), with an interval where it has one."""
        low, high = interval or (None, None)
        self.numbers[row][metric] = {
            "value": value, "n": n, "n_failed": len(failures or {}), "low": low, "high": high,
            "failures": by_reason(failures or {}), **extra,
        }  # fmt: skip

    def difference(self, metric: str, row: str, against: str) -> None:
        """Note ``row`` minus ``against`` over the clips that both rows scored, with a paired interval."""
        self._difference((row, metric), (against, metric))

    def difference_of_metrics(self, row: str, metric: str, against: str) -> None:
        """Note ``metric`` minus the metric ``against`` of the same row, with a paired interval."""
        self._difference((row, metric), (row, against))

    def _difference(self, first: tuple[str, str], second: tuple[str, str]) -> None:
        cells = [self.cells.get(row, {}).get(metric) for row, metric in (first, second)]
        if cells[0] is None or cells[1] is None:
            return
        found = difference(first[1], cells[0].parts, cells[1].parts)
        if found is not None:
            of, minus = ({"row": row, "metric": metric} for row, metric in (first, second))
            self.differences.append({"of": of, "minus": minus, **asdict(found)})

    def metrics(self) -> list[str]:
        """The metrics of all rows in the order in which they were filed."""
        rows = self.results()["rows"].values()
        return list(dict.fromkeys(metric for found in rows for metric in found))

    def results(self) -> dict[str, Any]:
        """The content of ``results.json``."""
        return {
            "rows": {
                row: {metric: cell.record() for metric, cell in cells.items()} | self.numbers[row]
                for row, cells in self.cells.items()
            },
            "differences": self.differences,
            "how": self.how,
        }

    def write(self, folder: Path, items: Sequence[Mapping[str, Any]]) -> None:
        """Write ``items.jsonl``, ``clips.json`` (the two sums of each clip, from which eval/compare.py makes paired
        intervals between systems) and ``results.json``, each atomically; the results come last. Of
        several processes the first writes.
        """
        if not is_main():
            return
        parts = {row: {metric: cell.parts for metric, cell in cells.items()} for row, cells in self.cells.items()}
        write_file(folder / "clips.json", json.dumps(plain(parts), allow_nan=False) + "\n")
        lines = "".join(json.dumps(plain(item), allow_nan=False) + "\n" for item in items)
        write_file(folder / "items.jsonl", lines)
        record = {"finished": round(time.time(), 3), **self.results()}
        write_file(folder / "results.json", json.dumps(plain(record), indent=1, allow_nan=False) + "\n")

    def table(self, metrics: Sequence[str] | None = None) -> str:
        """A plain table of ``metrics`` (None: all), as `console_table` makes it."""
        clips = [len(c.parts) + len(c.failures) for found in self.cells.values() for c in found.values()]
        return console_table(self.results()["rows"], metrics, max(clips, default=0))


def console_table(rows: Mapping[str, Mapping[str, Any]], metrics: Sequence[str] | None, most: int) -> str:
    """A plain table: a line per metric, a column per row, ``value [low, high]`` and N where it differs from ``most``;
    why some were not computed stands below.
    """
    known = dict.fromkeys(metric for found in rows.values() for metric in found)
    names = [name for name in (known if metrics is None else metrics) if name in known]
    why: dict[str, list[str]] = {}  # reason -> metrics

    def cell(metric: str, found: Mapping[str, Any]) -> str:
        reason = missing(found.get(metric))
        if reason:
            why.setdefault(reason, []).append(metric)
        return "not computed" if reason else show(metric, found.get(metric), most)

    body = [[name, *(cell(name, found) for found in rows.values())] for name in names]
    notes = [f"{', '.join(dict.fromkeys(metrics))}: not computed: {reason}" for reason, metrics in why.items()]
    below = [f"N = {most} clips; [95 % interval over clips]", *notes]
    return "\n".join([Table(["", *rows], body).console(), *map(printable, below)])


def missing(cell: Mapping[str, Any] | None) -> str:
    """Why a cell has no value; empty where it has one, or where there was nothing to compute."""
    if cell is None or cell["value"] is not None or not cell["failures"]:
        return ""
    return cell["failures"][0]["reason"].removeprefix("not computed: ")


def show(metric: str, cell: Mapping[str, Any] | None, usual: int) -> str:
    """One cell of the table."""
    if cell is None:
        return "-"
    if cell["value"] is None:
        reason = missing(cell)
        return f"not computed ({reason})" if reason else "-"
    percent = is_share(metric)

    def text(value: float) -> str:
        return f"{100 * value:.1f}" if percent else f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"

    out = text(cell["value"]) + (" %" if percent else "")
    if cell["low"] is not None:
        out += f" [{text(cell['low'])}, {text(cell['high'])}]"
    notes = [f"N={cell['n']}"] if cell["n"] < usual else []  # a number of frames, not of clips, is above
    notes += [f"{cell[key]} {what}" for key, what in LACKING.items() if cell.get(key)]
    return out + (f" ({', '.join(notes)})" if notes else "")


def plain(value: Any) -> Any:
    """Numpy numbers as Python's, NaN and infinity as None, URLs without credentials: what is published as JSON."""
    if isinstance(value, str):
        return without_credentials(value)
    if isinstance(value, Mapping):
        return {without_credentials(str(key)): plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(entry) for entry in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
