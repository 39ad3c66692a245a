"""SKAB, the Skoltech Anomaly Benchmark, by its own protocol: each file is commissioned on its first 400 rows, the rows after them are predicted in one
pass, the rows of all files are pooled and judged point by point.

The data are under GPL-3.0 and not part of this repository: https://github.com/waico/SKAB, folder `data`.
"""

import csv
import gzip
import statistics
from datetime import datetime

import chance
from judge import changepoint_score, rates

COMMISSIONING_ROWS = 400
NOT_MEASURED = ("datetime", "anomaly", "changepoint")
#: So many new alarms within ten minutes are a flood (ISA-18.2, EEMUA 191).
FLOOD = 10
#: Whose training rows hold anomalies.
ODD = "other/2"
#: Best by F1, by changepoints, and the classical one, over all 34 files.
PUBLISHED = (
    ("published: Conv-AE", "0.78", "13.6", "28.0", "", "", "", "23.6"),
    ("published: MSCRED", "", "", "", "", "", "", "32.4"),
    ("published: T2 and Q of PCA", "0.76", "26.6", "24.9", "", "", "", "25.4"),
)
#: Columns of `measures`.
MEASURES = ("F1", "FAR %", "MAR %", "FAR % before the fault", "files with one", "median delay s", "changepoints, NAB standard")
ACCELEROMETERS = ("Accelerometer1RMS", "Accelerometer2RMS")
#: Where each fault must show, by the folder or file that holds it.
CAUSES = {"valve1": ("Volume Flow RateRMS", "Pressure"), "valve2": ("Volume Flow RateRMS", "Pressure")}
CAUSES |= {f"other/{number}": ACCELEROMETERS for number in (5, 6, 7, 8, 9)}


def run(hark, data, report):
    """Writes the section of SKAB."""
    files = files_of(data)
    for file in files:
        file["answers"] = hark.replay(file["text"], file["columns"], commission_rows=COMMISSIONING_ROWS)[COMMISSIONING_ROWS:]
    report.heading(f"SKAB, {len(files)} files, commissioned on {COMMISSIONING_ROWS} rows each, scored on `above`")
    report.table(["files", *MEASURES])
    figures = measures(files, [answers_above(file) for file in files])
    report.row(["all", *figures])
    asked(figures, report)
    report.row([f"without {ODD}", *measures(*zip_without(files, ODD))])
    baselines(files, report)
    contributions(files, report)
    robustness(hark, files, report)


def baselines(files, report):
    """Rows of what sees nothing, and of what was published."""
    report.row(["always on", *measures(files, [[True] * len(file["truth"]) for file in files])])
    report.row(["never on", *measures(files, [[False] * len(file["truth"]) for file in files])])
    alarms = [answers_above(file) for file in files]
    for name, how in (("chance: as many rows, drawn one by one", chance.rows_at_random), ("chance: the same alarms, elsewhere in their files", chance.turned)):
        figures = chance.drawn(alarms, how, lambda drawn: measures(files, drawn))
        report.row([name, *(f"{mean:.{digits}f} ± {spread:.{digits}f}" for (mean, spread), digits in zip(figures, (4, 1, 1, 1, 1, 0, 1)))])
    for name, *cells in PUBLISHED:
        report.row([name, *cells])
    report.text(f"A constant score is always on or never on, whatever its limit. Chance: mean and deviation of {chance.DRAWS} draws. Published: leaderboard of "
                "github.com/waico/SKAB (August 2024), over all 34 files, 12 of which are not here.")


def asked(figures, report, what="SKAB"):
    f1, far, _, _, false_files, delay, points = figures
    report.asked(f"{what}, F1", f1, 0.80, 0.84)
    report.asked(f"{what}, FAR %", far, 28, 15, most=True)
    report.asked(f"{what}, files with a false alarm before the fault", false_files, 5, most=True)
    report.asked(f"{what}, median delay s", delay, 20, most=True)
    report.asked(f"{what}, changepoints, NAB standard", points, 26)


