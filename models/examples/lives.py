"""Simulated lives of an invented machine, and the features of their rows: those of `hark features --rows`, the code that the agent runs."""

import pathlib
import subprocess
import tempfile

import numpy as np

#: Part of a life that may have gone by before a machine is watched.
LATE_MOST = 0.6
#: One life in so many is left out of training.
HELD_OUT = 5
#: Of neighbouring rows one in so many is learned from: they hardly differ.
STEP = 4


def simulate(points: dict[str, tuple[float, float, float]], count: int, rows: tuple[int, int], seed: int) -> np.ndarray:
    """Lives of machines that wear until they fail, a row each: life, row of the life from 1, a value for each point.

    `points` has the value of a new machine, of one that fails, and the noise; a life has `rows` from … to. Every second machine is watched only from some
    row on: a model that saw whole lives alone takes the length of the record for the age.
    """
    random, lives = np.random.default_rng(seed), []
    for life in range(count):
        length = int(random.integers(*rows, endpoint=True))
        wear = (np.arange(1, length + 1) / length) ** random.uniform(2.0, 4.0)
        values = [np.full(length, life), np.arange(1, length + 1)]
        for new, worn, noise in points.values():
            # No two machines are alike: they begin elsewhere, and show their wear more or less.
            begins, shows = new + noise * random.normal(), (worn - new) * random.uniform(0.8, 1.2)
            values.append(begins + shows * wear + noise * random.normal(size=length))
        first = int(random.uniform(0, LATE_MOST) * length) if life % 2 else 0
        lives.append(np.stack(values, axis=1)[first:])
    return np.concatenate(lives)


class Rows:
    """Features of rows, and what is known of each."""

    def __init__(self, life: np.ndarray, row: np.ndarray, features: np.ndarray):
        self.life, self.features = life, features.astype(np.float32)
        last = np.zeros(life.max() + 1)
        np.maximum.at(last, life, row)
        #: Rows until the machine fails.
        self.remaining = (last[life] - row).astype(np.float32)
        #: Whole lives are left out: neighbouring rows are nearly the same, and a model that saw some of a life knows its others.
        self.held_out = life % HELD_OUT == 0
        self.learned = ~self.held_out & (np.arange(len(life)) % STEP == 0)


def features(program: pathlib.Path, points: list[str], table: np.ndarray, specification: pathlib.Path) -> Rows:
    """Features of the rows in `table`, as `specification` wants them."""
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder) / "rows.csv"
        np.savetxt(file, table, fmt="%.10g", delimiter=",", header=",".join(["life", "row", *points]), comments="")
        command = [program, "features", "--rows", file, "--spec", specification, "--life", "life", "--age", "row"]
        answer = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    names, *lines = (line.split(",") for line in answer.splitlines())
    values = np.array([line[:2] + line[3:] for line in lines], dtype=float)
    assert names[:3] == ["life", "row", "without"], names
    return Rows(values[:, 0].astype(int), values[:, 1], values[:, 2:])
