"""Remaining life of turbofan engines: the test halves of C-MAPSS through `hark replay` with the shipped bundles, one pass, one second for a cycle.

The test halves are for the end: what is chosen is chosen on engines left out of training, by `models/turbofan-rul/train.py`. Needs numpy.
"""

import concurrent.futures
import gzip
import json
import pathlib
import subprocess
import sys
import tempfile
import tomllib

import numpy as np

from replay import MODELS

SETS = ("FD001", "FD002", "FD004")
VARIANTS = ("with-age", "without-age")
HORIZONS = (10, 30, 50)
#: Cuts of each engine by which intervals are judged, and the first cycle that may be one.
CUTS, FIRST_CUT = 5, 20
RESAMPLES = 1_000
CAP = 125
#: Floor and aim of RMSE on capped labels, and the most of the score.
ASKED = {
    "with-age": {"FD001": (12.2, 10.9, 250), "FD002": (10.3, 9.5, 520), "FD004": (11.5, 10.5, 760)},
    "without-age": {"FD001": (14.0, 12.5, None), "FD002": (11.7, 10.5, None), "FD004": (13.2, 11.5, None)},
}
#: Lowest published RMSE with its score, on capped labels, by the comparison in github.com/LLerDagu/RUL-FFVE (Benchmark.md).
PUBLISHED = {"FD001": "MTSTAN 10.97, 175", "FD002": "FFVE 12.55, 772", "FD004": "FFVE 14.08, 1149"}
BASELINES = """\
Constant: what the training halves show, the median of their capped labels, the quantiles of the raw ones; the best constant is the mean of the labels that judge it. Of chances
the constant is the base rate: Brier skill 0, calibration error 0, PR-AUC the base rate. Published, RMSE and score: lowest RMSE of the comparison in
github.com/LLerDagu/RUL-FFVE (Benchmark.md). Intervals, published: nominal 80 % covers 80.0 % on FD001 and 79.3 % on FD002 (LSTM, conformalised quantile
regression, Sensors 2026, 26(7) 2249), 59.0 % and 72.2 % before it is calibrated."""


def run(hark, data, report):
    """Writes the section; `data` is the folder of C-MAPSS."""
    sys.path.insert(0, str(MODELS / "turbofan-rul"))
    import engines

    report.heading("Remaining life: C-MAPSS test halves through `hark replay`, one second for a cycle")
    report.write(*BASELINES.splitlines())
    labels = np.concatenate([of_training(engines.read(data, "train", name)) for name in SETS])
    for variant in VARIANTS:
        rows = replayed(hark, engines, data, variant)
        report.heading(f"Bundle {variant}", level=3)
        last_cycles(rows, float(np.median(np.minimum(labels, CAP))), variant, report)
        interval_figures(rows, labels, variant, report)
        chances(rows, variant, report)


def of_training(rows):
    """Cycles until the last row of each engine."""
    last = np.zeros(int(rows[:, 0].max()) + 1)
    np.maximum.at(last, rows[:, 0].astype(int), rows[:, 1])
    return last[rows[:, 0].astype(int)] - rows[:, 1]


def remaining_at_last(data, subset):
    """Cycles that were to go at the last one recorded, by engine."""
    path = data / f"RUL_{subset}.txt"
    return np.loadtxt(path if path.is_file() else gzip.open(f"{path}.gz", "rt"))


def replayed(hark, engines, data, variant):
    """What the program says of each cycle: a dict of arrays."""
    names = [name for name, *_ in engines.SETTINGS] + [name for name, _ in engines.SENSORS]
    lives = []
    for subset in SETS:
        table = engines.read(data, "test", subset)
        for unit, remaining in enumerate(remaining_at_last(data, subset), start=1):
            lives.append((subset, unit, table[table[:, 0] == unit], int(remaining)))
    with tempfile.TemporaryDirectory() as folder, concurrent.futures.ThreadPoolExecutor(2) as pool:
        config = configured(pathlib.Path(folder), variant)
        answers = list(pool.map(lambda life: one_life(hark, config, names, life), lives))
    rows = {key: [] for key in ("engine", "subset", "cycle", "remaining", "is_last", "mean", "p05", "p10", "p90", "p95", *HORIZONS)}
    for number, ((subset, _, table, at_end), of_life) in enumerate(zip(lives, answers)):
        for row, answer in zip(table, of_life, strict=True):
            if answer["forecast"] != "remaining_life":
                raise RuntimeError(f"{subset}: no remaining life in cycle {row[1]:.0f}: {answer}")
            left = at_end + len(table) - int(row[1])
            said = [answer[f"{key}_s"] for key in ("remaining_life", "t_p05", "t_p10", "t_p90", "t_p95")] + [answer[f"p_fail_{n}"] for n in (1, 2, 3)]
            known = [number, subset, int(row[1]), left, left == at_end]
            for column, value in zip(rows.values(), known + said, strict=True):
                column.append(value)
    return {key: np.array(column) for key, column in rows.items()}