def files_of(data):
    """The labelled files of folder `data`."""
    return [load(path) for path in sorted(data.glob("*/*.csv*")) if path.parent.name != "anomaly-free"]


def load(path):
    text = (gzip.open if path.suffix == ".gz" else open)(path, "rt").read()
    rows = list(csv.DictReader(text.splitlines(), delimiter=";"))
    scored = rows[COMMISSIONING_ROWS:]
    return {
        "name": f"{path.parent.name}/{path.name.split('.')[0]}",
        "text": text,
        "columns": [name for name in rows[0] if name not in NOT_MEASURED],
        "truth": [float(row["anomaly"]) == 1 for row in scored],
        "changes": [index for index, row in enumerate(scored) if float(row["changepoint"]) == 1],
        "times": [datetime.fromisoformat(row["datetime"]).timestamp() for row in scored],
    }


def answers_above(file):
    return [answer["above"] for answer in file["answers"]]


def zip_without(files, name):
    kept = [file for file in files if file["name"] != name]
    return kept, [answers_above(file) for file in kept]


def measures(files, alarms):
    """The columns of the table for `alarms`, a list per file."""
    f1, far, mar = rates([t for file in files for t in file["truth"]], [a for of_file in alarms for a in of_file])
    before, false_files, delays = [], 0, []
    for file, of_file in zip(files, alarms):
        fault = file["truth"].index(True)
        before += of_file[:fault]
        false_files += any(of_file[:fault])
        on = next((row for row in range(fault, len(of_file)) if of_file[row]), None)
        delays.append(file["times"][on] - file["times"][fault] if on is not None else float("inf"))
    points = changepoint_score([(file["times"], file["changes"], of_file) for file, of_file in zip(files, alarms)])
    far_before = 100 * sum(before) / max(1, len(before))
    return [f"{f1:.4f}", f"{100 * far:.1f}", f"{100 * mar:.1f}", f"{far_before:.1f}", false_files, f"{statistics.median(delays):.0f}", f"{points:.1f}"]


def contributions(files, report):
    """Whether the points that must show a fault are named first, over the rows that are over the limit during the fault; per file."""
    report.heading("Contributions, SKAB (a share of rows per file, averaged over files; chance 25 % and 64 %)", level=3)
    report.table(["fault", "files", "true point first %", "among the first three %"])
    kinds = [("valve → flow, pressure", CAUSES["valve1"]), ("rotor imbalance → accelerometers", ACCELEROMETERS)]
    for kind, true in kinds:
        first, three = [], []
        for file in files:
            if CAUSES.get(file["name"], CAUSES.get(file["name"].split("/")[0])) != true:
                continue
            ids = {f"p{index}" for index, name in enumerate(file["columns"]) if name in true}
            rows = [answer for answer, fault in zip(file["answers"], file["truth"]) if fault and answer["above"] and answer["contrib_1_point"]]
            if rows:
                first.append(sum(row["contrib_1_point"] in ids for row in rows) / len(rows))
                three.append(sum(any(row[f"contrib_{n}_point"] in ids for n in (1, 2, 3)) for row in rows) / len(rows))
        if first:
            percent = [f"{100 * statistics.mean(shares):.1f}" for shares in (first, three)]
            report.row([kind, len(first), *percent])
            report.asked(f"SKAB, {kind}: first %", percent[0], 60, 80)
            report.asked(f"SKAB, {kind}: among the first three %", percent[1], 90)


