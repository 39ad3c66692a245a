"""NAB, the Numenta Anomaly Benchmark: each stream is commissioned on its probation, then every row has an `anomaly` from the past alone."""

import csv
import gzip
import json
import statistics
from datetime import datetime

from judge import nab_score

MACHINE = "realKnownCause/machine_temperature_system_failure.csv"


def run(hark, data, report):
    """Writes the section of NAB."""
    windows = json.loads((data / "labels/combined_windows.json").read_text())
    streams, refused, own = {}, 0, []
    for path in sorted((data / "data").glob("*/*.csv*")):
        name = f"{path.parent.name}/{path.name.removesuffix('.gz')}"
        text = (gzip.open if path.suffix == ".gz" else open)(path, "rt").read()
        times = [datetime.fromisoformat(row["timestamp"]) for row in csv.DictReader(text.splitlines())]
        step = statistics.median((later - before).total_seconds() for before, later in zip(times, times[1:]))
        probation = min(int(0.15 * len(times)), 750)
        answers = hark.replay(text, ["value"], grid=f"{int(step)}s", commission_rows=probation)
        refused += all(answer["score"] is None for answer in answers)
        own.append(sum(answer["above"] for answer in answers[probation:]) / max(1, len(answers) - probation))
        spans = [tuple(row_of(times, text) for text in span) for span in windows.get(name, [])]
        streams[name] = ([answer["anomaly"] or 0.0 for answer in answers], spans, probation)
    score, threshold, at = nab_score(list(streams.values()))
    report.heading(f"NAB, {len(streams)} streams, scored on `anomaly`, standard profile")
    report.table(["threshold", "all streams", "machine temperature"])
    machine = nab_score([streams[MACHINE]])[2] if MACHINE in streams else lambda _: float("nan")
    report.row([f"the best on these streams, as NAB does ({threshold:.3f})", f"{score:.1f}", f"{machine(threshold):.1f}"])
    report.row(["the shipped limit (0.5)", f"{at(0.5):.1f}", f"{machine(0.5):.1f}"])
    report.row(["always on", f"{at(0.0):.1f}", f"{machine(0.0):.1f}"])
    report.row(["never on", f"{at(2.0):.1f}", f"{machine(2.0):.1f}"])
    report.text(f"Over its limit in {100 * statistics.mean(own):.1f} % of the rows; commissioning refused {refused} streams, which then have no score.")


def row_of(times, text):
    """The row at a label's time, or the first one after it."""
    at = datetime.fromisoformat(text)
    return next((row for row, time in enumerate(times) if time >= at), len(times) - 1)
