"""Stage A in numpy, so that settings which the program has fixed can be tried: a copy of `agent/src/inference/{baseline,validation,regression,limit}.rs`
for machines of which every point has a value in every row. `held_out.py` asserts that it gives the program's own answers under the shipped setting.
Needs numpy.
"""

import dataclasses

import numpy as np

LAGS = 3
FOLDS = 5
RIDGES = (1.0, 10.0, 100.0, 1000.0)
#: Of the mean residual variance so much is mixed into the covariance; no residual variance is less, in squared z-scores.
SHRINKAGE, VARIANCE_MIN = 0.05, 1e-6
#: Smoothed scores that say nothing yet.
SETTLING = 20
#: A longer gap begins a window anew, in grids.
GAP_GRIDS_MAX = 5
#: A point that did not move gets so much of its mean as its deviation; less than the second number of it is rounding.
STILL_FRACTION, STILL_SPREAD = 0.01, 1e-9


@dataclasses.dataclass
class Residuals:
    """Whitened residuals of one channel, windows x points, not yet over a limit."""

    #: Of windows of commissioning, by fits that had not seen them.
    unseen: np.ndarray
    #: Of the same windows and then of all others, by the fit on all of commissioning.
    fitted: np.ndarray


def channels(values, times, learned, grid_s=1.0):
    """The fast and the slow channel's residuals of a machine, and which of its rows have them.

    `values`: rows x points; `times`: seconds; the first `learned` rows are commissioning.
    """
    z = scaled(values, learned)
    slots = np.floor(np.asarray(times) / grid_s)
    starts = np.flatnonzero(np.diff(slots, prepend=-np.inf) > GAP_GRIDS_MAX)
    rows = np.arange(len(z))
    whole = rows[rows - starts[np.searchsorted(starts, rows, side="right") - 1] >= LAGS]
    history = np.hstack([z[whole - lag] for lag in range(LAGS, 0, -1)])
    count = int((whole < learned).sum())
    return [channel(history, z[whole], count, follows) for follows in (True, False)], whole


def scaled(values, learned):
    """z-scores against the commissioning rows."""
    mean, spread = values[:learned].mean(axis=0), values[:learned].std(axis=0)
    moves = spread > STILL_SPREAD * np.maximum(np.abs(mean), np.finfo(float).tiny)
    unit = np.where(mean == 0.0, 1.0, STILL_FRACTION * np.abs(mean))
    return (values - mean) / np.where(moves, spread, unit)


def channel(history, target, count, follows):
    """Cross-validation in blocks chooses the penalty and gives the unseen residuals; the first `count` windows are commissioning."""
    blocks = [np.arange(count * fold // FOLDS, count * (fold + 1) // FOLDS) for fold in range(FOLDS)]
    # The first windows of a block have a history that reaches into the block before.
    inner = [block[LAGS:] for block in blocks]
    others = [np.concatenate(inner[:fold] + inner[fold + 1 :]) for fold in range(FOLDS)]
    prior = persistence(history[:count], target[:count]) if follows else np.zeros(target.shape[1])

    def left(of, rows):
        weights, bias = of
        return target[rows] - history[rows] @ weights - bias

    def error(fits):
        return sum((left(of, rows) ** 2).mean(axis=0).sum() for of, rows in zip(fits, inner))

    candidates = {ridge: [fit(history[rows], target[rows], prior, ridge) for rows in others] for ridge in RIDGES}
    ridge = min(RIDGES, key=lambda ridge: error(candidates[ridge]))
    unseen = [left(of, block) @ whitening(left(of, rows)) for of, block, rows in zip(candidates[ridge], blocks, others)]
    whole = fit(history[:count], target[:count], prior, ridge)
    return Residuals(np.vstack(unseen), left(whole, slice(None)) @ whitening(left(whole, slice(count))))


def persistence(history, target):
    """How much of each point's newest value is there again in the next row, 0 to 1."""
    newest = history[:, -target.shape[1] :]
    square = (newest**2).sum(axis=0)
    return np.clip((newest * target).sum(axis=0) / np.where(square > 0.0, square, np.inf), 0.0, 1.0)


def fit(history, target, prior, ridge):
    """Weights and bias under a penalty that draws each point to so much of its own newest value."""
    mean, level = history.mean(axis=0), target.mean(axis=0)
    penalised = history.T @ history - len(history) * np.outer(mean, mean) + ridge * np.eye(history.shape[1])
    toward = history.T @ target - len(history) * np.outer(mean, level)
    toward[-target.shape[1] :] += ridge * np.diag(prior)
    weights = np.linalg.solve(penalised, toward)
    return weights, level - mean @ weights


def whitening(residuals):
    """The symmetric inverse root of their shrunk mean products."""
    covariance = residuals.T @ residuals / len(residuals)
    covariance += SHRINKAGE * np.trace(covariance) / len(covariance) * np.eye(len(covariance))
    values, vectors = np.linalg.eigh(covariance)
    return (vectors / np.sqrt(np.maximum(values, VARIANCE_MIN))) @ vectors.T