def robustness(hark, files, report):
    """The same files with every twentieth row gone, and with each sensor in turn never there, without values from row 400 on, or stuck from there on."""
    report.heading("Robustness, SKAB: F1 and FAR %", level=3)
    report.table(["what is wrong", "F1", "FAR %", "most new advice and alarms of a file within 10 min"])
    whole = scored([(file["truth"], file["answers"]) for file in files])
    report.row(["nothing", *whole])
    thin = scored([thinned(hark, file) for file in files])
    report.row(["5 % of the rows missing", *thin])
    robust("5 % of the rows missing", whole, [thin], report)
    report.text("F1, FAR %, most new advice and alarms within 10 min, with each sensor in turn never there, without a value from row 400 on (the others answer), or stuck from there on:\n")
    kinds = {"never there": [], "no value from row 400 on": [], "stuck from row 400 on": []}
    report.table(["sensor", *kinds])
    for sensor in files[0]["columns"]:
        never = [changed(hark, file, file["text"], [name for name in file["columns"] if name != sensor]) for file in files]
        empty = [changed(hark, file, held(file["text"], sensor, lambda _: ""), file["columns"]) for file in files]
        stuck = [changed(hark, file, held(file["text"], sensor, lambda value: value), file["columns"]) for file in files]
        cases = [scored(case) for case in (never, empty, stuck)]
        report.row([sensor, *(", ".join(case) for case in cases)])
        for kind, case in zip(kinds.values(), cases):
            kind.append(case)
    for kind, cases in kinds.items():
        robust(f"one sensor {kind}", whole, cases, report)


def robust(what, whole, cases, report):
    """How far F1 falls and the false-alarm rate rises: in the worst case, and in the mean where there are several."""
    falls = [float(whole[0]) - float(f1) for f1, _, _ in cases]
    rises = [float(far) - float(whole[1]) for _, far, _ in cases]
    for name, of in {"worst": max, "mean": statistics.mean}.items() if len(cases) > 1 else [("worst", max)]:
        of_many = f", {name} of {len(cases)}" if len(cases) > 1 else ""
        report.asked(f"SKAB, {what}: F1 falls by{of_many}", of(falls), 0.05, most=True)
        report.asked(f"SKAB, {what}: FAR rises by points{of_many}", of(rises), 5, most=True)
    report.asked(f"SKAB, {what}: new advice and alarms within 10 min, worst", max(int(new) for _, _, new in cases), FLOOD - 1, most=True)


def scored(cases):
    """F1 and false-alarm rate over all rows of `cases`, each the truth and the answers of a file, and the most that a file raised within ten minutes."""
    f1, far, _ = rates([t for truth, _ in cases for t in truth], [answer["above"] for _, answers in cases for answer in answers])
    return [f"{f1:.4f}", f"{100 * far:.1f}", str(max(raised_at_once(answers) for _, answers in cases))]


def raised_at_once(answers):
    """Most rows within ten minutes (600 rows of a second) in which advice or an alarm begins."""
    on = [answer["advice"] or answer["alarm"] for answer in answers]
    begun = [row for row, now in enumerate(on) if now and not (row and on[row - 1])]
    return max((sum(first <= row < first + 600 for row in begun) for first in begun), default=0)


def changed(hark, file, text, columns):
    return file["truth"], hark.replay(text, columns, commission_rows=COMMISSIONING_ROWS)[COMMISSIONING_ROWS:]


def thinned(hark, file):
    """Without every twentieth row after commissioning."""
    header, *lines = file["text"].splitlines()
    kept = [row for row in range(len(lines) - COMMISSIONING_ROWS) if row % 20 != 10]
    rows = lines[:COMMISSIONING_ROWS] + [lines[COMMISSIONING_ROWS + row] for row in kept]
    _, answers = changed(hark, file, "\n".join([header, *rows]) + "\n", file["columns"])
    return [file["truth"][row] for row in kept], answers


def held(text, sensor, what):
    """From the first row after commissioning on, `sensor` has what `what` makes of its value in that row."""
    header, *lines = text.splitlines()
    place = header.split(";").index(sensor)
    value = what(lines[COMMISSIONING_ROWS].split(";")[place])
    rows = [";".join([*(cells := line.split(";"))[:place], value, *cells[place + 1 :]]) for line in lines[COMMISSIONING_ROWS:]]
    return "\n".join([header, *lines[:COMMISSIONING_ROWS], *rows]) + "\n"