def configured(folder, variant):
    """A configuration with one engine in `folder`."""
    specification = tomllib.loads((MODELS / "turbofan-rul" / variant / "features.toml").read_text())
    (folder / "assets").mkdir()
    (folder / "hark.toml").write_text(f"[gateway]\nid = 'evaluation'\norigin = 'replay'\n[inference]\nmodels = '{MODELS}'\n")
    horizons = ", ".join(f"'{horizon}s'" for horizon in HORIZONS)
    lines = ["id = 'engine'", "grid = '1s'", "[forecast]", f"model = 'turbofan-rul/{variant}'", "age = 0", f"horizons = [{horizons}]"]
    for point in specification["point"]:
        lines += ["[[point]]", f"id = '{point['name']}'", f"unit = '{point['unit']}'"]
    for setting in specification["regimes"]["settings"]:
        lines += ["[[point]]", f"id = '{setting['name']}'", f"unit = '{setting['unit']}'", "scored = false"]
    (folder / "assets/engine.toml").write_text("\n".join(lines) + "\n")
    return folder


def one_life(hark, config, names, life):
    subset, unit, table, _ = life
    path = config / f"{subset}-{unit}.csv"
    path.write_text("\n".join([",".join(names), *(",".join(map(repr, map(float, row[2:]))) for row in table)]) + "\n")
    command = [hark.program, "replay", "--config", config, "--asset", "engine", "--input", path, "--period", "1"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"hark replay ended with {done.returncode}: {done.stderr.strip()}")
    return [json.loads(line) for line in done.stdout.splitlines()]


def last_cycles(rows, constant, variant, report):
    report.table(["set", "RMSE, capped", "score, capped", "RMSE, raw", "score, raw", f"constant {constant:.0f}: RMSE, score, capped", "best constant: RMSE", "published"])
    for subset in SETS:
        last = (rows["subset"] == subset) & rows["is_last"]
        truth, found = rows["remaining"][last], rows["mean"][last]
        capped = np.minimum(truth, CAP)
        figures = rmse(found - capped), score(found - capped), rmse(found - truth), score(found - truth), rmse(constant - capped), score(constant - capped), rmse(capped.mean() - capped)
        cells = [f"{figures[0]:.2f}", f"{figures[1]:.0f}", f"{figures[2]:.2f}", f"{figures[3]:.0f}", f"{figures[4]:.1f}, {figures[5]:.0f}", f"{figures[6]:.1f}"]
        report.row([subset, *cells, PUBLISHED[subset]])
        floor, aim, most = ASKED[variant][subset]
        report.asked(f"C-MAPSS {subset} {variant}, RMSE capped", figures[0], floor, aim, most=True)
        if most:
            report.asked(f"C-MAPSS {subset} {variant}, score capped", figures[1], most, most=True)


def score(late):
    """Sum over engines; `late` is predicted minus true."""
    return float(np.where(late < 0, np.expm1(-late / 13), np.expm1(late / 10)).sum())


def rmse(error):
    return float(np.sqrt(np.mean(error**2)))


