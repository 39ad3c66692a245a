"""History of machines as one table, whatever it comes from: files, a database, or the topics of Kafka.

A **life** is a machine from new, or from one maintenance to the next. Its rows are one unit of life apart (a flight, a second of running: the grid of the
asset), one number per point; what is missing is NaN and never filled in. A life ended in **failure**, or is **censored**: it still runs, or was ended by people
before it failed. Only the first kind tells how long a life is.

What is left out of a source is counted by cause in `History.left_out`, and `History.summary` prints it. What is wrong raises `Fault`, which names file or
topic, row, column and what was expected.
"""

import collections
import dataclasses
import datetime
import hashlib
from collections.abc import Iterable

import numpy as np


class Fault(Exception):
    """A source cannot be used as it is; says where and what was expected."""


@dataclasses.dataclass(frozen=True)
class Life:
    """One life of one machine."""

    #: Unique in a history and the same each time it is read: who is held out of training is drawn by it.
    name: str
    #: Ended in failure; else censored.
    failed: bool
    #: Number of its first row in the life, from 1; None where the beginning of the life is not in the history, so that its age is not known.
    first_row: int | None
    #: Of each row, seconds since 1970 UTC; NaN where the source does not tell.
    time: np.ndarray
    #: Rows x points, in the units of the points; NaN where missing.
    values: np.ndarray

    def remaining(self) -> np.ndarray:
        """Rows until the last one; meant for a life that failed."""
        return np.arange(len(self.values) - 1, -1, -1)


@dataclasses.dataclass
class History:
    """Lives, sorted by name, and what was left out of them."""

    #: What it was read from, for reports.
    origin: str
    #: Names of the columns of `Life.values`.
    points: tuple[str, ...]
    lives: list[Life]
    #: How many of what, by cause.
    left_out: collections.Counter

    def __post_init__(self) -> None:
        self.lives.sort(key=lambda life: life.name)

    def of(self, lives: Iterable[Life]) -> "History":
        """The same with some of the lives."""
        return dataclasses.replace(self, lives=list(lives))

    def failed(self) -> list[Life]:
        return [life for life in self.lives if life.failed]

    def digest(self) -> str:
        """SHA-256 of all that training can see of it."""
        digest = hashlib.sha256("\0".join(self.points).encode())
        for life in self.lives:
            digest.update(f"\0{life.name}\0{life.failed}\0{life.first_row}\0{life.values.shape}".encode())
            digest.update(np.ascontiguousarray(life.values, "<f8").tobytes())
        return digest.hexdigest()

    def summary(self) -> list[str]:
        """Lines for a person: what there is, and what is not and why."""
        rows, failed = sum(len(life.values) for life in self.lives), len(self.failed())
        missing = sum(int(np.isnan(life.values).sum()) for life in self.lives)
        late = sum(life.first_row is None for life in self.lives)
        lines = [
            f"{self.origin}: {len(self.lives)} lives, {failed} ended in failure, {len(self.lives) - failed} censored; {rows} rows of "
            f"{len(self.points)} points, {missing} values missing{f'; of {late} lives the beginning is not there' if late else ''}"
        ]
        return lines + [f"left out: {count} {cause}" for cause, count in sorted(self.left_out.items())]


def seconds(moment: datetime.datetime) -> float:
    """Since 1970 UTC. A time without a zone is one of UTC."""
    return (moment if moment.tzinfo else moment.replace(tzinfo=datetime.UTC)).timestamp()
