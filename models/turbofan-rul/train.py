"""Trains the forecasting bundles of turbofan engines, from the files of C-MAPSS to complete bundles.

    python models/turbofan-rul/train.py --data DIR [--program hark] [--variant with-age] [--seed N]

Bundles are written beside this file: `with-age` for engines of which it is known how many cycles they have flown, `without-age` for others. The same data,
program, seed and processor give the same bytes. What was chosen by validation, and by which, is in README.md.
"""

import argparse
import os
import pathlib
import sys
import time

# Sums over several threads come out in another order each time.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["OPENBLAS_NUM_THREADS"] = "1"

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

import engines  # noqa: E402
import numpy as np  # noqa: E402
import validation  # noqa: E402
from forecast import bundle, intervals  # noqa: E402
from forecast.folds import by_life, on_unseen  # noqa: E402
from forecast.network import Network  # noqa: E402
from forecast.scale import Scale  # noqa: E402

VERSION = "3.0.0"
CREDIT = (
    'NASA Ames Prognostics Center of Excellence, C-MAPSS: A. Saxena, K. Goebel, D. Simon, N. Eklund, "Damage Propagation Modeling for Aircraft Engine '
    'Run-to-Failure Simulation", PHM08, 2008'
)
#: An engine shows nothing of its end before it has so many cycles to go: the estimate is the mean of lives cut there.
CUT = 125.0
#: Stretches are two cycles long near the end of life, five from the 30th on, and ever longer beyond where lives are cut: how long they last there is known of the
#: fleet alone, and said so in the quantiles. The longest life of the training halves had 542 cycles.
SCALE = Scale(
    edges=np.concatenate(
        [np.arange(0.0, 30.0, 2.0), np.arange(30.0, CUT + 1, 5.0), [135.0, 145.0, 155.0, 165.0, 175.0, 190.0, 205.0, 220.0, 240.0, 260.0, 290.0, 330.0, 380.0, 450.0, 550.0]]
    ),
    knots=(0.0, 6.0, 12.0, 20.0, 30.0, 40.0, 50.0, 60.0, 70.0, 80.0, 90.0, 100.0, 110.0, 118.0, CUT),
    spread_least=2.0,
    spread_rise=0.12,
    spread_most=10.0,
    cut=CUT,
)
FOLDS = 5
VARIANTS = {"with-age": True, "without-age": False}
FIGURES = (
    "On engines left out of training, five folds. RMSE of lives cut at mean_cut, `like_test`: with at most 150 cycles to go; `late`: watched only from some cycle on;",
    "`below_cut`: where less than that was to go. Coverage and width of whole lives; they and `like_test` from the 20th cycle on; `brier_skill` of the chance of failure within.",
)
#: Of `--compare`.
TREES = {"n_estimators": 400, "num_leaves": 15, "learning_rate": 0.04, "min_child_samples": 40, "colsample_bytree": 0.3, "subsample": 0.7, "subsample_freq": 1}
SEEDS = (1, 2, 3)
#: Of neighbouring cycles trees learn from one in so many: they hardly differ.
STEP = 4


def train(name: str, age: bool, rows: engines.Rows, specification: str, seed: int, origin: bundle.Origin) -> dict[str, bytes]:
    """The files of one bundle."""
    features, fold = rows.of_variant(age), by_life(rows.engine, rows.subset, FOLDS, seed)
    chances = on_unseen(Network(SCALE, seed).fit, features, rows.remaining, fold)
    predicted, place = intervals.mean(chances, SCALE), intervals.places(chances, SCALE, rows.remaining, seed)

    def table(among: np.ndarray) -> np.ndarray:
        # Engines are meant to be watched from their first cycle on; what is known of one that is not is wider than its interval says.
        whole = among & ~rows.late
        return intervals.table(predicted[whole], place[whole], rows.engine[whole], SCALE)

    quantiles = np.empty((len(fold), len(intervals.LEVELS)))
    for left_out in range(FOLDS):
        judged = fold == left_out
        quantiles[judged] = intervals.quantiles(chances[judged], SCALE, table(~judged))
    metrics = validation.figures(rows, predicted, quantiles, CUT)

    identity = bundle.Identity(
        name=name,
        about=f"remaining cycles of a turbofan engine from {len(engines.POINTS)} points, {'with' if age else 'without'} its age: small networks, levels kept on unseen engines",
        age=age,
        failure_mode="degradation of the high-pressure compressor or of the fan",
        unit="cycle",
        row="one flight cycle",
        row_s=None,
        figures=FIGURES,
    )
    # No row of the data: the mean over engines with 40 cycles to go.
    golden = features[(rows.remaining == 40) & ~rows.late].mean(axis=0)[None, :]
    specification = specification.replace("age = true", f"age = {str(age).lower()}", 1)
    return bundle.files(identity, origin, specification, Network(SCALE, seed).fit(features, rows.remaining), table(fold >= 0), golden, metrics)


