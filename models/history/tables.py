"""History from tables: CSV (also .gz), Parquet, and what an SQL query gives.

One row of the table is one row of a life, its columns are named by points. A column names the life. Others may tell

- how it ended, in its last row: `failure` or `censored` (also true and false, 1 and 0). Without such a column every life ended in failure;
- the number of the row in its life, which goes up by 1; without it the first row of a life is its first;
- the time: seconds since 1970, or RFC 3339 in UTC.

Rows of a life stand in their order; other lives may stand between them. An empty cell, NULL and NaN are a missing value.
"""

import csv
import dataclasses
import datetime
import gzip
import math
import pathlib
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from . import Fault, History, Life, seconds

ENDS = {"failure": True, "failed": True, "true": True, "1": True, "censored": False, "running": False, "false": False, "0": False}
UNREADABLE = (OSError, EOFError, UnicodeDecodeError, csv.Error)


@dataclasses.dataclass(frozen=True)
class Columns:
    """Names of the columns that are no points; None for one that is not there."""

    life: str = "life"
    ended: str | None = None
    row: str | None = None
    time: str | None = None


@dataclasses.dataclass
class Table:
    """A header and rows. `place` is what a row is counted in, and `first` the number of its first row there."""

    origin: str
    header: list[str]
    rows: Iterator
    place: str = "row"
    first: int = 1

    def __post_init__(self) -> None:
        self.index = {name: index for index, name in enumerate(self.header)}


def read_csv(path: pathlib.Path) -> Table:
    """A file of comma separated values with a header, compressed if it ends in .gz."""
    try:
        rows = lines_of(path)
        return Table(str(path), next(rows, []), rows, "line", 2)
    except UNREADABLE as error:
        raise Fault(f"cannot read `{path}`: {error}") from error


def lines_of(path: pathlib.Path) -> Iterator[list[str]]:
    with gzip.open(path, "rt", newline="") if path.suffix == ".gz" else path.open(newline="") as lines:
        yield from csv.reader(lines)


def read_parquet(path: pathlib.Path) -> Table:
    import pyarrow
    import pyarrow.parquet

    def rows() -> Iterator[tuple]:
        for batch in file.iter_batches():
            yield from zip(*(column.to_pylist() for column in batch.columns), strict=True)

    try:
        file = pyarrow.parquet.ParquetFile(path)
    except (OSError, pyarrow.ArrowException) as error:
        raise Fault(f"cannot read `{path}` as Parquet: {error}") from error
    return Table(str(path), file.schema_arrow.names, guarded(rows(), pyarrow.ArrowException, path))


def read_sql(url: str, query: str) -> Table:
    """What `query` gives; `url` as SQLAlchemy takes it. Errors do not show the URL, which may hold a password."""
    import sqlalchemy

    def rows() -> Iterator:
        with connection:
            yield from result

    try:
        connection = sqlalchemy.create_engine(url).connect().execution_options(stream_results=True)
        result = connection.execute(sqlalchemy.text(query))
    except (sqlalchemy.exc.SQLAlchemyError, ImportError) as error:
        raise Fault(f"the query failed: {str(error).splitlines()[0]}") from error
    return Table(f"query `{query}`", list(result.keys()), guarded(rows(), sqlalchemy.exc.SQLAlchemyError, "the answer to the query"))


def guarded(rows: Iterator, kind: type[Exception], what: object) -> Iterator:
    """`rows`, with errors that come while reading as faults."""
    try:
        yield from rows
    except kind as error:
        raise Fault(f"cannot read `{what}` to its end: {str(error).splitlines()[0]}") from error


