"""Lives of simulated fans, from `lives --export`, and the features of their rows, from `hark features --rows`."""

import dataclasses
import pathlib
import subprocess
import tempfile
from collections.abc import Iterator

import numpy as np
import pyarrow
import pyarrow.csv

FOLDER = pathlib.Path(__file__).resolve().parent
POINTS = ("de.v_rms", "temperature", "current")
#: A fan is healthy for so many rows at least, ten days, and its features are counted from its first ones.
HEALTHY_LEAST = 1_440
BASELINE = 432
#: Of a life that is rewritten: half the rows over which it is smoothed, most bends of its pace, how often two of them change places, its length in rows.
SMOOTHED, BENDS_MOST, FALLS, LENGTHS = 36, 4, 0.25, (1_440, 14_400)
#: Rows of a life that are learned from: evenly spread ones, and as many again that stand closer to its end the fewer are to go.
EVENLY, TOWARDS_END = 250, 200
#: Lives that go through the program at once: their features fill some hundred megabytes.
AT_ONCE = 20


@dataclasses.dataclass(frozen=True)
class Life:
    """A fan from new to failed: rows x POINTS."""

    number: int
    law: str
    #: Whether its pace is one that was drawn here, see `rewritten`.
    rewritten: bool
    values: np.ndarray


def read(files: list[pathlib.Path]) -> list[Life]:
    """The lives in tables of `lives --export`."""
    lives = []
    for file in files:
        table = pyarrow.csv.read_csv(file)
        name, law = (np.array(table[column].to_pylist()) for column in ("life", "law"))
        values = np.stack([table[point].to_numpy() for point in POINTS], axis=1)
        begins = np.flatnonzero(np.append(True, name[1:] != name[:-1]))
        for rows in np.split(np.arange(len(name)), begins[1:]):
            lives.append(Life(len(lives), str(law[rows[0]]), False, values[rows]))
    return lives


def rewritten(life: Life, random: np.random.Generator) -> Life:
    """The same fan with another pace of its wear, drawn: what it went through is passed on straight stretches between some of its states, once in a
    while back and forth. Its noise keeps the order and the length that it had. A model that saw a few laws alone takes what comes for one of them."""
    values, rows = life.values, len(life.values)
    smooth = smoothed(values)
    bends = np.sort(random.uniform(HEALTHY_LEAST, rows - 1, random.integers(1, BENDS_MOST, endpoint=True)))
    if len(bends) > 1 and random.random() < FALLS:
        place = random.integers(len(bends) - 1)
        bends[[place, place + 1]] = bends[[place + 1, place]]
    states = np.array([HEALTHY_LEAST, *bends, rows - 1])
    ends = HEALTHY_LEAST + random.uniform(*LENGTHS) * np.cumsum(random.dirichlet(np.ones(len(states) - 1)))
    state = np.concatenate([np.arange(HEALTHY_LEAST), np.interp(np.arange(HEALTHY_LEAST, ends[-1]), [HEALTHY_LEAST, *ends], states)])
    noise = (values / smooth)[np.arange(len(state)) % rows]
    changed = np.stack([np.interp(state, np.arange(rows), column) for column in smooth.T], axis=1) * noise
    return dataclasses.replace(life, rewritten=True, values=changed)


def smoothed(values: np.ndarray) -> np.ndarray:
    """Means over the rows around each, fewer towards both ends."""
    rows = np.arange(len(values))
    reach = np.minimum(SMOOTHED, np.minimum(rows, rows[::-1]))
    sums = np.concatenate([np.zeros((1, values.shape[1])), np.cumsum(values, axis=0)])
    return (sums[rows + reach + 1] - sums[rows - reach]) / (2 * reach + 1)[:, None]


class Rows:
    """Features of rows that are learned from, and what is known of each."""

    def __init__(self, features, names, life, law, remaining, row, is_rewritten):
        self.features, self.names = features, names
        #: Number of the life, its law, rows until it failed, row of it from 1, whether its pace was drawn.
        self.life, self.law, self.remaining, self.row, self.rewritten = life, law, remaining, row, is_rewritten


def features(program: pathlib.Path, lives: list[Life]) -> Rows:
    """Features of some rows of each life, computed by the program."""
    parts, names = [], []
    for begin in range(0, len(lives), AT_ONCE):
        some = lives[begin : begin + AT_ONCE]
        names, matrix = of_some(program, some)
        for life, of_life in zip(some, np.split(matrix, np.cumsum([len(life.values) for life in some])[:-1]), strict=True):
            rows = len(of_life)
            chosen = np.unique(np.concatenate([np.linspace(0, rows - 1, EVENLY), rows - np.geomspace(1, rows, TOWARDS_END)]).astype(int))
            same = [np.full(len(chosen), value) for value in (life.number, life.law, life.rewritten)]
            parts.append((of_life[chosen], same[0], same[1], rows - 1 - chosen, chosen + 1, same[2]))
    matrix, *known = (np.concatenate(column) for column in zip(*parts, strict=True))
    return Rows(matrix, names, *known)


def of_some(program: pathlib.Path, lives: list[Life]) -> tuple[list[str], np.ndarray]:
    """Names of the features, and those of all rows of all `lives` one after the other."""
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder) / "rows.csv"
        values = np.concatenate([life.values for life in lives])
        columns = {"life": np.repeat(np.arange(len(lives)), [len(life.values) for life in lives])} | dict(zip(POINTS, values.T, strict=True))
        pyarrow.csv.write_csv(pyarrow.table(columns), file)
        command = [program, "features", "--rows", file, "--spec", FOLDER / "features.toml", "--life", "life"]
        found = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    answer = pyarrow.csv.read_csv(pyarrow.BufferReader(found.stdout), convert_options=pyarrow.csv.ConvertOptions(column_types={"without": pyarrow.string()}))
    names = answer.column_names[answer.column_names.index("without") + 1 :]
    return names, np.stack([answer[name].cast(pyarrow.float64()).to_numpy() for name in names], axis=1)
