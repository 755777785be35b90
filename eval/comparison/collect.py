"""The table of a comparison of tokenizers: entries, lines, and what is tested against the control.

Where a row is marked as control, every score is tested against it, paired over clips where both have them. An entry
that is not clearly better is marked ``°``; a line in which nothing is gets ``‡``: it says nothing about tokenizers.
What cannot be tested (a number without interval, fewer than ten common clips, made differently) is neither better nor
worse, and is marked ``?``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from eval.comparison.published import Published
from eval.harness.intervals import LEAST
from eval.harness.protocols import differing
from eval.harness.provenance import record_hash
from eval.harness.report import difference, show
from eval.harness.tables import Table

RECORDINGS = "recordings"
EVALUATIONS_OF_FLOW = "evaluations of the flow"
UP, DOWN, NEITHER = 1, -1, 0
LEGEND = {
    "°": "not clearly better than the control (95 %; paired over the clips where both have them, which are all N of "
    "the line where the mark does not say over how many)",
    "?": "not tested against the control, so neither better nor worse: a number without interval, fewer than "
    f"{LEAST} clips that both have, or made differently",
    "‡": "nothing in this line is clearly better than the control: at this budget it says nothing about tokenizers",
    "§": "not made like the first row's",
}


@dataclass
class Entry:
    """One figure of one row.

    Attributes:
        cell: the cell that made it.
        file: the JSON that holds it, in the folder of the cell.
        n_undelivered: of the ``n`` clips, those that the system did not deliver.
        n_common: clips over which it is tested against the control (the fewest, of several); None without a test.
    """

    text: str
    cell: str
    file: str
    value: float | None = None
    low: float | None = None
    high: float | None = None
    n: int | None = None
    n_failed: int = 0
    n_undelivered: int = 0
    n_common: int | None = None
    marks: str = ""

    @classmethod
    def of(cls, found: Mapping[str, Any], cell: str) -> Entry:
        """A cell of results.json; `finish_line` writes it when N of the line is known."""
        numbers = {key: found[key] for key in ("value", "low", "high", "n", "n_failed")}
        return cls(json.dumps(found), cell, "results.json", **numbers, n_undelivered=found.get("undelivered") or 0)


@dataclass
class Line:
    """One line of the table."""

    section: str
    title: str
    better: int = NEITHER
    score: bool = False
    entries: dict[str, Entry] = field(default_factory=dict)
    marks: str = ""
    how: dict[str, tuple[Any, dict[str, Any]]] = field(default_factory=dict)  # row → protocol, sums per clip
    metric: str = ""


@dataclass
class Comparison:
    """The table, what is equal between its rows, and the cells behind it."""

    name: str
    rows: list[str]
    controls: list[str]
    lines: list[Line]
    fairness: list[str]
    legend: list[str]
    notes: list[str]
    cells: dict[str, dict[str, Any]]
    published: list[Published] = field(default_factory=list)  # tables of others, below
    families: dict[str, str] = field(default_factory=dict)  # row → the row of the configuration whose `each` it is of

    def table(self) -> Table:
        """All lines, for every notation."""
        arrows = {UP: " ↑", DOWN: " ↓", NEITHER: ""}
        body, section = [], ""
        for line in self.lines:
            if line.section != section:
                section = line.section
                body.append([section.upper(), *[""] * len(self.rows)])
            cells = [line.entries.get(row) for row in self.rows]
            body.append(
                [f"{line.title}{arrows[line.better]}{' ' + line.marks if line.marks else ''}"]
                + [f"{cell.text}{cell.marks}" if cell else "-" for cell in cells]
            )
        return Table(["", *self.rows], body)

    def record(self) -> dict[str, Any]:
        """Everything as JSON can hold it."""
        lines = [
            {
                "section": line.section, "title": line.title, "better": line.better, "marks": line.marks,
                "metric": line.metric, "entries": {row: vars(entry) for row, entry in line.entries.items()},
            }
            for line in self.lines
        ]  # fmt: skip
        return {"rows": self.rows, "controls": self.controls, "lines": lines, "fairness": self.fairness,
                "legend": self.legend, "notes": self.notes, "cells": self.cells}  # fmt: skip


def finish_line(line: Line) -> None:
    """Write the entries of a score, N in the title where it is the same; mark those that were made differently."""
    if not line.how:
        return
    counts = [entry.n + entry.n_failed for entry in line.entries.values() if entry.n is not None]
    usual = max(counts, default=0)
    for entry in line.entries.values():
        if entry.n is not None:
            entry.text = show(line.metric, json.loads(entry.text), usual)
    line.title += f" (N = {usual})" if usual else ""
    first = next(iter(line.how))
    for row, (record, _) in line.how.items():
        if record_hash(record) != record_hash(line.how[first][0]):
            line.entries[row].marks += f" § ({', '.join(differing(line.how[first][0], record)[:3])})"


def mark_control(line: Line, controls: Sequence[str]) -> None:
    """Mark what does not clearly beat every control, and what cannot be tested."""
    tested = [row for row in line.entries if row not in (*controls, RECORDINGS) and line.entries[row].value is not None]
    against = [row for row in controls if row in line.entries and line.entries[row].value is not None]
    if not tested or not against:
        return
    verdicts: list[bool | None] = []
    for row in tested:
        entry = line.entries[row]
        found = [clearly_better(line, row, control) for control in against]
        verdicts.append(None if None in found else all(found))
        entry.marks += {True: "", False: " °", None: " ?"}[verdicts[-1]]
        common = min(len(sums_of(line, row).keys() & sums_of(line, control).keys()) for control in against)
        if common and verdicts[-1] is not None:
            entry.n_common = common
            if entry.n_common != (entry.n or 0) + entry.n_failed:
                entry.marks += f" (tested over {entry.n_common})"
    if False in verdicts and True not in verdicts:
        line.marks = (line.marks + " ‡").strip()


def sums_of(line: Line, row: str) -> dict[str, Any]:
    """The sums of each clip that a row has a score for; empty where the figure is of no clips."""
    return line.how[row][1] if row in line.how else {}


def clearly_better(line: Line, row: str, control: str) -> bool | None:
    """By the paired interval over common clips; without clips by intervals that do not overlap.

    Returns:
        None where neither is possible, or the two were not made alike: no test, no verdict.
    """
    one, other = line.entries[row], line.entries[control]
    records = [record_hash(line.how[name][0]) for name in (row, control) if name in line.how]
    if len(set(records)) > 1:
        return None
    sides = [sums_of(line, name) for name in (row, control)]
    if all(sides):
        found = difference(line.metric, *sides)
        if found is None or found.low is None or found.high is None:
            return None
        return found.low > 0 if line.better == UP else found.high < 0
    if one.low is None or one.high is None or other.low is None or other.high is None:
        return None
    return one.low > other.high if line.better == UP else one.high < other.low
