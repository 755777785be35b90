"""Writes a comparison of tokenizers: tables in four notations, plots, and a page without any network."""

from __future__ import annotations

import csv
import html
import io
import json
import re
from base64 import b64encode
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from eval.comparison.collect import DOWN, RECORDINGS, UP, Comparison, Entry, Line
from eval.harness.tables import Table, csv_cell, markdown_text
from training.checkpoint import write_file

STYLE = """
:root { color-scheme: light dark; --line: #8884; --dim: #777; }
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 90rem; padding: 0 1rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .7rem; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap; }
th:first-child, td:first-child { text-align: left; position: sticky; left: 0; background: Canvas; }
tr.section th { text-align: left; padding-top: 1.2rem; }
td a { color: inherit; text-decoration: underline dotted; }
td a.how { color: var(--dim); font-size: 70%; text-decoration: none; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; background: #8881; padding: .6rem; }
img { margin: 0 1rem 1rem 0; max-width: 100%; background: white; }
:target { outline: 2px solid; }
"""


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


def plot(comparison: Comparison, line: Line) -> str:
    """Bit rate and tokens/s against a score with its intervals, as SVG; the same bytes for the same figures."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    facts = {known.title: known.entries for known in comparison.lines if known.section == "tokenizer"}
    figure, axes = pyplot.subplots(1, 2, figsize=(8.4, 3.2), sharey=True, layout="constrained")
    for axis, title in zip(axes, ("bit/s", "tokens/s"), strict=True):
        drawn: list[str] = []  # what has a colour: a row, or a family of rows, whose points are named instead
        for row, entry in of_rows(comparison, line).items():
            family = comparison.families.get(row, row)
            if new := family not in drawn:
                drawn.append(family)
            where = facts.get(title, {}).get(row)
            if entry.value is None or where is None or where.value is None:
                continue
            spread = None
            if entry.low is not None and entry.high is not None:
                spread = [[max(0.0, entry.value - entry.low)], [max(0.0, entry.high - entry.value)]]
            shape = "x" if row in comparison.controls else "o"
            colour = f"C{drawn.index(family) % 10}"
            label = family if new else None
            axis.errorbar([where.value], [entry.value], yerr=spread, fmt=shape, capsize=3, color=colour, label=label)
            if family != row:
                point = ", ".join(
                    re.sub(r"^([a-z])[a-z_]*", r"\1 ", part) for part in row[len(family) + 1 :].split("-")
                )
                axis.annotate(point, (where.value, entry.value), (3, 3), textcoords="offset points", fontsize=5)
        axis.set_xlabel(title)
        axis.margins(0.15)
        axis.grid(alpha=0.3)
    reference = line.entries.get(RECORDINGS)
    if reference is not None and reference.value is not None:
        for axis in axes:
            axis.axhline(reference.value, color="grey", linestyle=":", label=RECORDINGS)
    arrow = {UP: " (higher is better)", DOWN: " (lower is better)"}.get(line.better, "")
    figure.suptitle(f"{line.section}: {line.title}{arrow}", fontsize=10)
    axes[1].legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    stream = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "comparison", "svg.fonttype": "path"}):
        figure.savefig(stream, format="svg", metadata={"Date": None})
    pyplot.close(figure)
    return stream.getvalue()


def page(comparison: Comparison, plots: Mapping[str, str]) -> str:
    """The page: the table with links, the plots, and every command; nothing is loaded from elsewhere."""
    esc = html.escape
    head = "".join(
        f"<th>{esc(row)}{' (control)' if row in comparison.controls else ''}</th>" for row in comparison.rows
    )
    arrows = {UP: " ↑", DOWN: " ↓"}
    body, section = [], ""
    for line in comparison.lines:
        if line.section != section:
            section = line.section
            body.append(f'<tr class="section"><th colspan="{len(comparison.rows) + 1}">{esc(section)}</th></tr>')
        cells = []
        for row in comparison.rows:
            entry = line.entries.get(row)
            if entry is None:
                cells.append("<td>–</td>")
                continue
            file = f"cells/{entry.cell}/{entry.file}"
            cells.append(
                f'<td><a href="{esc(file)}">{esc(entry.text)}</a>{esc(entry.marks)} '
                f'<a class="how" href="#{esc(anchor(entry.cell))}" title="command, configuration, seed">cmd</a></td>'
            )
        body.append(
            f"<tr><td>{esc(line.title)}{arrows.get(line.better, '')} {esc(line.marks)}</td>{''.join(cells)}</tr>"
        )
    below = "".join(f"<li>{esc(text)}</li>" for text in (*comparison.fairness, *comparison.legend))
    pictures = "".join(
        f'<img alt="{esc(name)}" src="data:image/svg+xml;base64,{b64encode(picture.encode()).decode()}">'
        for name, picture in plots.items()
    )
    commands = "".join(cell_section(name, cell) for name, cell in comparison.cells.items())
    others = "".join(f"<h2>{esc(of.title)}</h2>{plain_table(of.table)}" for of in comparison.published)
    title = f"Tokenizers compared: {esc(comparison.name)}"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>{title}</title><style>{STYLE}</style></head><body><h1>{title}</h1>"
        "<p>Every figure links to the JSON it comes from; <em>cmd</em> leads to the command that made it. "
        "Brackets hold 95 % intervals.</p>"
        f'<div class="wide"><table><thead><tr><th></th>{head}</tr></thead><tbody>{"".join(body)}</tbody></table></div>'
        f"<h2>What is equal, and marks</h2><ul>{below}</ul><h2>Plots</h2>{pictures}{others}<h2>Cells</h2>{commands}"
        "</body></html>\n"
    )


def plain_table(table: Table) -> str:
    """A table of text alone."""

    def line(cells: Sequence[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"

    body = "".join(line(cells, "td") for cells in table.body)
    return f'<div class="wide"><table><thead>{line(table.header, "th")}</thead><tbody>{body}</tbody></table></div>'


def anchor(cell: str) -> str:
    """The id of a cell's section."""
    return "cell-" + slug(cell)


def cell_section(name: str, cell: Mapping[str, Any]) -> str:
    """Command, configuration, seed and files of a cell."""
    esc = html.escape
    folder = f"cells/{name}"
    if "key" not in cell:
        said = f'<p>{esc(str(cell.get("failed")))} (<a href="{esc(folder)}/log.txt">log</a>)</p>'
        return f'<section id="{esc(anchor(name))}"><h3>{esc(name)}</h3>{said}</section>'
    links = [("configuration", "config.yaml"), ("log", "log.txt"), ("record", "done.json"),
             *((file, file) for file in cell["results"])]  # fmt: skip
    shown = ", ".join(f'<a href="{esc(folder)}/{esc(file)}">{esc(title)}</a>' for title, file in links)
    seed = f"seed {cell['seed']}, " if cell.get("seed") is not None else ""
    return (
        f'<section id="{esc(anchor(name))}"><h3>{esc(name)}</h3><pre>{esc(cell["command"])}</pre>'
        f"<p>{seed}{cell['seconds']:g} s, attempt {cell['attempts']}: {shown}</p></section>"
    )
