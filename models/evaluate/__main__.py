"""Scores the program as it ships, through `hark replay` and `hark features`, and writes `models/RESULTS.md`."""

import argparse
import importlib
import pathlib
import platform
import subprocess
import sys

import lives
import simulator
from replay import MODELS, Hark
from report import Report

#: Each a module; `held_out`, `cmapss` and `runtimes` need packages, the others Python alone.
SETS = ("skab", "tep", "held_out", "nab", "cwru", "bearings", "run_to_failure", "cmapss", "runtimes", "simulator", "lives")
#: Folders of a set, where they are not called as it is.
FOLDERS = {"held_out": ("skab", "tep"), "run_to_failure": ("ims-bearing", "femto")}
#: Made by the evaluation itself, or of the bundles.
SIMULATED = ("bearings", "simulator", "runtimes", "lives")
INTRODUCTION = """\
# What the program achieves

Written by `python3 models/evaluate --data DIR`; what is judged is `hark replay` and, for bearings, `hark features`, one pass, without a setting for a file.
Point by point, no adjustment. Of Stage A, factors, smoothing and the order of the mean were chosen once, for all files and sets, on the development files
of SKAB and the Tennessee Eastman process: about 200 combinations were looked at, with a copy of the method in numpy that gave the same F1 as the program,
and the surroundings of the chosen one are flat (F1 of SKAB 0.824 to 0.834, Tennessee Eastman 0.959 to 0.966 over seven neighbours). That a row counts for
twice the limit at most came later, from a machine with single bad samples; of 2 and 2.5 the first was taken, for the on-delay's sake, and SKAB gained by it. Rows that chose them
are rows that are judged here: what comes of settings chosen on other files stands in a section of its own, and files that were held back decide. How `anomaly` and the rules for bearings were chosen stands with
their figures."""
STILL_WRONG = """\
Points that report in fewer than half as many rows as the others (features of blocks) do not occur in these sets. They are judged by their level alone
(`agent/src/inference/seldom.rs`). Its six spreads, and the correction for the mean, were chosen on drawn numbers after a first setting (five, without it) gave
12 advices in 35 simulated machine-days, one of them right. With a day of 144 values one such point passes its limit within a month on 0 of 300 machines where the values are independent, on 2 % where they follow one another for three hours, on 5 % where half of their variance does.
The limit then lies 2, 8 and 6 standard deviations of the values away (median; 3, 29 and 16 on one machine of ten): a velocity with 3 % of spread may have to
rise by a quarter, on one of ten machines to nearly twice, until a week of commissioning says more.

Still wrong: what such a point owes to the load within a regime widens its limit, since nothing of the other points explains it; a spread that grows around the
same level is hardly seen; and a point heard in half of the rows or more, but not in each, is still partly predicted by the value that is held. That a point stands
still counts at the ends of what it showed while it was learned too: this was mended after SKAB's pressure, stuck at its lowest value, had been missed.

Bearings of IMS and FEMTO are judged with `ignore_fall`, so bearing 2 of IMS test 2, which runs in (quieter by 2.4 % or two deviations within two days), is quiet in the
first half of its run. Scores that are cut so have a lower limit: bearing 4 follows bearing 1 sooner than is asked. FEMTO's bearings are commissioned while they run in, and
most are over their limit in the first half of life; much of the lead that they had before (114 min in the median) were features that fell.

Of healthy machines those that wear in get most of the advice (145 of 166 in 881 days). `ignore_fall` does not help there: two such pumps had 328 advices in 51 days with it,
over the limit in 22 % of rows instead of 71, since their kurtosis rises as the lines of the shaft fall.

A machine whose points drift by chance while it is learned (one of four whose product changes) is learned a day later. A cage that strikes is taken for a rolling element, or missed, in every second case. Without
its flow sensor SKAB's valves are hardly seen (F1 0.5). No other sensor tells of them: a model that is trained on labels, which no agent has, comes to 0.61
without it, and to 0.72 under the threshold that is best on these very rows, with 64 % of false alarms; always on is 0.70 (`supervised_bound.py`; with all
sensors 0.81)."""


def main():
    arguments = argparse.ArgumentParser(prog="python3 models/evaluate", description=__doc__)
    arguments.add_argument("--data", type=pathlib.Path, required=True, help="folder with skab/, tep/, nab/, cwru/, ims-bearing/, femto/ and cmapss/")
    arguments.add_argument("--hark", type=pathlib.Path, default=MODELS.parent / "target/release/hark", help="the program, with those of the simulator beside it [target/release/hark]")
    arguments.add_argument("--machine-days", type=float, default=960.0, help="days of healthy simulated machines, commissioning included [960, ten minutes on two cores]")
    arguments.add_argument("--only", choices=SETS, help="one set alone; prints and writes nothing")
    arguments = arguments.parse_args()
    wanted = [arguments.only] if arguments.only else list(SETS)
    folders = [folder for name in wanted if name not in SIMULATED for folder in FOLDERS.get(name, (name,))]
    missing = [path for folder in folders if not (path := arguments.data / folder).is_dir()]
    missing += [arguments.hark] if not arguments.hark.is_file() else []
    missing += simulator.missing(arguments.hark) if {"simulator", "runtimes"} & set(wanted) else []
    missing += lives.missing(arguments.hark) if "lives" in wanted else []
    if missing:
        sys.exit(f"missing: {', '.join(map(str, missing))}; programs are built by `{simulator.BUILD}`")
    hark, report = Hark(arguments.hark, arguments.machine_days), Report()
    version = subprocess.run([hark.program, "--version"], capture_output=True, text=True, check=True).stdout.strip()
    report.write(*INTRODUCTION.splitlines(), "", f"{version}, {platform.machine()}.")
    introduction = len(report.lines)
    for name in wanted:
        importlib.import_module(name).run(hark, arguments.data / name, report)
    report.heading("What is not judged here")
    report.write(*STILL_WRONG.splitlines())
    lines = report.lines[:introduction] + report.summary() + report.lines[introduction:]
    if not arguments.only:
        (MODELS / "RESULTS.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
