"""Scores `hark replay` on SKAB, the Skoltech Anomaly Benchmark, by its own protocol: each file is commissioned on its first 400 rows, the rows after
them are predicted in one pass, the rows of all files are pooled and judged point by point, without adjustment.

    python3 models/evaluate_skab.py [--hark target/debug/hark] [--data ../shared/data/skab]

The data are under GPL-3.0 and not part of this repository: https://github.com/waico/SKAB, folder `data`. Needs Python alone.
"""

import argparse
import csv
import gzip
import json
import pathlib
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
COMMISSIONING_ROWS = 400
NOT_MEASURED = ("datetime", "anomaly", "changepoint")


def main():
    arguments = argparse.ArgumentParser(description="Scores `hark replay` on SKAB.")
    arguments.add_argument("--hark", type=pathlib.Path, default=ROOT / "target/debug/hark", help="the program")
    arguments.add_argument("--data", type=pathlib.Path, default=ROOT / "../shared/data/skab", help="SKAB's folder `data`; files may be gzipped")
    arguments = arguments.parse_args()
    files = sorted(path for path in arguments.data.glob("*/*.csv*") if path.parent.name != "anomaly-free")
    if not files:
        sys.exit(f"no files of SKAB under {arguments.data}")
    truth, above, over_limit = [], [], []
    for path in files:
        text = (gzip.open if path.suffix == ".gz" else open)(path, "rt").read()
        rows = list(csv.DictReader(text.splitlines(), delimiter=";"))
        answers = replay(arguments.hark.resolve(), text, [name for name in rows[0] if name not in NOT_MEASURED])
        if len(answers) != len(rows):
            sys.exit(f"{path}: {len(answers)} answers for {len(rows)} rows")
        for row, answer in list(zip(rows, answers))[COMMISSIONING_ROWS:]:
            truth.append(float(row["anomaly"]) == 1)
            above.append(answer["above"])
            over_limit.append(answer["score"] is not None and answer["score"] > answer["limit"])
    print(f"{len(files)} files, {len(truth)} rows, {100 * sum(truth) / len(truth):.1f} % of them anomalous")
    print(f"{'':<24}{'F1':>8}{'FAR %':>8}{'MAR %':>8}")
    for name, alarms in [("above (hysteresis)", above), ("score > limit", over_limit), ("always on", [True] * len(truth))]:
        f1, far, mar = rates(truth, alarms)
        print(f"{name:<24}{f1:>8.4f}{100 * far:>8.2f}{100 * mar:>8.2f}")


def replay(hark, text, columns):
    """The answers of `hark replay`, one per row, with a point for each of `columns`."""
    with tempfile.TemporaryDirectory() as directory:
        config = pathlib.Path(directory)
        (config / "assets").mkdir()
        (config / "hark.toml").write_text(f"[gateway]\nid = 'skab'\norigin = 'replay'\n[inference]\nmodels = '{ROOT / 'models'}'\n")
        points = "".join(f"[[point]]\nid = 'p{index}'\nunit = '1'\ncolumn = '{name}'\n" for index, name in enumerate(columns))
        (config / "assets/skab.toml").write_text("id = 'skab'\n[commissioning]\nrows = 400\nheld_back = 60\n" + points)
        (config / "input.csv").write_text(text)
        command = [hark, "replay", "--config", config, "--asset", "skab", "--input", config / "input.csv", "--commission-rows", str(COMMISSIONING_ROWS)]
        replayed = subprocess.run(command, capture_output=True, text=True)
        if replayed.returncode != 0:
            sys.exit(replayed.stderr)
        return [json.loads(line) for line in replayed.stdout.splitlines()]


def rates(truth, alarms):
    """F1, false alarms of all normal rows, missed ones of all anomalous rows."""
    hits = sum(t and a for t, a in zip(truth, alarms))
    false = sum(a and not t for t, a in zip(truth, alarms))
    missed = sum(t and not a for t, a in zip(truth, alarms))
    return 2 * hits / (2 * hits + false + missed), false / truth.count(False), missed / truth.count(True)


if __name__ == "__main__":
    main()
