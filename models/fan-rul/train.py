"""Trains the forecasting bundle of simulated fans, from tables of `lives --export` to a complete bundle.

    target/release/lives --export 101.csv --lives 6 --seed 101 --laws Exponential,Linear,Plateau,DipBeforeFailure,LoadDependent
    python models/fan-rul/train.py --data 101.csv … [--program hark] [--seed N]

The same tables, program, seed and processor give the same bytes. What was chosen by validation, what was held out, and why, is in README.md.
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

import fans  # noqa: E402
import numpy as np  # noqa: E402
from forecast import bundle, intervals  # noqa: E402
from forecast.folds import by_life, on_unseen  # noqa: E402
from forecast.network import Network  # noqa: E402
from forecast.scale import Scale  # noqa: E402
import validation  # noqa: E402
from view import View  # noqa: E402

VERSION = "1.0.0"
CREDIT = "lives of the simulator in this repository"
DAY = 144
CAP = 50.0 * DAY
#: Stretches are an hour long near the end, then an eighth longer each.
SCALE = Scale(
    edges=np.unique(np.round(np.concatenate([np.arange(0.0, 48.0, 6.0), np.geomspace(48.0, CAP, 42)]))),
    knots=(0.0, *np.round(np.geomspace(24.0, CAP, 14)).tolist()),
    spread_least=2.0,
    spread_rise=0.1,
    spread_most=600.0,
)
#: Of each life so many copies whose pace is another one.
REWRITTEN = 1
FOLDS = 3


class Learner(Network):
    """Heat tells damage to a hundredth: with more noise a life that speeds up is taken for one that has only bent."""

    NOISE = 0.06
    EPOCHS = 60


def lives_of(files: list[pathlib.Path], seed: int) -> list[fans.Life]:
    random, lives = np.random.default_rng(seed), fans.read(files)
    return lives + [fans.rewritten(life, random) for life in lives for _ in range(REWRITTEN)]


def fitted_view(rows: fans.Rows) -> View:
    whole = ~rows.rewritten
    healthy = whole & (rows.row > fans.BASELINE) & (rows.row <= fans.HEALTHY_LEAST)
    return View().fit(rows.features, rows.names, healthy, whole & (rows.remaining == 0))


def unseen(rows: fans.Rows, fold: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of the rows of exported lives, by networks that learned without their fold: chances of each stretch, mean, and place of the truth."""
    chances = on_unseen(Learner(SCALE, seed, fitted_view(rows)).fit, rows.features, rows.remaining, fold)[~rows.rewritten]
    return chances, intervals.mean(chances, SCALE), intervals.places(chances, SCALE, rows.remaining[~rows.rewritten], seed)


def train(rows: fans.Rows, specification: str, seed: int, training_data: str) -> dict[str, bytes]:
    """The files of the bundle."""
    whole = ~rows.rewritten
    laws, by_law = np.unique(rows.law, return_inverse=True)
    # What a copy is of leaves training with it: lives are numbered by what they are of.
    ways = {"life": by_life(rows.life, rows.law, FOLDS, seed), "law": by_law}
    left_out = {way: unseen(rows, fold, seed) for way, fold in ways.items()}

    def table(among: np.ndarray) -> np.ndarray:
        # As often of a law that was learned from as of one that was not: nobody knows by which one a machine wears.
        mean, place = (np.concatenate([found[column][among] for found in left_out.values()]) for column in (1, 2))
        return intervals.table(mean, place, np.concatenate([rows.life[whole][among] + 100_000 * way for way in range(len(ways))]), SCALE)

    metrics, fold = {}, ways["life"][whole]
    for way, (chances, _, _) in left_out.items():
        quantiles = np.empty((len(chances), len(intervals.LEVELS)))
        for one in range(FOLDS):
            judged = fold == one
            quantiles[judged] = intervals.quantiles(chances[judged], SCALE, table(~judged))
        for law in laws:
            metrics |= validation.figures(f"{law.lower()}_{way}", rows, quantiles, CAP, rows.law[whole] == law)
    identity = bundle.Identity(
        name="fan-rul",
        about="rows of ten minutes until a simulated fan fails by unbalance, from velocity, temperature and current: of no use for a real machine",
        age=False,
        failure_mode="unbalance that grows",
        unit="row",
        row="ten minutes",
        row_s=600.0,
        figures=(
            "On lives left out of training: `life`: others of their law were learned from; `law`: none was. `near`: rows of the last sixth of the record whose",
            "median is within 30 % of the truth; `coverage`: rows whose 80 % interval holds the truth, an open end holding all that is beyond it; `dated`: of the first",
            "ten days, healthy ones, without an open end.",
        ),
    )
    # No row of the data: the mean over lives with a week to go.
    golden = rows.features[whole & (np.abs(rows.remaining - 7 * DAY) < DAY)].mean(axis=0)[None, :]
    fitted = Learner(SCALE, seed, fitted_view(rows)).fit(rows.features, rows.remaining)
    origin = bundle.Origin(VERSION, training_data, CREDIT)
    return bundle.files(identity, origin, specification, fitted, table(np.ones(whole.sum(), bool)), golden, metrics)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--data", type=pathlib.Path, nargs="+", required=True, help="tables of `lives --export`")
    arguments.add_argument("--program", type=pathlib.Path, default="hark", help="the program, which computes the features [hark]")
    arguments.add_argument("--seed", type=int, default=1)
    arguments.add_argument("--out", type=pathlib.Path, default=fans.FOLDER, help="folder to write the bundle to")
    arguments = arguments.parse_args()
    began = time.monotonic()
    rows = fans.features(arguments.program, lives_of(arguments.data, arguments.seed))
    lives = len(np.unique(rows.life))
    print(f"{time.monotonic() - began:6.1f} s  {rows.features.shape[1]} features of {len(rows.features)} rows, {lives} lives", flush=True)
    training = f"{lives} simulated lives of fans by the laws {', '.join(np.unique(rows.law))}, and a copy of each whose pace is another one"
    files = train(rows, (fans.FOLDER / "features.toml").read_text(), arguments.seed, training)
    bundle.write(arguments.out, files)
    print(f"{time.monotonic() - began:6.1f} s  {sum(map(len, files.values())) / 1024:.0f} KiB")
    print(files["manifest.toml"].decode().split("[forecast.metrics]")[1].split("\n#")[0])


if __name__ == "__main__":
    main()
