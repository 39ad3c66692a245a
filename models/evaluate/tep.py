"""The Tennessee Eastman process: commissioned on the normal run d00 alone, then each test run of 960 rows, whose fault begins at row 161."""

import gzip
import statistics

from judge import rates

COLUMNS = [f"XMEAS({n})" for n in range(1, 42)] + [f"XMV({n})" for n in range(1, 12)]
#: Practically without a trace in the data, and left out of averages everywhere.
UNDETECTABLE = (3, 9, 15)
FAULT_AT = 160
PERIOD_S = 180
#: Reactor temperature, reactor cooling water flow and outlet temperature.
REACTOR_COOLING = ("XMEAS(9)", "XMV(10)", "XMEAS(21)")


def run(hark, data, report):
    """Writes the section of the process."""
    normal = text_of(load(data / "d00.dat.gz", transposed=True))
    runs = {}
    for path in sorted(data.glob("d*_te.dat.gz")):
        rows = load(path)
        answers = hark.replay(text_of(rows), COLUMNS, grid=f"{PERIOD_S}s", commission=normal, period=PERIOD_S)
        runs[int(path.name[1:3])] = answers
    report.heading(f"Tennessee Eastman process, {len(runs) - 1} faults, limits from d00 alone, scored on `above`")
    report.table(["fault", "detected % of rows", "false before it %", "first row in alarm after it"])
    detected, before = [], []
    for fault, answers in runs.items():
        above = [answer["above"] for answer in answers]
        if fault == 0:
            false_alarms = 100 * rates([False] * len(above), above)[1]
            report.row(["none (d00_te)", "-", f"{false_alarms:.2f}", "-"])
            report.asked("Tennessee Eastman, false alarms on normal rows %", false_alarms, 0.5, 0.3, most=True)
            continue
        rate, early = statistics.mean(above[FAULT_AT:]), statistics.mean(above[:FAULT_AT])
        delay = next((row for row, is_above in enumerate(above[FAULT_AT:]) if is_above), "-")
        note = " (left out of the mean)" if fault in UNDETECTABLE else ""
        report.row([f"{fault}{note}", f"{100 * rate:.1f}", f"{100 * early:.2f}", delay])
        if fault not in UNDETECTABLE:
            detected.append(rate)
            before.append(early)
    report.row([f"**mean of {len(detected)}**", f"**{100 * statistics.mean(detected):.1f}**", f"**{100 * statistics.mean(before):.2f}**", ""])
    report.asked("Tennessee Eastman, detected", statistics.mean(detected), 0.90, 0.94)
    report.row(["always on", "100.0", "100.00", ""])
    report.row(["never on", "0.0", "0.00", ""])
    report.row(chance([answer["above"] for answers in runs.values() for answer in answers], len(detected)))
    report.row(["T2 or Q of PCA", "76.6", "", ""])
    report.text("A constant score is always on or never on. Chance is over its limit in as many rows as the program, each drawn for itself: expected value and "
                "deviation. T2 and Q were measured with numpy on these files, with limits from the normal test run.")
    rows = [answer for answer in runs.get(4, [])[FAULT_AT:] if answer["above"] and answer["contrib_1_point"]]
    if rows:
        ids = {f"p{COLUMNS.index(name)}" for name in REACTOR_COOLING}
        first = statistics.mean(row["contrib_1_point"] in ids for row in rows)
        three = statistics.mean(any(row[f"contrib_{n}_point"] in ids for n in (1, 2, 3)) for row in rows)
        report.text(f"Fault 4 (reactor cooling water): a point of the reactor's cooling is named first in {100 * first:.1f} % of its rows, among the first "
                    f"three in {100 * three:.1f} %.")
        report.asked("Tennessee Eastman, fault 4 → reactor cooling: first %", 100 * first, 60, 80)
        report.asked("Tennessee Eastman, fault 4 → reactor cooling: among the first three %", 100 * three, 90)


def chance(above, faults):
    """The row of a detector that is on in as many rows, at random."""
    rate = statistics.mean(above)
    of_fault, of_normal = (100 * (rate * (1 - rate) / (faults * rows)) ** 0.5 for rows in (960 - FAULT_AT, FAULT_AT))
    return [f"chance: {100 * rate:.1f} % of the rows", f"{100 * rate:.1f} ± {of_fault:.1f}", f"{100 * rate:.2f} ± {of_normal:.2f}", f"{(1 - rate) / rate:.1f}"]


def load(path, transposed=False):
    rows = [[float(cell) for cell in line.split()] for line in gzip.open(path, "rt") if line.strip()]
    return [list(column) for column in zip(*rows)] if transposed else rows


def text_of(rows):
    return "\n".join([";".join(COLUMNS), *(";".join(map(repr, row)) for row in rows)]) + "\n"
