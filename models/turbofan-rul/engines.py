"""The engines of C-MAPSS: reading the files, the specification of their features, and features from `hark features --rows`."""

import gzip
import pathlib
import subprocess
import tempfile

import numpy as np

#: Columns of the files in order, with units (UCUM). Settings tell the six flight conditions apart.
SETTINGS = [("altitude", "10*3.[ft_i]", 1.0), ("mach", "1", 0.05), ("tra", "deg", 2.0)]
SENSORS = [
    ("T2", "[degR]"), ("T24", "[degR]"), ("T30", "[degR]"), ("T50", "[degR]"), ("P2", "[psi]"), ("P15", "[psi]"), ("P30", "[psi]"),
    ("Nf", "/min"), ("Nc", "/min"), ("epr", "1"), ("Ps30", "[psi]"), ("phi", "[lb_av]/s/[psi]"), ("NRf", "/min"), ("NRc", "/min"), ("BPR", "1"),
    ("farB", "1"), ("htBleed", "1"), ("Nf_dmd", "/min"), ("PCNfR_dmd", "%"), ("W31", "[lb_av]/s"), ("W32", "[lb_av]/s"),
]  # fmt: skip
#: Commanded, or (nearly) the same in every row of a flight condition.
UNUSED = {"T2", "P2", "P15", "epr", "farB", "Nf_dmd", "PCNfR_dmd"}
POINTS = [(name, unit) for name, unit in SENSORS if name not in UNUSED]
#: Chosen by engine-wise validation; see README.md.
BASELINE_ROWS = 15
FEATURES = "ewma = [0.3, 0.1, 0.03], deviation = [30], slope = [30, 80, 200], drift = [0.1]"
#: Units of a set are fewer; a late copy is numbered by so many more than the engine it is of.
LATE = 500
#: A late copy begins at most after this part of the life.
LATE_MOST = 0.6
TRAINING_SETS = ("FD001", "FD002", "FD003", "FD004")


def read(folder: pathlib.Path, part: str, name: str) -> np.ndarray:
    """Rows of `part` (train, test) of set `name`: unit, cycle, three settings, 21 sensors."""
    path = folder / f"{part}_{name}.txt"
    if path.is_file():
        return np.loadtxt(path)
    with gzip.open(path.with_name(path.name + ".gz"), "rt") as lines:
        return np.loadtxt(lines)


def specification(rows: np.ndarray, age: bool) -> str:
    """The text of `features.toml`: flight conditions found in `rows`, each with mean and deviation of the points in it."""
    settings = rows[:, 2:5]
    rounded = np.stack([np.round(settings[:, column], digits) for column, digits in enumerate((0, 2, 0))], axis=1)
    conditions, member = np.unique(rounded, axis=0, return_inverse=True)
    columns = [5 + index for index, (name, _) in enumerate(SENSORS) if name not in UNUSED]
    lines = [
        "# Written by train.py; edit that file instead.",
        f"age = {str(age).lower()}",
        f"baseline_rows = {BASELINE_ROWS}",
        f"features = {{ {FEATURES} }}",
        "",
    ]
    for name, unit in POINTS:
        lines += ["[[point]]", f'name = "{name}"', f'unit = "{unit}"', ""]
    lines += ["[regimes]", "distance_max = 1.0", ""]
    for name, unit, scale in SETTINGS:
        lines += ["[[regimes.settings]]", f'name = "{name}"', f'unit = "{unit}"', f"scale = {scale}", ""]
    for index in range(len(conditions)):
        of_condition = rows[member == index]
        deviation = of_condition[:, columns].std(axis=0)
        # A point that stays the same in a condition would be divided by nothing; as it is, it gives 0.
        deviation[deviation < 1e-6] = 1.0
        lines += ["[[regimes.centre]]"]
        lines += [f"at = {numbers(of_condition[:, 2:5].mean(axis=0))}", f"mean = {numbers(of_condition[:, columns].mean(axis=0))}"]
        lines += [f"deviation = {numbers(deviation)}", ""]
    return "\n".join(lines)


def numbers(values: np.ndarray) -> str:
    """Seven digits: more would be noise of the sums, which differs between processors."""
    return "[" + ", ".join(repr(float(f"{value:.7g}")) for value in values) + "]"


class Rows:
    """Features of the rows of some sets, and what is known of each row."""

    def __init__(self, features, names, engine, cycle, remaining, subset, late):
        self.features, self.names = features, names
        #: Number of the engine, set included; cycle of its life, from 1; cycles until its last row; name of its set; whether of a late copy.
        self.engine, self.cycle, self.remaining, self.subset, self.late = engine, cycle, remaining, subset, late

    def of_variant(self, age: bool) -> np.ndarray:
        """Features with or without the age, which is the last."""
        return self.features if age else self.features[:, :-1]


def with_late_copies(rows: np.ndarray, seed: int) -> np.ndarray:
    """`rows`, and each engine once more as if it had been watched only from some cycle on: a model that saw whole lives alone is lost there."""
    random = np.random.default_rng(seed)
    parts = [rows]
    for unit in np.unique(rows[:, 0]):
        life = rows[rows[:, 0] == unit]
        late = life[int(random.uniform(0, LATE_MOST) * len(life)) :].copy()
        late[:, 0] += LATE
        parts.append(late)
    return np.concatenate(parts)


def features(program: pathlib.Path, sets: dict[str, np.ndarray], specification_with_age: str) -> Rows:
    """Features of `sets`, computed by the program."""
    parts, names = [], []
    for subset, rows in sets.items():
        names, table = features_of_one(program, rows, specification_with_age)
        unit, cycle = table[:, 0].astype(int), table[:, 1].astype(int)
        late, number = unit >= LATE, 1_000 * int(subset[-1]) + unit % LATE
        last = np.zeros(number.max() + 1, dtype=int)
        np.maximum.at(last, number, cycle)
        parts.append((table[:, 2:], number, cycle, last[number] - cycle, np.full(len(table), subset), late))
    matrix, *known = (np.concatenate(column) for column in zip(*parts, strict=True))
    return Rows(matrix, names, *known)


def features_of_one(program: pathlib.Path, rows: np.ndarray, specification_text: str) -> tuple[list[str], np.ndarray]:
    """Names of the features; per row engine, cycle and features."""
    with tempfile.TemporaryDirectory() as folder:
        table, specification_file = pathlib.Path(folder) / "rows.csv", pathlib.Path(folder) / "features.toml"
        header = ",".join(["unit", "cycle", *(name for name, *_ in SETTINGS), *(name for name, _ in SENSORS)])
        np.savetxt(table, rows, fmt="%.10g", delimiter=",", header=header, comments="")
        specification_file.write_text(specification_text)
        command = [program, "features", "--rows", table, "--spec", specification_file, "--life", "unit", "--age", "cycle"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as running:
            names = running.stdout.readline().rstrip("\n").split(",")
            wanted = [index for index, name in enumerate(names) if name != "without"]
            values = np.loadtxt(running.stdout, delimiter=",", usecols=wanted, ndmin=2)
        if running.returncode:
            raise SystemExit(f"{program} features failed")
    return names[3:], values
