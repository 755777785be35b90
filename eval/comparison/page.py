"""Writes a comparison of tokenizers: tables in four notations, plots, and a page without any network."""

from __future__ import annotations

import csv
import io
import json
import re
from base64 import b64encode
from collections.abc import Mapping
from itertools import groupby
from pathlib import Path
from typing import Any

from eval.comparison.collect import DOWN, EVALUATIONS_OF_FLOW, NEITHER, RECORDINGS, UP, Comparison, Entry, Line
from eval.harness.pages import render
from eval.harness.tables import csv_cell, markdown_text
from training.checkpoint import write_file


def write_comparison(comparison: Comparison, out: Path) -> list[Path]:
    """Write everything into ``out``; returns the files, the page first."""
    plots = {}
    for line in comparison.lines:
        if line.score and sum(entry.value is not None for entry in of_rows(comparison, line).values()) > 1:
            name = slug(f"{line.section}-{line.title.partition(' (N')[0]}")
            plots[name] = plot(comparison, line)
    for name, picture in plots.items():
        write_file(out / "plots" / f"{name}.svg", picture)
    table = comparison.table()
    files = [out / name for name in ("index.html", "comparison.md", "comparison.tex", "comparison.csv", "entries.csv")]
    below = "\n".join(f"* {markdown_text(line)}" for line in (*comparison.fairness, *comparison.legend))
    pictures = "\n".join(f"![{name}](plots/{name}.svg)" for name in plots)
    others = "".join(f"\n\n{markdown_text(of.title)}\n\n{of.table.markdown()}" for of in comparison.published)
    write_file(files[1], f"{table.markdown()}\n\n{below}\n\n{pictures}{others}\n")
    write_file(files[2], table.latex() + "\n")
    write_file(files[3], table.csv() + "\n")
    write_file(files[4], entries(comparison))
    write_file(out / "comparison.json", json.dumps(comparison.record(), indent=1, ensure_ascii=False) + "\n")
    write_file(files[0], page(comparison, plots))
    return [*files, out / "comparison.json"]


def of_rows(comparison: Comparison, line: Line) -> dict[str, Entry]:
    """The entries of tokenizers."""
    return {row: line.entries[row] for row in comparison.rows if row in line.entries and row != RECORDINGS}


def entries(comparison: Comparison) -> str:
    """One line per figure, for programs."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    head = "section line row value low high n n_failed n_undelivered n_common text marks json command config seed"
    writer.writerow(head.split())
    for line in comparison.lines:
        for row, e in line.entries.items():
            cell = comparison.cells.get(e.cell, {})
            folder = f"cells/{e.cell}"
            score = [e.value, e.low, e.high, e.n, e.n_failed, e.n_undelivered, e.n_common, e.text, e.marks.strip()]
            source = [f"{folder}/{e.file}", cell.get("command"), f"{folder}/config.yaml", cell.get("seed")]
            writer.writerow(map(csv_cell, [line.section, line.title, row, *score, *source]))
    return stream.getvalue()


def slug(text: str) -> str:
    """A file name."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def _series(row: str, family: str) -> tuple[str, str]:
    """The series that a row is drawn in, and what its point is called: of a family of several options, the points of
    one value of the last belong together; a row of its own has no name at its point.
    """
    if row == family:
        return row, ""
    *points, last = [
        re.sub(r"^(?:[a-z_]+\.)*([a-z])[a-z_]*(?=[0-9])", r"\1 ", p) for p in row[len(family) + 1 :].split("-")
    ]
    return (f"{family}, {last}", ", ".join(points)) if points else (family, last)


def plot(comparison: Comparison, line: Line) -> str:
    """Bit rate and tokens/s against a score with its intervals, or of decoders of the same codes the evaluations of
    their flow, as SVG; the same bytes for the same figures.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot, ticker

    facts = {known.title: known.entries for known in comparison.lines if known.section == "tokenizer"}
    over = [EVALUATIONS_OF_FLOW] if EVALUATIONS_OF_FLOW in facts else ["bit/s", "tokens/s"]
    figure, found = pyplot.subplots(1, len(over), figsize=(8.4, 3.2), sharey=True, squeeze=False, layout="constrained")
    axes = found[0]
    for axis, title in zip(axes, over, strict=True):
        drawn: list[str] = []  # what has a colour and a line: a row, or a series of a family, whose points are named
        places: list[float] = []
        lines: dict[tuple[str, str], list[tuple[float, float]]] = {}  # (series, colour) → its points
        for row, entry in of_rows(comparison, line).items():
            series, point = _series(row, comparison.families.get(row, row))
            if new := series not in drawn:
                drawn.append(series)
            where = facts.get(title, {}).get(row)
            if entry.value is None or where is None or where.value is None:
                continue
            spread = None
            if entry.low is not None and entry.high is not None:
                spread = [[max(0.0, entry.value - entry.low)], [max(0.0, entry.high - entry.value)]]
            shape = "x" if row in comparison.controls else "o"
            colour = f"C{drawn.index(series) % 10}"
            label = series if new else None
            bar = {"elinewidth": 0.5, "capsize": 1.5, "markersize": 3} if point else {"capsize": 3}
            axis.errorbar([where.value], [entry.value], yerr=spread, fmt=shape, color=colour, label=label, **bar)
            places.append(where.value)
            if point:
                lines.setdefault((series, colour), []).append((where.value, entry.value))
                axis.annotate(point, (where.value, entry.value), (3, 3), textcoords="offset points", fontsize=5)
        for (_, colour), points in lines.items():
            axis.plot(*zip(*sorted(points), strict=True), color=colour, linewidth=0.8)
        if lines and min(places) > 0 and max(places) > 5 * min(places):
            axis.set_xscale("log")
            axis.xaxis.set_major_formatter(ticker.ScalarFormatter())
            axis.xaxis.set_minor_formatter(ticker.NullFormatter())
            axis.xaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
        axis.set_xlabel(title)
        axis.margins(0.15)
        axis.grid(alpha=0.3)
    reference = line.entries.get(RECORDINGS)
    if reference is not None and reference.value is not None:
        for axis in axes:
            axis.axhline(reference.value, color="grey", linestyle=":", label=RECORDINGS)
    arrow = {UP: " (higher is better)", DOWN: " (lower is better)"}.get(line.better, "")
    figure.suptitle(f"{line.section}: {line.title}{arrow}", fontsize=10)
    axes[-1].legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    stream = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "comparison", "svg.fonttype": "path"}):
        figure.savefig(stream, format="svg", metadata={"Date": None})
    pyplot.close(figure)
    return stream.getvalue()


def page(comparison: Comparison, plots: Mapping[str, str]) -> str:
    """The page: the table with links, the plots, and every command; nothing is loaded from elsewhere."""
    return render(
        Path(__file__).with_name("page.html"),
        comparison=comparison,
        sections=[(name, list(lines)) for name, lines in groupby(comparison.lines, lambda line: line.section)],
        arrows={UP: " ↑", DOWN: " ↓", NEITHER: ""},
        below=[*comparison.fairness, *comparison.legend],
        plots={name: b64encode(picture.encode()).decode() for name, picture in plots.items()},
        anchor=lambda cell: "cell-" + slug(cell),
        files=files_of,
    )


def files_of(cell: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Titles and names of the files of a finished cell."""
    known = [("configuration", "config.yaml"), ("log", "log.txt"), ("record", "done.json")]
    return known + [(file, file) for file in cell["results"]]
