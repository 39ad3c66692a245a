"""A fan chart of one simulated life: what was forecast after each cycle, beside what came. Needs matplotlib.

    python models/evaluate/fan_chart.py --data DIR [--hark target/release/hark] [--out models/turbofan-rul/fan-chart.png]

The life is the longest record of C-MAPSS's test half FD001, whichever that is.
"""

import argparse
import pathlib
import sys
import tempfile

import matplotlib
import numpy as np

from replay import MODELS, Hark

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402

import cmapss  # noqa: E402

SUBSET = "FD001"
VARIANT = "with-age"


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--data", type=pathlib.Path, required=True, help="folder of C-MAPSS")
    arguments.add_argument("--hark", type=pathlib.Path, default=MODELS.parent / "target/release/hark", help="the program [target/release/hark]")
    arguments.add_argument("--out", type=pathlib.Path, default=MODELS / "turbofan-rul/fan-chart.png", help="where to write the chart")
    arguments = arguments.parse_args()
    sys.path.insert(0, str(MODELS / "turbofan-rul"))
    import engines

    table = engines.read(arguments.data, "test", SUBSET)
    units, lengths = np.unique(table[:, 0], return_counts=True)
    unit = int(units[np.argmax(lengths)])
    at_end = int(cmapss.remaining_at_last(arguments.data, SUBSET)[unit - 1])
    names = [name for name, *_ in engines.SETTINGS] + [name for name, _ in engines.SENSORS]
    with tempfile.TemporaryDirectory() as folder:
        config = cmapss.configured(pathlib.Path(folder), VARIANT)
        answers = cmapss.one_life(Hark(arguments.hark, 0), config, names, (SUBSET, unit, table[table[:, 0] == unit], at_end))
    draw(answers, at_end, f"{SUBSET}, engine {unit}: remaining life as forecast after each cycle", arguments.out)


def draw(answers, at_end, title, path):
    """Bands of 90 % and 80 %, the median, and what came; cycles on both axes."""
    cycles = np.arange(1, len(answers) + 1)
    of = {key: np.array([answer[f"t_{key}_s"] for answer in answers]) for key in ("p05", "p10", "p50", "p90", "p95")}
    figure, axes = plt.subplots(figsize=(9, 5), dpi=110)
    axes.fill_between(cycles, of["p05"], of["p95"], color="#c6dbef", label="90 % interval")
    axes.fill_between(cycles, of["p10"], of["p90"], color="#9ecae1", label="80 % interval")
    axes.plot(cycles, of["p50"], color="#08519c", label="median")
    axes.plot(cycles, len(answers) - cycles + at_end, color="black", linestyle="--", label="what came")
    axes.axhline(cmapss.CAP, color="grey", linewidth=0.8, label="lives are cut here in the mean")
    axes.set(xlabel="cycle", ylabel="remaining cycles", ylim=(0, 300), title=title)
    axes.legend()
    figure.tight_layout()
    # No date and no version in it: the same numbers give the same bytes.
    figure.savefig(path, metadata={"Software": None})


if __name__ == "__main__":
    main()
