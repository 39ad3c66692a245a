"""Trains the forecasting bundles of turbofan engines, from the files of C-MAPSS to complete bundles.

    python models/turbofan-rul/train.py --data DIR [--program hark] [--variant with-age] [--seed N]

Bundles are written beside this file: `with-age` for engines of which it is known how many cycles they have flown, `without-age` for others. The same data,
program, seed and processor give the same bytes. What was chosen by validation, and by which, is in README.md.
"""

import argparse
import functools
import os
import pathlib
import sys
import time

# Sums over several threads come out in another order each time.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["OPENBLAS_NUM_THREADS"] = "1"

import lightgbm
import numpy as np

import bundle
import engines
import forest
import intervals
import network

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from golden import as_text  # noqa: E402

CAP = 125.0
FOLDS = 5
VARIANTS = {"with-age": True, "without-age": False}
POINT = {"n_estimators": 400, "num_leaves": 15, "learning_rate": 0.04, "min_child_samples": 40, "colsample_bytree": 0.3, "subsample": 0.7, "subsample_freq": 1}
SCALE = {"n_estimators": 60, "num_leaves": 8, "learning_rate": 0.08, "min_child_samples": 200, "colsample_bytree": 0.3}
#: Of neighbouring cycles one in so many is learned from: they hardly differ.
STEP = 4


def fit(settings: dict, seed: int, features: np.ndarray, target: np.ndarray) -> lightgbm.LGBMRegressor:
    """One boosted regressor on some of the rows."""
    model = lightgbm.LGBMRegressor(**settings, max_bin=127, random_state=seed, n_jobs=1, deterministic=True, force_row_wise=True, verbose=-1)
    return model.fit(features[::STEP], target[::STEP])


def folds(rows: engines.Rows, seed: int) -> np.ndarray:
    """A fold for each row; an engine is in one, and each fold has its share of every set."""
    random = np.random.default_rng(seed)
    fold = np.zeros(len(rows.engine), dtype=int)
    for subset in np.unique(rows.subset):
        for place, engine in enumerate(random.permutation(np.unique(rows.engine[rows.subset == subset]))):
            fold[rows.engine == engine] = place % FOLDS
    return fold


def on_unseen(fitted, features: np.ndarray, target: np.ndarray, fold: np.ndarray) -> np.ndarray:
    """Each row by the model that was `fitted` without its fold."""
    predicted = np.empty(len(target))
    for left_out in range(FOLDS):
        seen = fold != left_out
        predicted[~seen] = fitted(features[seen], target[seen]).predict(features[~seen])
    return predicted


