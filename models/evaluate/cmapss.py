"""Figures of the turbofan bundles on C-MAPSS.

    python models/evaluate/cmapss.py --data DIR [--program hark]

Features come from `hark features --rows`; the bundle's graph is run by onnxruntime on the last cycles, and for all cycles by numpy from the same file. The
test halves are for the end: what is chosen is chosen on engines left out of training, by `models/turbofan-rul/train.py`.
"""

import argparse
import pathlib
import sys
import tomllib

import numpy as np
import onnx
import onnxruntime

MODELS = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(MODELS / "turbofan-rul"))

import engines  # noqa: E402
import forest  # noqa: E402
import intervals  # noqa: E402

SETS = ("FD001", "FD002", "FD004")
HORIZONS = (10, 30, 50)
CUTS = 5
#: An engine is cut from its 20th cycle on.
FIRST_CUT = 20
RESAMPLES = 1_000
#: Most RMSE and score on capped labels that is asked for.
ASKED = {
    "with-age": {"FD001": (12.2, 250), "FD002": (10.3, 520), "FD004": (11.5, 760)},
    "without-age": {"FD001": (14.0, None), "FD002": (11.7, None), "FD004": (13.2, None)},
}


class Model:
    """A bundle, run in two ways."""

    def __init__(self, folder: pathlib.Path):
        self.manifest = tomllib.loads((folder / "manifest.toml").read_text())
        self.specification = (folder / "features.toml").read_text()
        self.cap = self.manifest["forecast"]["cap"]
        content = (folder / "model.onnx").read_bytes()
        self.session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
        self.arrays = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in onnx.load_from_string(content).graph.initializer}

    def on_one(self, features: np.ndarray) -> tuple[float, np.ndarray]:
        """Estimate and quantiles of a row, from onnxruntime."""
        point, quantiles = self.session.run(["remaining_life", "quantiles"], {"features": features[None, :]})
        return point[0, 0], quantiles[0]

    def on_many(self, features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The same for many rows, in numpy."""
        arrays = self.arrays
        sums = forest.sums(arrays, features)
        point, scale = sums[:, 0].clip(0.0, self.cap), np.maximum(sums[:, 1], arrays["scale_min"])
        stretch = arrays["upper_knot"] - arrays["lower_knot"]
        table = np.cumsum(np.concatenate([arrays["first_row"], arrays["rise"] * stretch.T]), axis=0)
        return point, intervals.quantiles(point, scale, table, self.cap)


def score(late: np.ndarray) -> float:
    """Sum over engines; `late` is predicted minus true."""
    return float(np.where(late < 0, np.expm1(-late / 13), np.expm1(late / 10)).sum())


def rmse(error: np.ndarray) -> float:
    return float(np.sqrt(np.mean(error**2)))


def resampled(engine: np.ndarray, statistic) -> tuple[float, float]:
    """95 % interval of `statistic(indices)` over engines drawn with replacement."""
    random = np.random.default_rng(0)
    by_engine = [np.flatnonzero(engine == number) for number in np.unique(engine)]
    drawn = [statistic(np.concatenate([by_engine[index] for index in random.integers(len(by_engine), size=len(by_engine))])) for _ in range(RESAMPLES)]
    return tuple(np.quantile(drawn, [0.025, 0.975]))


def last_cycles(rows, point: np.ndarray, cap: float, constant: float, asked: dict) -> None:
    print("| set | RMSE | score | RMSE raw | score raw | constant: RMSE | score | RMSE raw | asked for | kept |\n|---|---|---|---|---|---|---|---|---|---|")
    for subset in SETS:
        last = np.flatnonzero((rows.subset == subset) & rows.is_last)
        truth, found = rows.remaining[last], point[last]
        capped = np.minimum(truth, cap)
        reached = (rmse(found - capped), score(found - capped))
        limits = asked[subset]
        kept = all(limit is None or value <= limit for value, limit in zip(reached, limits, strict=True))
        print(
            f"| {subset} | {reached[0]:.2f} | {reached[1]:.0f} | {rmse(found - truth):.2f} | {score(found - truth):.0f} | {rmse(constant - capped):.1f} | {score(constant - capped):.0f} "
            f"| {rmse(constant - truth):.1f} | {' / '.join(str(limit) for limit in limits if limit)} | {'yes' if kept else 'NO'} |"
        )


def interval_figures(rows, quantiles: np.ndarray, cap: float) -> None:
    random = np.random.default_rng(0)
    chosen = []
    for engine in np.unique(rows.engine):
        possible = np.flatnonzero((rows.engine == engine) & (rows.cycle >= FIRST_CUT))
        chosen.extend(random.choice(possible, min(CUTS, len(possible)), replace=False))
    chosen = np.array(chosen)
    print("| set | engines | nominal | coverage | 95 % interval | width | Winkler score | n |\n|---|---|---|---|---|---|---|---|")
    for subset in (*SETS, "all"):
        for which in ("all, ties shared", "all", "below the cap"):
            for nominal, low, high in ((0.8, 0.1, 0.9), (0.9, 0.05, 0.95)):
                cuts = chosen[(rows.subset[chosen] == subset) | (subset == "all")]
                cuts = cuts[rows.remaining[cuts] < cap] if which == "below the cap" else cuts
                truth = np.minimum(rows.remaining[cuts], cap)
                lower, upper = (quantiles[cuts, intervals.LEVELS.index(level)] for level in (low, high))
                inside = ((lower <= truth) & (truth <= upper)).astype(float)
                if which == "all, ties shared":
                    inside = shared(quantiles[cuts], truth, cap, low, high)
                interval = resampled(rows.engine[cuts], lambda index, inside=inside: inside[index].mean())
                beyond = np.maximum(lower - truth, 0) + np.maximum(truth - upper, 0)
                winkler = upper - lower + 2 / (1 - nominal) * beyond
                print(
                    f"| {subset} | {which} | {nominal:.0%} | {inside.mean():.1%} | {interval[0]:.1%} to {interval[1]:.1%} | {(upper - lower).mean():.1f} | {winkler.mean():.1f} | {len(cuts)} |"
                )


def shared(quantiles: np.ndarray, truth: np.ndarray, cap: float, low: float, high: float) -> np.ndarray:
    """The share of each truth that lies between the levels. All lives beyond the cap are one value, to which the distribution gives a range of levels, not one."""
    place = intervals.chance_within(0.0, quantiles)
    for horizon in np.unique(truth):
        place[truth == horizon] = intervals.chance_within(horizon, quantiles[truth == horizon])
    at_cap = truth >= cap
    place[at_cap] = intervals.chance_within(cap - 1e-9, quantiles[at_cap])
    ranges = np.clip(np.minimum(1.0, high) - np.maximum(place, low), 0.0, None) / np.maximum(1.0 - place, 1e-9)
    return np.where(at_cap, ranges, (place >= low) & (place <= high))


def chances(rows, quantiles: np.ndarray) -> None:
    print("| set | within | base rate | Brier skill | calibration error | 95 % interval | PR-AUC | constant: Brier | n |\n|---|---|---|---|---|---|---|---|---|")
    for subset in (*SETS, "all"):
        of_set = np.flatnonzero((rows.subset == subset) | (subset == "all"))
        for horizon in HORIZONS:
            chance, happened = intervals.chance_within(horizon, quantiles[of_set]), (rows.remaining[of_set] <= horizon).astype(float)
            base = happened.mean()
            skill = 1 - np.mean((chance - happened) ** 2) / (base * (1 - base))
            interval = resampled_calibration(rows.engine[of_set], chance, happened)
            print(
                f"| {subset} | {horizon} | {base:.3f} | {skill:.3f} | {calibration_error(chance, happened):.4f} | {interval[0]:.4f} to {interval[1]:.4f} "
                f"| {precision_recall_area(chance, happened):.3f} | {base * (1 - base):.4f} | {len(of_set)} |"
            )


def calibration_error(chance: np.ndarray, happened: np.ndarray) -> float:
    """Mean difference between chance and frequency in ten bins of equal count."""
    order = np.argsort(chance, kind="stable")
    return float(np.mean([abs(chance[bin].mean() - happened[bin].mean()) for bin in np.array_split(order, 10)]))


def resampled_calibration(engine: np.ndarray, chance: np.ndarray, happened: np.ndarray) -> tuple[float, float]:
    """95 % interval over engines; of each engine every fifth cycle, which is hardly less."""
    thin = np.arange(0, len(engine), 5)
    random, numbers = np.random.default_rng(0), np.unique(engine)
    by_engine = {number: thin[engine[thin] == number] for number in numbers}
    errors = []
    for _ in range(200):
        index = np.concatenate([by_engine[number] for number in random.choice(numbers, len(numbers))])
        errors.append(calibration_error(chance[index], happened[index]))
    return tuple(np.quantile(errors, [0.025, 0.975]))


def precision_recall_area(chance: np.ndarray, happened: np.ndarray) -> float:
    """Average precision."""
    order = np.argsort(-chance, kind="stable")
    hit = happened[order]
    return float(np.sum(np.cumsum(hit) / np.arange(1, len(hit) + 1) * hit) / hit.sum())


def test_rows(program: pathlib.Path, data: pathlib.Path, specification: str):
    """Features of the test halves, with the true remaining cycles of each row."""
    rows = engines.features(program, {name: engines.read(data, "test", name) for name in SETS}, specification)
    rows.is_last = rows.remaining == 0
    for name in SETS:
        at_last = np.loadtxt(data / f"RUL_{name}.txt")
        for number, remaining in enumerate(at_last, start=1):
            rows.remaining[rows.engine == 1_000 * int(name[-1]) + number] += int(remaining)
    return rows


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--data", type=pathlib.Path, required=True, help="folder with test_FD001.txt[.gz] and RUL_FD001.txt, and those of FD002 and FD004")
    arguments.add_argument("--program", type=pathlib.Path, default="hark", help="the program, which computes the features [hark]")
    arguments.add_argument("--bundles", type=pathlib.Path, default=MODELS / "turbofan-rul", help="folder with the bundles")
    arguments = arguments.parse_args()
    models = {variant: Model(arguments.bundles / variant) for variant in ASKED}
    rows = test_rows(arguments.program, arguments.data, models["with-age"].specification)
    training = np.concatenate([np.minimum(remaining(engines.read(arguments.data, "train", name)), 125) for name in SETS])
    constant = float(np.median(training))
    for variant, model in models.items():
        features = rows.of_variant(variant == "with-age")
        point, quantiles = model.on_many(features)
        last = np.flatnonzero(rows.is_last)
        by_runtime = [model.on_one(features[index]) for index in last]
        difference = max(max(abs(one - point[index]), np.abs(levels - quantiles[index]).max()) for (one, levels), index in zip(by_runtime, last, strict=True))
        print(f"\n## {variant}\n\nLargest difference between onnxruntime and numpy on {len(last)} last cycles: {difference:.1e}; constant {constant:.0f}.\n")
        last_cycles(rows, point, model.cap, constant, ASKED[variant])
        print()
        interval_figures(rows, quantiles, model.cap)
        print()
        chances(rows, quantiles)


def remaining(rows: np.ndarray) -> np.ndarray:
    """Cycles until the last row of each engine."""
    last = np.zeros(int(rows[:, 0].max()) + 1)
    np.maximum.at(last, rows[:, 0].astype(int), rows[:, 1])
    return last[rows[:, 0].astype(int)] - rows[:, 1]


if __name__ == "__main__":
    main()