def history(tables: Iterable[Table], points: Iterable[str], columns: Columns) -> History:
    """The lives in `tables`, which are read one after another as if they were one."""
    points, origins, lives, left_out = tuple(points), [], {}, Counter()
    for table in tables:
        origins.append(table.origin)
        named = [name for name in (columns.life, columns.ended, columns.row, columns.time) if name is not None]
        lacking = [name for name in (*named, *points) if name not in table.index]
        if lacking:
            raise Fault(f"`{table.origin}`: no column is named {', '.join(f'`{name}`' for name in lacking)}; there are {', '.join(table.header)}")
        left_out["columns that are no point of the bundle"] += len(set(table.index) - {*named, *points})
        number = table.first - 1
        try:
            for number, cells in enumerate(table.rows, table.first):
                if cells:
                    take(Row(table, number, cells), points, columns, lives)
        except UNREADABLE as error:
            raise Fault(f"cannot read `{table.origin}` after {table.place} {number}: {error}") from error
    return History(", ".join(origins), points, [life.whole(name, columns.ended) for name, life in lives.items()], +left_out)


class Row:
    """A row of a table, which knows where it stands."""

    def __init__(self, table: Table, number: int, cells: Any):
        self.table, self.number, self.cells = table, number, cells
        if len(cells) != len(table.header):
            raise Fault(f"`{table.origin}`, {table.place} {number}: {len(cells)} cells; expected {len(table.header)}, as in the header")

    def cell(self, column: str) -> Any:
        return self.cells[self.table.index[column]]

    def fault(self, column: str, expected: str) -> Fault:
        return Fault(f"`{self.table.origin}`, {self.table.place} {self.number}, column `{column}`: `{self.cell(column)}` is not {expected}")

    def number_of(self, column: str) -> float:
        """NaN where the value is missing."""
        cell = self.cell(column)
        if cell is None or cell == "":
            return math.nan
        try:
            value = float(cell)
        except (TypeError, ValueError):
            value = math.inf
        if math.isinf(value):
            raise self.fault(column, "a finite number; a value that is missing is an empty cell")
        return value

    def time_of(self, column: str) -> float:
        cell = self.cell(column)
        try:
            return seconds(cell) if isinstance(cell, datetime.datetime) else float(cell)
        except (TypeError, ValueError):
            pass
        try:
            return seconds(datetime.datetime.fromisoformat(cell))
        except (TypeError, ValueError):
            raise self.fault(column, "a time: seconds since 1970, or RFC 3339 such as 2026-12-01T06:00:00Z") from None

    def end_of(self, column: str) -> bool:
        ended = ENDS.get(str(self.cell(column)).lower())
        if ended is None:
            raise self.fault(column, "how a life ended: failure or censored")
        return ended


class Growing:
    """A life while its rows are read."""

    def __init__(self, first_row: int):
        self.first_row, self.time, self.values, self.last = first_row, [], [], None

    def whole(self, name: str, ended: str | None) -> Life:
        # Only the last row is asked: a life that goes on does not know its end.
        failed = ended is None or self.last.end_of(ended)
        return Life(name, failed, self.first_row, np.array(self.time), np.array(self.values))


def take(row: Row, points: tuple[str, ...], columns: Columns, lives: dict[str, Growing]) -> None:
    """Adds `row` to its life."""
    name = str(row.cell(columns.life) if row.cell(columns.life) is not None else "")
    if not name:
        raise row.fault(columns.life, "the name of a life")
    number = 0
    if columns.row is not None:
        number = row.number_of(columns.row)
        if number < 1 or number != number // 1:
            raise row.fault(columns.row, "the number of a row in its life, from 1")
    life = lives.setdefault(name, Growing(int(number) or 1))
    if columns.row is not None and int(number) != life.first_row + len(life.values):
        raise row.fault(columns.row, f"{life.first_row + len(life.values)}, the next row of life `{name}`; a row without values has empty cells")
    time = math.nan if columns.time is None else row.time_of(columns.time)
    if life.time and time < life.time[-1]:
        raise row.fault(columns.time, f"later than the row before it in life `{name}`")
    life.time.append(time)
    life.values.append([row.number_of(point) for point in points])
    life.last = row