def run(forest_arrays: dict[str, np.ndarray], table: np.ndarray, features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The graph in numpy: estimates and quantiles of many rows."""
    sums = forest.sums(forest_arrays, features)
    point, scale = sums[:, 0].clip(0.0, CAP), np.maximum(sums[:, 1], intervals.SCALE_MIN)
    return point, intervals.quantiles(point, scale, table, CAP)


def train(name: str, age: bool, rows: engines.Rows, specification: str, seed: int) -> dict[str, bytes]:
    """The files of one bundle."""
    features, truth = rows.of_variant(age), np.minimum(rows.remaining, CAP)
    fold = folds(rows, seed)
    predicted = on_unseen(functools.partial(fit, POINT, seed), features, truth, fold).clip(0.0, CAP)
    miss = np.abs(truth - predicted)
    scale = np.maximum(on_unseen(functools.partial(fit, SCALE, seed), features, miss, fold), intervals.SCALE_MIN)
    # Engines are meant to be watched from their first cycle on; what is known of one that is not is wider than its interval says.
    whole = ~rows.late
    table = intervals.table(predicted[whole], scale[whole], truth[whole], rows.engine[whole])
    metrics = validation(rows, truth, predicted, intervals.quantiles(predicted, scale, table, CAP))

    trees = forest.Forest(outputs=2)
    point_model, scale_model = fit(POINT, seed, features, truth), fit(SCALE, seed, features, miss)
    trees.add(point_model, output=0)
    trees.add(scale_model, output=1)
    arrays = trees.arrays()
    probe = features[:: len(features) // 200]
    point, _ = run(arrays, table, probe)
    difference = np.abs(point - point_model.predict(probe).clip(0.0, CAP)).max()
    if difference > 1e-9:
        sys.exit(f"the trees as tensors differ from LightGBM by {difference}")

    model = bundle.graph(name, features.shape[1], trees, table, CAP)
    # No row of the data: the mean over engines with 40 cycles to go.
    golden = features[(rows.remaining == 40) & ~rows.late].mean(axis=0)[None, :]
    point, quantiles = run(arrays, table, golden)
    files = {
        "model.onnx": model.SerializeToString(deterministic=True),
        "features.toml": specification.replace("age = true", f"age = {str(age).lower()}", 1).encode(),
        "golden-input.txt": as_text({"features": golden}),
        "golden-output.txt": as_text({"remaining_life": point[:, None], "quantiles": quantiles}),
    }
    operators = sorted({node.op_type for node in model.graph.node})
    about = f"remaining cycles of a turbofan engine from {len(engines.POINTS)} points, {'with' if age else 'without'} its age: boosted trees, quantiles from errors on unseen engines"
    training = f"C-MAPSS training halves of {', '.join(engines.TRAINING_SETS)}: {len(np.unique(rows.engine))} simulated engines run to failure"
    files["manifest.toml"] = bundle.manifest(name, about, age, features.shape[1], files, operators, CAP, metrics, training)
    return files


def validation(rows: engines.Rows, truth: np.ndarray, predicted: np.ndarray, quantiles: np.ndarray) -> dict[str, float]:
    """Figures on unseen engines per set, and for engines that are watched only from some cycle on."""
    lower, upper = (quantiles[:, intervals.LEVELS.index(level)] for level in (0.05, 0.95))
    figures = {}
    for subset in engines.TRAINING_SETS:
        for prefix, of_set in ((subset.lower(), (rows.subset == subset) & ~rows.late), (subset.lower() + "_late", (rows.subset == subset) & rows.late)):
            figures[f"{prefix}_rmse"], figures[f"{prefix}_rmse_like_test"] = errors(rows, truth, predicted, of_set)
            below = of_set & (truth < CAP)
            figures[f"{prefix}_coverage_90"] = round(float(np.mean((lower <= truth) & (truth <= upper), where=below)), 3)
            figures[f"{prefix}_width_90"] = round(float(np.mean(upper - lower, where=below)), 1)
    return figures


def errors(rows: engines.Rows, truth: np.ndarray, predicted: np.ndarray, among: np.ndarray) -> tuple[float, float]:
    """RMSE, every engine weighing the same: over all cycles, and over those from the 20th on with at most 150 to go, as in the test halves."""
    found = []
    for chosen in (among, among & (rows.cycle >= 20) & (rows.remaining <= 150)):
        _, member = np.unique(rows.engine[chosen], return_inverse=True)
        weight = 1.0 / np.bincount(member)[member]
        found.append(round(float(np.sqrt(np.average((predicted - truth)[chosen] ** 2, weights=weight))), 2))
    return tuple(found)


def compare(rows: engines.Rows, age: bool, seed: int) -> dict[str, list[tuple[float, float]]]:
    """`errors` of the two candidates on unseen engines by set, fitted on the same folds."""
    features, truth, fold = rows.of_variant(age), np.minimum(rows.remaining, CAP), folds(rows, seed)
    candidates = {"trees": functools.partial(fit, POINT, seed), "network": network.Network(CAP, seed).fit}
    figures = {}
    for name, fitted in candidates.items():
        predicted = on_unseen(fitted, features, truth, fold).clip(0.0, CAP)
        figures[name] = [errors(rows, truth, predicted, (rows.subset == subset) & ~rows.late) for subset in engines.TRAINING_SETS]
    return figures


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--data", type=pathlib.Path, required=True, help="folder with train_FD001.txt[.gz] to train_FD004.txt[.gz]")
    arguments.add_argument("--program", type=pathlib.Path, default="hark", help="the program, which computes the features [hark]")
    arguments.add_argument("--variant", choices=VARIANTS, help="one bundle alone")
    arguments.add_argument("--seed", type=int, default=1)
    arguments.add_argument("--compare", action="store_true", help="print RMSE of trees and of a network on unseen engines of FD001 to FD004, cycles as in the test halves (all cycles), and write nothing")
    arguments.add_argument("--out", type=pathlib.Path, default=pathlib.Path(__file__).resolve().parent, help="folder to write the bundles to")
    arguments = arguments.parse_args()
    began = time.monotonic()

    def say(what: str) -> None:
        print(f"{time.monotonic() - began:6.1f} s  {what}", flush=True)

    sets = {name: engines.read(arguments.data, "train", name) for name in engines.TRAINING_SETS}
    specification = engines.specification(np.concatenate(list(sets.values())), age=True)
    rows = engines.features(arguments.program, {name: engines.with_late_copies(of_set, arguments.seed) for name, of_set in sets.items()}, specification)
    say(f"{rows.features.shape[1]} features of {len(rows.features)} rows, {len(np.unique(rows.engine))} engines")
    for variant, age in VARIANTS.items():
        if arguments.variant not in (None, variant):
            continue
        if arguments.compare:
            for candidate, figures in compare(rows, age, arguments.seed).items():
                say(f"{variant}, {candidate}: " + ", ".join(f"{like_test} ({whole})" for whole, like_test in figures))
        else:
            files = train(f"turbofan-rul-{variant}", age, rows, specification, arguments.seed)
            bundle.write(arguments.out / variant, files)
            say(f"{variant}: {sum(map(len, files.values())) / 1024:.0f} KiB")
            print(files["manifest.toml"].decode().split("[forecast.metrics]")[1].split("\n#")[0])


if __name__ == "__main__":
    main()