class Trees:
    """The other candidate of `--compare`."""

    def fit(self, features: np.ndarray, remaining: np.ndarray) -> "Trees":
        import lightgbm

        model = lightgbm.LGBMRegressor(**TREES, max_bin=127, random_state=SEEDS[0], n_jobs=1, deterministic=True, force_row_wise=True, verbose=-1)
        self.model = model.fit(features[::STEP], np.minimum(remaining[::STEP], CUT))
        return self

    def predict(self, features: np.ndarray) -> np.ndarray:
        return self.model.predict(features).clip(0.0, CUT)


def compare(rows: engines.Rows, age: bool, say) -> None:
    """RMSE of the two candidates on unseen engines by set, cycles as in the test halves, fitted on the same folds; of networks for each of SEEDS."""
    features, fold = rows.of_variant(age), by_life(rows.engine, rows.subset, FOLDS, SEEDS[0])

    def errors(predicted: np.ndarray) -> np.ndarray:
        return np.array([validation.errors(rows, predicted, CUT, (rows.subset == subset) & ~rows.late)[1] for subset in engines.TRAINING_SETS])

    say(f"trees: {errors(on_unseen(Trees().fit, features, rows.remaining, fold)).round(2)}")
    found = []
    for seed in SEEDS:
        found.append(errors(intervals.mean(on_unseen(Network(SCALE, seed).fit, features, rows.remaining, fold), SCALE)))
        say(f"networks, seed {seed}: {found[-1].round(2)}")
    say(f"networks: mean {np.mean(found, axis=0).round(2)}, deviation {np.std(found, axis=0, ddof=1).round(2)}")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--data", type=pathlib.Path, required=True, help="folder with train_FD001.txt[.gz] to train_FD004.txt[.gz]")
    arguments.add_argument("--program", type=pathlib.Path, default="hark", help="the program, which computes the features [hark]")
    arguments.add_argument("--variant", choices=VARIANTS, help="one bundle alone")
    arguments.add_argument("--seed", type=int, default=1)
    arguments.add_argument("--compare", action="store_true", help="print RMSE of trees and of networks on unseen engines of FD001 to FD004, and write nothing")
    arguments.add_argument("--out", type=pathlib.Path, default=pathlib.Path(__file__).resolve().parent, help="folder to write the bundles to")
    arguments = arguments.parse_args()
    began = time.monotonic()

    def say(what: str) -> None:
        print(f"{time.monotonic() - began:6.1f} s  {what}", flush=True)

    sets = {name: engines.read(arguments.data, "train", name) for name in engines.TRAINING_SETS}
    specification = engines.specification(np.concatenate(list(sets.values())), age=True)
    rows = engines.features(arguments.program, {name: engines.with_late_copies(of_set, arguments.seed) for name, of_set in sets.items()}, specification)
    say(f"{rows.features.shape[1]} features of {len(rows.features)} rows, {len(np.unique(rows.engine))} engines")
    training = f"C-MAPSS training halves of {', '.join(engines.TRAINING_SETS)}: {len(np.unique(rows.engine))} simulated engines run to failure"
    origin = bundle.Origin(VERSION, training, CREDIT)
    for variant, age in VARIANTS.items():
        if arguments.variant not in (None, variant):
            continue
        if arguments.compare:
            compare(rows, age, lambda what, variant=variant: say(f"{variant}, {what}"))
        else:
            files = train(f"turbofan-rul-{variant}", age, rows, specification, arguments.seed, origin)
            bundle.write(arguments.out / variant, files)
            say(f"{variant}: {sum(map(len, files.values())) / 1024:.0f} KiB")
            print(files["manifest.toml"].decode().split("[forecast.metrics]")[1].split("\n#")[0])


if __name__ == "__main__":
    main()