def interval_figures(rows, labels, variant, report):
    """Five cuts of each engine, on raw labels; width also of what lies below the cap of the labels."""
    random = np.random.default_rng(0)
    cuts = []
    for engine in np.unique(rows["engine"]):
        possible = np.flatnonzero((rows["engine"] == engine) & (rows["cycle"] >= FIRST_CUT))
        cuts.extend(random.choice(possible, min(CUTS, len(possible)), replace=False))
    cuts = np.array(cuts)
    report.write("")
    report.table(["set", "engines", "nominal", "coverage", "95 % interval", "width, cycles", f"width below {CAP}", "Winkler score", "constant interval: coverage, width, Winkler score", "cuts"])
    for subset in (*SETS, "all"):
        for which in ("all", "below the cap"):
            for nominal, low, high in ((80, "p10", "p90"), (90, "p05", "p95")):
                chosen = cuts[(rows["subset"][cuts] == subset) | (subset == "all")]
                chosen = chosen[rows["remaining"][chosen] < CAP] if which == "below the cap" else chosen
                truth, lower, upper = rows["remaining"][chosen], rows[low][chosen], rows[high][chosen]
                inside = ((lower <= truth) & (truth <= upper)).astype(float)
                interval = resampled(rows["engine"][chosen], inside)
                width, winkler = np.mean(upper - lower), winkler_score(truth, lower, upper, nominal)
                capped = np.mean(np.minimum(upper, CAP) - np.minimum(lower, CAP))
                least, most = np.quantile(labels, [0.5 - nominal / 200, 0.5 + nominal / 200])
                always = f"{100 * np.mean((least <= truth) & (truth <= most)):.1f} %, {most - least:.1f}, {winkler_score(truth, least, most, nominal):.1f}"
                cells = [f"{100 * inside.mean():.1f} %", f"{100 * interval[0]:.1f} to {100 * interval[1]:.1f} %", f"{width:.1f}", f"{capped:.1f}", f"{winkler:.1f}", always, len(chosen)]
                report.row([subset, which, f"{nominal} %", *cells])
                if subset == "all":
                    report.asked(f"C-MAPSS {variant}, {nominal} % interval, {which}: off by points", abs(100 * inside.mean() - nominal), 4, most=True)
                elif which == "all":
                    outside = max(0.0, nominal - 100 * interval[1], 100 * interval[0] - nominal)
                    report.asked(f"C-MAPSS {subset} {variant}, {nominal} %: nominal outside the 95 % interval by", outside, 0, most=True)
                if subset == "all" and which == "all" and nominal == 90:
                    report.asked(f"C-MAPSS {variant}, width of the 90 % interval below the cap, cycles", capped, None, 25, most=True)
                    report.asked(f"C-MAPSS {variant}, width of the 90 % interval in all, cycles", width, None, 25, most=True)


def winkler_score(truth, lower, upper, nominal):
    """Mean width, and what lies outside of it at the price that its level asks, cycles."""
    beyond = np.maximum(lower - truth, 0) + np.maximum(truth - upper, 0)
    return np.mean(upper - lower + 2 / (1 - nominal / 100) * beyond)


def resampled(engine, inside):
    """95 % interval of the mean over engines drawn with replacement."""
    random = np.random.default_rng(0)
    _, member = np.unique(engine, return_inverse=True)
    hits, counts = np.bincount(member, inside), np.bincount(member)
    drawn = random.integers(len(counts), size=(RESAMPLES, len(counts)))
    return tuple(np.quantile(hits[drawn].sum(axis=1) / counts[drawn].sum(axis=1), [0.025, 0.975]))


def chances(rows, variant, report):
    """P(failure within so many cycles), over all cycles of the test engines."""
    report.write("")
    report.table(["set", "within", "base rate", "Brier skill", "calibration error", "95 % interval", "PR-AUC", "constant: Brier", "cycles"])
    for subset in (*SETS, "all"):
        of_set = np.flatnonzero((rows["subset"] == subset) | (subset == "all"))
        for horizon in HORIZONS:
            chance, happened = rows[horizon][of_set], (rows["remaining"][of_set] <= horizon).astype(float)
            base = happened.mean()
            skill = 1 - np.mean((chance - happened) ** 2) / (base * (1 - base))
            error, interval = calibration_error(chance, happened), resampled_calibration(rows["engine"][of_set], chance, happened)
            area = precision_recall_area(chance, happened)
            cells = [f"{base:.3f}", f"{skill:.3f}", f"{error:.4f}", f"{interval[0]:.4f} to {interval[1]:.4f}", f"{area:.3f}", f"{base * (1 - base):.4f}", len(of_set)]
            report.row([subset, horizon, *cells])
            if subset == "all":
                report.asked(f"C-MAPSS {variant}, Brier skill within {horizon} cycles", skill, 0.3, 0.5)
                report.asked(f"C-MAPSS {variant}, calibration error within {horizon} cycles", error, 0.04, most=True)


def calibration_error(chance, happened):
    """Mean difference between chance and frequency in ten bins of equal count."""
    order = np.argsort(chance, kind="stable")
    return float(np.mean([abs(chance[bin].mean() - happened[bin].mean()) for bin in np.array_split(order, 10)]))


def resampled_calibration(engine, chance, happened):
    """95 % interval over engines; of each engine every fifth cycle, which is hardly less."""
    thin = np.arange(0, len(engine), 5)
    random, numbers = np.random.default_rng(0), np.unique(engine)
    by_engine = {number: thin[engine[thin] == number] for number in numbers}
    errors = []
    for _ in range(200):
        index = np.concatenate([by_engine[number] for number in random.choice(numbers, len(numbers))])
        errors.append(calibration_error(chance[index], happened[index]))
    return tuple(np.quantile(errors, [0.025, 0.975]))


def precision_recall_area(chance, happened):
    """Average precision."""
    order = np.argsort(-chance, kind="stable")
    hit = happened[order]
    return float(np.sum(np.cumsum(hit) / np.arange(1, len(hit) + 1) * hit) / hit.sum())
