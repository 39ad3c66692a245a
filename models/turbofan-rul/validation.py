"""Figures on engines that were left out of training, every engine weighing the same, for the manifest."""

import numpy as np

import engines
from forecast import intervals

#: Of an engine so many cycles go by before it is judged, and a test half has hardly more to go than that.
FIRST, MOST = 20, 150
HORIZONS = (10, 30, 50)


def figures(rows: engines.Rows, predicted: np.ndarray, quantiles: np.ndarray, cut: float) -> dict[str, float]:
    """By set, of engines watched from their first cycle on and (`late`) of those that were not; over all sets also of chances."""
    found = {}
    for subset in (*np.unique(rows.subset), "all"):
        of_set = (rows.subset == subset) | (subset == "all")
        for prefix, among in ((subset.lower(), of_set & ~rows.late), (subset.lower() + "_late", of_set & rows.late)):
            found[f"{prefix}_rmse"], found[f"{prefix}_rmse_like_test"] = errors(rows, predicted, cut, among)
            judged = among & (rows.cycle >= FIRST)
            for which, chosen in (("", judged), ("_below_cut", judged & (rows.remaining < cut))):
                found |= {f"{prefix}_{name}{which}": value for name, value in intervals_kept(rows, quantiles, chosen).items()}
    whole = ~rows.late
    for horizon in HORIZONS:
        chance, happened = intervals.chance_within(horizon, quantiles[whole]), rows.remaining[whole] <= horizon
        found[f"all_brier_skill_{horizon}"] = round(float(1 - np.mean((chance - happened) ** 2) / np.var(happened)), 3)
    return found


def intervals_kept(rows: engines.Rows, quantiles: np.ndarray, among: np.ndarray) -> dict[str, float]:
    """Coverage of the 80 % and the 90 % interval, and width of the latter."""
    truth, weight, found = rows.remaining[among], by_engine(rows.engine[among]), {}
    for nominal, low, high in (("80", 0.1, 0.9), ("90", 0.05, 0.95)):
        lower, upper = (quantiles[among, intervals.LEVELS.index(level)] for level in (low, high))
        found[f"coverage_{nominal}"] = round(float(np.average((lower <= truth) & (truth <= upper), weights=weight)), 3)
    return found | {"width_90": round(float(np.average(upper - lower, weights=weight)), 1)}


def errors(rows: engines.Rows, predicted: np.ndarray, cut: float, among: np.ndarray) -> tuple[float, float]:
    """RMSE over all cycles, and over those from the 20th on with at most 150 to go, as in the test halves."""
    found = []
    for chosen in (among, among & (rows.cycle >= FIRST) & (rows.remaining <= MOST)):
        error = np.minimum(rows.remaining[chosen], cut) - predicted[chosen]
        found.append(round(float(np.sqrt(np.average(error**2, weights=by_engine(rows.engine[chosen])))), 2))
    return tuple(found)


def by_engine(engine: np.ndarray) -> np.ndarray:
    """Weights by which every engine counts the same."""
    _, member = np.unique(engine, return_inverse=True)
    return 1.0 / np.bincount(member)[member]
