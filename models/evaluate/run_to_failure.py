"""Bearings run to failure: IMS (NASA, mean absolute acceleration every ten minutes) and FEMTO (PRONOSTIA, features every ten seconds), read on `above`.

Each bearing is a machine of its own, commissioned on its first rows; one configuration for each set. Neither set may be redistributed: no row of them is
in this repository.
"""

import csv
import gzip
import statistics
from datetime import datetime, timezone

#: Rows that a bearing is commissioned on: a fifth of IMS test 2, and of FEMTO the fewest that there may be, since some of its lives are that short.
IMS_ROWS = 200
FEMTO_ROWS = 130
#: Below this the rig of IMS stands still, g: a twelfth of the quietest running bearing.
IMS_RUNNING = 0.005
FEMTO_POINTS = ("h_rms", "h_kurt", "h_env_std", "v_rms", "v_kurt", "v_env_std")
FEMTO_PERIOD_S = 10
#: As of the features that the agent makes of blocks of vibration.
VIBRATION = "ignore_fall = true\n"


def run(hark, data, report):
    """Writes the sections of both sets from the folders ims-bearing and femto beside `data`."""
    ims(hark, data.parent / "ims-bearing", report)
    femto(hark, data.parent / "femto", report)


def ims(hark, folder, report):
    rows = list(csv.DictReader(gzip.open(folder / "2nd_test_meanabs_10min.csv.gz", "rt")))
    times = [datetime.strptime(row["Datetime"], "%Y.%m.%d.%H.%M.%S").replace(tzinfo=timezone.utc).timestamp() for row in rows]
    report.heading(f"IMS test 2, four bearings, each commissioned on its first {IMS_ROWS} of {len(rows)} rows, read on `above`")
    report.table(["bearing", "stays on from, hours before the end", "rows over the limit in the first half, after commissioning", "rows over the limit before it stays on"])
    stays, early, over = {}, {}, []
    for bearing in range(1, 5):
        text = "\n".join(["time;a", *(f"{time:.0f};{row[f'Bearing {bearing}']}" for time, row in zip(times, rows))]) + "\n"
        operating = f"[operating]\npoint = 'p0'\nrunning = {IMS_RUNNING}\nsettle = '10m'\n"
        answers = hark.replay(text, ["a"], grid="10m", commission_rows=IMS_ROWS, tables=operating, point=VIBRATION)
        above = [answer["above"] for answer in answers]
        on = next((row for row in range(len(above)) if all(above[row:])), None)
        stays[bearing] = (times[-1] - times[on]) / 3600 if on is not None else 0.0
        early[bearing] = sum(above[IMS_ROWS : len(above) // 2])
        over += above[IMS_ROWS:]
        report.row([bearing, f"{stays[bearing]:.1f}" if on is not None else "never", early[bearing], sum(above[IMS_ROWS:on])])
    half, rate = len(rows) // 2 - IMS_ROWS, statistics.mean(over)
    report.row(["always on", f"{(times[-1] - times[IMS_ROWS]) / 3600:.1f}", half, 0])
    report.row(["never on", "never", 0, 0])
    stays_h = rate / (1 - rate) * (times[-1] - times[0]) / (len(rows) - 1) / 3600
    report.row([f"chance: {100 * rate:.1f} % of the rows, expected", f"{stays_h:.1f}", f"{rate * half:.0f}", f"{rate * (len(rows) - IMS_ROWS):.0f}"])
    report.text("A rule on the logarithm of the same table, measured with numpy (weight 0.1 in the mean, median and six robust deviations of the first fifth, six rows in "
                "a row): bearing 1 stays on 74 h before the end, the others 14 to 54 h later.")
    others = max(stays[bearing] for bearing in (2, 3, 4))
    report.asked("IMS, bearing 1 stays on, hours before the end", stays[1], 70)
    report.asked("IMS, bearing 1 before the others, hours", stays[1] - others, 12)
    report.asked("IMS, rows over the limit in the first half, all bearings", sum(early.values()), 0, most=True)


def femto(hark, folder, report):
    leads, early, rates, over, lives = [], [], [], [], 0
    report.heading(f"FEMTO, bearings run to failure, each commissioned on its first {FEMTO_ROWS} rows, read on `above`")
    report.table(["bearing", "life, h", "lead: stays on from, min before the end", "over the limit in the first half of life", "beginnings a day in that half"])
    for path in sorted(folder.glob("features_bearing*.csv.gz")):
        text = gzip.open(path, "rt").read()
        answers = hark.replay(text, FEMTO_POINTS, grid=f"{FEMTO_PERIOD_S}s", commission_rows=FEMTO_ROWS, period=FEMTO_PERIOD_S, point=VIBRATION)
        above = [answer["above"] for answer in answers]
        on = next((row for row in range(len(above)) if all(above[row:])), len(above))
        half = above[FEMTO_ROWS : max(FEMTO_ROWS + 1, len(above) // 2)]
        begun = sum(now and not before for before, now in zip([False, *half], half))
        days = len(half) * FEMTO_PERIOD_S / 86_400
        lives += 1
        over += above[FEMTO_ROWS:]
        leads.append((len(above) - on) * FEMTO_PERIOD_S / 60)
        early.append(any(half))
        rates.append((begun, days))
        name = path.name.removeprefix("features_bearing").removesuffix(".csv.gz")
        report.row([name, f"{len(above) * FEMTO_PERIOD_S / 3600:.1f}", f"{leads[-1]:.1f}", "yes" if early[-1] else "no", f"{begun / days:.0f}"])
    per_day = sum(begun for begun, _ in rates) / sum(days for _, days in rates)
    rate = statistics.mean(over)
    report.row(["always on", "", "the whole life", "yes", f"{lives / sum(days for _, days in rates):.0f}"])
    report.row(["never on", "", "0.0", "no", 0])
    a_day = rate * (1 - rate) * 86_400 / FEMTO_PERIOD_S
    report.row([f"chance: {100 * rate:.1f} % of the rows, expected", "", f"{rate / (1 - rate) * FEMTO_PERIOD_S / 60:.1f}", "yes", f"{a_day:.0f}"])
    report.text(f"Of {lives} bearings: median lead {statistics.median(leads):.1f} min; {100 * statistics.mean(early):.0f} % over the limit in the first half of life; "
                f"{per_day:.1f} beginnings a day in that half. Measured with numpy on all 17 bearings: three deviations of the horizontal RMS, three in a row, give a median lead of 7 min "
                "and come in 16 of them; the Mahalanobis distance of 20 features gives 180 min, and comes at 23 % of life, from running in.")
