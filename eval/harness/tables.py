"""One table, four notations: console, Markdown, CSV and LaTeX. A cell may hold a name that anybody gave: none is a
formula, a tag or a terminal's command where the table is opened.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass

from training.identity import printable

LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
}  # fmt: skip


# a signed number with its interval and remarks, or the dash of an empty cell: nothing that a spreadsheet could call
NUMBER = re.compile(r"[-+]([\d.,\[\] %e*+-]|\((N=)?\d+( [a-z ]+)?\))*")


def csv_cell(cell: object) -> object:
    """A cell for CSV; text is on one line, and begins with an apostrophe where a spreadsheet would compute it."""
    if not isinstance(cell, str):
        return cell
    risky = cell.startswith(("=", "@", "+", "-", "\t", "\r")) and not NUMBER.fullmatch(cell)
    return ("'" if risky else "") + printable(cell)


def markdown_text(text: str) -> str:
    """``text`` on one line of Markdown, in which it is no tag and ends no cell."""
    for character, written in (("\\", "\\\\"), ("|", "\\|"), ("&", "&amp;"), ("<", "&lt;")):
        text = text.replace(character, written)
    return printable(text)


@dataclass(frozen=True)
class Table:
    """Header and body cells as text; all lines are equally long."""

    header: Sequence[str]
    body: Sequence[Sequence[str]]

    def console(self) -> str:
        """Columns of equal width, a rule below the header."""
        lines = [[printable(cell) for cell in line] for line in (self.header, *self.body)]
        widths = [max(len(line[column]) for line in lines) for column in range(len(self.header))]
        text = [
            "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
        ]
        return "\n".join([text[0], "-" * len(text[0]), *text[1:]])

    def markdown(self) -> str:
        """A GitHub table."""

        def line(cells: Sequence[str]) -> str:
            return "| " + " | ".join(map(markdown_text, cells)) + " |"

        return "\n".join([line(self.header), line(["---"] * len(self.header)), *map(line, self.body)])

    def csv(self) -> str:
        """Comma-separated values with a header."""
        stream = io.StringIO()
        csv.writer(stream, lineterminator="\n").writerows(map(csv_cell, line) for line in (self.header, *self.body))
        return stream.getvalue().rstrip("\n")

    def latex(self) -> str:
        """A ``tabular`` with booktabs' rules."""

        def line(cells: Sequence[str]) -> str:
            return " & ".join("".join(LATEX.get(character, character) for character in cell) for cell in cells) + r" \\"

        return "\n".join(
            [
                r"\begin{tabular}{l" + "r" * (len(self.header) - 1) + "}", r"\toprule", line(self.header), r"\midrule",
                *map(line, self.body), r"\bottomrule", r"\end{tabular}",
            ]
        )  # fmt: skip

    def text(self, notation: str) -> str:
        """The table in the ``notation`` console, markdown, csv or latex."""
        return {"console": self.console, "markdown": self.markdown, "csv": self.csv, "latex": self.latex}[notation]()
