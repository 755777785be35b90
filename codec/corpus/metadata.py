"""Reads metadata.jsonl, metadata.csv and metadata.parquet line by line: one that is wrong never costs another.

for line in read_metadata(Path("my_corpus/metadata.csv")):
    line.columns or line.problem
"""

import csv
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from codec.audio.folder import looks_like_audio

METADATA_NAMES = ("metadata.jsonl", "metadata.csv", "metadata.parquet")
DELIMITERS = ",;\t"  # of a CSV file; that of the column file_name is taken


class CorpusError(ValueError):
    """The corpus folder as a whole cannot be read."""


@dataclass
class Line:
    """One line or row: where it stands, for messages, and its columns; where it is wrong, `problem` says it whole."""

    place: str
    columns: dict[str, Any] = field(default_factory=dict)
    problem: str | None = None


def read_metadata(source: Path) -> Iterator[Line]:
    """The lines of one metadata file in order. Raises CorpusError when it cannot be read at all."""
    readers = {".jsonl": _json_lines, ".csv": _csv_lines, ".parquet": _parquet_rows}
    try:
        with source.open("rb") as file:
            if file.read(2) in (b"\xff\xfe", b"\xfe\xff"):
                raise CorpusError(f"{source} is UTF-16 text: save it as UTF-8")
        for line in readers[source.suffix](source):
            line.problem = line.problem or _unicode_problem(line)
            yield line
    except OSError as error:
        raise CorpusError(f"{source} cannot be read ({error.strerror or error})") from error


def _unicode_problem(line: Line) -> str | None:
    try:
        json.dumps(line.columns, ensure_ascii=False, default=repr).encode()
    except UnicodeEncodeError:
        return f"{line.place} is not UTF-8: save the file as UTF-8, without halves of surrogate pairs"
    except (RecursionError, ValueError) as error:
        return f"{line.place} cannot be read ({error})"
    return None


def _json_lines(source: Path) -> Iterator[Line]:
    with source.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            place = f"{source.name} line {number}"
            try:
                columns = json.loads(line.decode("utf-8-sig"))
            except UnicodeDecodeError as error:
                yield Line(place, problem=f"{place} is not valid JSON (it is not UTF-8: {error.reason})")
            except json.JSONDecodeError as error:
                yield Line(place, problem=f"{place} is not valid JSON ({error})")
            except RecursionError:
                yield Line(place, problem=f"{place} is nested too deeply")
            except ValueError:  # Python converts at most 4,300 digits
                yield Line(place, problem=f"{place} has a number of too many digits")
            else:
                if isinstance(columns, dict):
                    yield Line(place, columns)
                else:
                    yield Line(place, problem=f"{place} is not a JSON object")


def _csv_lines(source: Path) -> Iterator[Line]:
    """Rows under the header. Bytes that are not UTF-8 become surrogates, so that they cost their own row alone."""
    with source.open(newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
        lines = file.readlines()
    if not "".join(lines).strip():
        return
    headers = {delimiter: _csv_header(lines, delimiter) for delimiter in DELIMITERS}
    delimiter = next((d for d, header in headers.items() if "file_name" in header), None)
    if delimiter is None:
        found = ", ".join(headers[","])[:200]
        yield Line(source.name, problem=f"{source.name} has no column file_name in its first line: {found}")
        return
    header = headers[delimiter]
    twice = [name for name, count in Counter(header).items() if count > 1]
    if twice:
        yield Line(source.name, problem=f"{source.name} has two columns {twice[0]!r}: rename one")
        return
    at = header.index("file_name")

    def begins_a_row(line: str) -> bool:
        cells = next(csv.reader([line], delimiter=delimiter), [])
        return len(cells) > at and looks_like_audio(Path(cells[at].strip()))

    number = 1
    while number < len(lines):
        place = f"{source.name} line {number + 1}"
        taken, is_open = 0, False

        def following(start: int = number) -> Iterator[str]:
            nonlocal taken, is_open
            # A quotation mark that nothing closes would swallow all that follows: its cell ends where a row begins.
            while start + taken < len(lines) and not (taken and begins_a_row(lines[start + taken])):
                taken += 1
                yield lines[start + taken - 1]
            is_open = True

        try:
            cells = next(csv.reader(following(), delimiter=delimiter), [])
        except csv.Error as error:
            yield Line(place, problem=f"{place} cannot be read ({error})")
            number += 1
            continue
        columns: dict[str, Any] = dict(zip(header, [*cells, *[None] * len(header)], strict=False))
        if is_open:
            reason = "opens a quotation mark that is not closed: close it, or write it twice inside quotation marks"
            yield Line(place, {"file_name": columns["file_name"]}, f"{place} {reason}")
            number += 1
            continue
        number += taken
        if len(cells) > len(header):
            yield Line(place, columns, f"{place} has more cells than the header")
        elif cells:
            yield Line(place, columns)


def _csv_header(lines: list[str], delimiter: str) -> list[str]:
    try:
        return next(csv.reader(lines[:1], delimiter=delimiter), [])
    except csv.Error:
        return []


def _parquet_rows(source: Path) -> Iterator[Line]:
    import pyarrow
    import pyarrow.parquet

    wrong = (pyarrow.ArrowException, OSError, ValueError, OverflowError)
    try:
        parquet = pyarrow.parquet.ParquetFile(source, page_checksum_verification=True)
    except (pyarrow.ArrowException, OSError) as error:
        raise CorpusError(f"{source} is not a readable parquet file ({error})") from error
    with parquet:
        first = 1
        for group in range(parquet.num_row_groups):
            number, end = first, first + parquet.metadata.row_group(group).num_rows
            batches = parquet.iter_batches(row_groups=[group], batch_size=1024)
            while number < end:
                try:
                    batch = next(batches)
                except (StopIteration, *wrong) as error:
                    reason = f"rows {number} to {end - 1} are damaged ({error})"
                    yield Line(source.name, problem=f"{source.name}: {reason}")
                    break
                for row in range(batch.num_rows):
                    place = f"{source.name} row {number}"
                    number += 1
                    try:
                        yield Line(place, batch.slice(row, 1).to_pylist()[0])
                    except wrong as error:  # texts that are not UTF-8, times that Python does not know
                        yield Line(place, problem=f"{place} cannot be read ({error})")
            first = end
