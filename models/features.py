"""Features of lives as the agent computes them: by `hark features --rows`."""

import pathlib
import subprocess
import tempfile
from collections import Counter

import numpy as np
import pyarrow
import pyarrow.csv

from history import Fault, Life


def of_lives(program: str, lives: list[Life], points: tuple[str, ...], specification: str) -> tuple[list[np.ndarray], Counter]:
    """Of each life rows x features, NaN where a row has none; and how many rows have none, by cause.

    `specification`: the text of a bundle's `features.toml`. The age of a life whose beginning is unknown is counted from its first row here."""
    with tempfile.TemporaryDirectory() as folder:
        table, wanted = pathlib.Path(folder) / "rows.csv", pathlib.Path(folder) / "features.toml"
        wanted.write_text(specification)
        number = np.repeat(np.arange(len(lives)), [len(life.values) for life in lives])
        first = np.repeat([life.first_row or 1 for life in lives], [len(life.values) for life in lives])
        columns = {"hark-life": number, "hark-first": first}
        values = np.concatenate([life.values for life in lives]).T
        # A missing value is an empty cell.
        columns |= {point: pyarrow.array(column, from_pandas=True) for point, column in zip(points, values, strict=True)}
        pyarrow.csv.write_csv(pyarrow.table(columns), table)
        command = [program, "features", "--rows", table, "--spec", wanted, "--life", "hark-life", "--age", "hark-first"]
        try:
            found = subprocess.run(command, capture_output=True)
        except OSError as error:
            raise Fault(f"cannot run `{program}`: {error.strerror}") from error
        if found.returncode:
            raise Fault(f"`{program} features` ended with {found.returncode}: {found.stderr.decode().strip()}")
    options = pyarrow.csv.ConvertOptions(column_types={"without": pyarrow.string()})
    answer = pyarrow.csv.read_csv(pyarrow.BufferReader(found.stdout), convert_options=options)
    names = answer.column_names[answer.column_names.index("without") + 1 :]
    matrix = np.stack([answer[name].cast(pyarrow.float64()).to_numpy() for name in names], axis=1)
    without = Counter(cause for cause in answer["without"].to_pylist() if cause)
    return np.split(matrix, np.cumsum([len(life.values) for life in lives])[:-1]), without
