"""Simulated fans from new to failed, by the program `lives` of `tests/`: forecasts of the bundle `fan-rul`, and beside them the trend that needs none.

The truth is the hidden damage: failure is where it is complete, whatever was measured. The seed is one that nothing was chosen on.
"""

import re

import simulator
from replay import MODELS

#: Laws that no table of training had, see `models/fan-rul/README.md`.
HELD_OUT = ("TwoSlope", "Step", "RandomSlope")
SEED, LIVES, LIVES_OF_TREND = 90_001, 50, 6
COLUMNS = ["law", "lives", "median within 30 % in most of the last third, %", "80 % interval holds, % (lives asked)", "healthy rows with a date, %"]


def run(hark, data, report):
    """Writes the tables, in some twenty minutes of one core."""
    report.heading(f"Remaining life of simulated fans, {LIVES} lives by each law, seed {SEED}")
    tables = {"bundle `fan-rul`": lived(hark, LIVES, "--model", MODELS / "fan-rul"), f"trend, no model, {LIVES_OF_TREND} lives by each law": lived(hark, LIVES_OF_TREND)}
    for name, rows in tables.items():
        report.heading(name, level=3)
        report.table([*COLUMNS, "law was learned from"])
        for law, cells in rows.items():
            learned = "" if law == "all" else "-" if name.startswith("trend") else "no" if law in HELD_OUT else "yes"
            report.row([law, *cells, learned])
    report.text("What is asked of the trend is when the velocity reaches zone D, not the failure, which it cannot know.")
    for law, (_, near, held, dated) in tables["bundle `fan-rul`"].items():
        report.asked(f"remaining life of fans, {law}: lives with the median within 30 % in the last third, %", near, 70, 85)
        if law == "all":
            # Both sides of the band: how far it is from 80 %.
            report.asked("remaining life of fans: 80 % interval, points from 80 %", abs(float(held.split()[0]) - 80), 5, most=True)
            report.asked("remaining life of fans: healthy rows with a date, %", dated, 1, most=True)


def missing(program):
    """The program, where it is not built."""
    return simulator.missing(program, ("lives",))


def lived(hark, lives, *arguments):
    """Cells of the table of `lives` by law: lives, near, held, dated."""
    text = simulator.output(hark, "lives", "--lives", lives, "--seed", SEED, *arguments)
    rows = re.findall(r"^\| (\w+) \| (\d+) \| ([\d.]+) \| ([\d.]+ \(\d+\)) \| ([\d.]+) \|$", text, re.MULTILINE)
    return {law: cells for law, *cells in rows}
