"""Reads metadata.jsonl, metadata.csv and metadata.parquet line by line: one that is wrong never costs another.

for line in read_metadata(Path("my_corpus/metadata.csv")):
    line.columns or line.problem
"""

import csv
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from codec.audio.folder import looks_like_audio
from training.identity import first_line

METADATA_NAMES = ("metadata.jsonl", "metadata.csv", "metadata.parquet")
# A few kilobytes of parquet can hold billions of equal values: what more than this must be unpacked for is refused.
VALUES_PER_GROUP = 1 << 24  # of a column in one row group
BYTES_PER_GROUP = 1 << 28  # of a column, unpacked
TEXT_BYTES = 1 << 20  # of one cell: a text, or all captions
ROWS_PER_BYTE = 64  # of the file: more rows than that have no names of their own
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
        return f"{line.place} cannot be read ({first_line(error)})"
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
                yield Line(place, problem=f"{place} is not valid JSON ({first_line(error)})")
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
            yield Line(place, problem=f"{place} cannot be read ({first_line(error)})")
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

    wrong = (pyarrow.ArrowException, OSError, ValueError, OverflowError)
    try:
        parquet = open_parquet(source)
    except wrong as error:
        raise CorpusError(f"{source} is not a readable parquet file ({first_line(error)})") from error
    names = parquet.schema_arrow.names
    rows, size = parquet.metadata.num_rows, source.stat().st_size
    with parquet:
        if rows > ROWS_PER_BYTE * size:
            yield Line(source.name, problem=f"{source.name} has {size} bytes and says that it has {rows} rows")
            return
        first = 1
        for group in range(parquet.num_row_groups):
            number, end = first, first + parquet.metadata.row_group(group).num_rows
            first = end
            try:
                check_unpacked(parquet, group)
            except TooLarge as error:
                yield Line(source.name, problem=f"{source.name}: rows {number} to {end - 1} are not read: {error}")
                continue
            except wrong as error:
                reason = f"rows {number} to {end - 1} are damaged ({first_line(error)})"
                yield Line(source.name, problem=f"{source.name}: {reason}")
                continue
            batches = parquet.iter_batches(row_groups=[group], batch_size=1024)
            while number < end:
                try:
                    batch = next(batches)
                except (StopIteration, *wrong) as error:
                    reason = f"rows {number} to {end - 1} are damaged ({first_line(error)})"
                    yield Line(source.name, problem=f"{source.name}: {reason}")
                    break
                try:
                    some_long = any(_bytes(column) > TEXT_BYTES for column in batch.columns)
                except wrong:  # each row is looked at
                    some_long = True
                for row in range(batch.num_rows):
                    place = f"{source.name} row {number}"
                    number += 1
                    try:
                        cells = batch.slice(row, 1)
                        long = some_long and next((n for n in names if _bytes(cells.column(n)) > TEXT_BYTES), None)
                        if long:
                            yield Line(place, problem=f"{place}: its {long} takes more than {TEXT_BYTES} bytes")
                        else:
                            yield Line(place, cells.to_pylist()[0])
                    except wrong as error:  # texts that are not UTF-8, times that Python does not know
                        yield Line(place, problem=f"{place} cannot be read ({first_line(error)})")


def _bytes(cells: Any) -> int:
    """What the values of an arrow array take when each is a value of its own."""
    import pyarrow.compute
    from pyarrow import types

    if types.is_dictionary(cells.type):
        cells = pyarrow.compute.binary_length(cells.dictionary).take(cells.indices)
        return (pyarrow.compute.sum(cells).as_py() or 0) + len(cells)
    if types.is_list(cells.type) or types.is_large_list(cells.type):
        return _bytes(cells.flatten()) + len(cells)
    if types.is_struct(cells.type):
        return sum(map(_bytes, cells.flatten()))
    return cells.nbytes


def open_parquet(source: Path) -> Any:
    """A ``pyarrow.parquet.ParquetFile`` that compares the checksums of its pages, where they have some, and reads texts
    as dictionaries: one that many rows share is in memory once, and its length known before it is copied.
    """
    import pyarrow.parquet

    footer = pyarrow.parquet.read_metadata(source)
    texts = [column.path for column in footer.schema if column.physical_type == "BYTE_ARRAY"]
    return pyarrow.parquet.ParquetFile(source, metadata=footer, read_dictionary=texts, page_checksum_verification=True)


class TooLarge(ValueError):
    """A row group would take more memory than the limits above say; the message names the column and its size."""


def check_unpacked(
    parquet: Any, number: int, most: int = VALUES_PER_GROUP, counted: Sequence[str] | None = None
) -> None:
    """Refuse a row group of a ``pyarrow.parquet.ParquetFile`` for its size; reads none of it.

    Args:
        most: values of a column.
        counted: the columns that are read and whose bytes count; None: all.

    Raises:
        TooLarge: and what pyarrow raises where the description of a column is damaged.
    """
    columns = range(parquet.metadata.num_columns)
    # pyarrow raises where it is to read damaged columns, if only no row of them; asked for one's description alone, it
    # ends the process.
    for _ in parquet.reader.iter_batches(0, row_groups=[number], column_indices=list(columns)):
        pass
    group = parquet.metadata.row_group(number)
    for column in map(group.column, columns):
        name = column.path_in_schema.split(".")[0]
        if column.num_values > most:
            raise TooLarge(
                f"the {name} of {group.num_rows} rows are {column.num_values} values; a row group holds at most {most}"
            )
        if (counted is None or name in counted) and column.total_uncompressed_size > BYTES_PER_GROUP:
            raise TooLarge(f"its column {name} takes {column.total_uncompressed_size} bytes in one row group")
