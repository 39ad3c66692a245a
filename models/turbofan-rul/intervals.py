"""From a point estimate to a distribution: quantiles of the errors that were made on engines a model had not seen.

An error is measured in multiples of a scale, which is predicted too, and its quantiles depend on the predicted remaining life: near the end they are narrow,
in the middle wide, at the cap one-sided. In the table quantiles of one row rise with the level, rows in between are interpolated, and the scale is
positive, so quantiles never cross.
"""

import numpy as np
from onnx import helper, numpy_helper

#: Levels of the quantiles. 0.05 to 0.95 are the 90 % interval, 0.1 to 0.9 that of 80 %; the rest is for chances of failure within a horizon.
LEVELS = (0.01, 0.025, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 0.975, 0.99)
#: Predicted remaining lives that have a row of the table.
KNOTS = (0.0, 6.0, 12.0, 20.0, 30.0, 40.0, 50.0, 60.0, 70.0, 80.0, 90.0, 100.0, 110.0, 118.0, 125.0)
SCALE_MIN = 0.5


def table(predicted: np.ndarray, scale: np.ndarray, truth: np.ndarray, engine: np.ndarray) -> np.ndarray:
    """Quantiles of (truth - predicted) / scale, a row for each of KNOTS. Every engine weighs the same in a row, however long it stayed there."""
    error = (truth - predicted) / scale
    rows = []
    for index, knot in enumerate(KNOTS):
        below, above = KNOTS[max(index - 1, 0)], KNOTS[min(index + 1, len(KNOTS) - 1)]
        weight = np.interp(predicted, np.unique([below, knot, above]), [float(x == knot) for x in np.unique([below, knot, above])], left=0.0, right=0.0)
        weight[predicted == knot] = 1.0
        inside = weight > 0
        _, member = np.unique(engine[inside], return_inverse=True)
        weight = weight[inside] / np.maximum(np.bincount(member, weight[inside]), 1.0)[member]
        rows.append(weighted_quantiles(error[inside], weight))
    return np.array(rows)


def weighted_quantiles(values: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Quantiles at LEVELS, each value standing in the middle of its weight."""
    order = np.argsort(values, kind="stable")
    values, weight = values[order], weight[order]
    place = (np.cumsum(weight) - 0.5 * weight) / weight.sum()
    return np.interp(LEVELS, place, values)


def quantiles(predicted: np.ndarray, scale: np.ndarray, rows: np.ndarray, cap: float) -> np.ndarray:
    """What `graph_part` computes, for many rows at once."""
    error = np.stack([np.interp(predicted, KNOTS, rows[:, level]) for level in range(rows.shape[1])], axis=1)
    return np.clip(predicted[:, None] + scale[:, None] * error, 0.0, cap)


def graph_part(rows: np.ndarray, cap: float, sums: str, point: str, target: str) -> tuple[list, list]:
    """From `sums` (1 x 2: estimate, scale) to `point` (1 x 1) and the quantiles `target` (1 x levels)."""
    lower, upper = np.array([KNOTS[:-1]]), np.array([KNOTS[1:]])
    constants = {
        "zero": np.array(0.0),
        "cap": np.array(cap),
        "scale_min": np.array(SCALE_MIN),
        "first": np.array([0], np.int64),
        "second": np.array([1], np.int64),
        "lower_knot": lower,
        "upper_knot": upper,
        "first_row": rows[:1],
        "rise": np.diff(rows, axis=0) / (upper - lower).T,
    }
    steps = [
        helper.make_node("Gather", [sums, "first"], ["estimate"], axis=1),
        helper.make_node("Max", ["estimate", "zero"], ["not_negative"]),
        helper.make_node("Min", ["not_negative", "cap"], [point]),
        helper.make_node("Gather", [sums, "second"], ["raw_scale"], axis=1),
        helper.make_node("Max", ["raw_scale", "scale_min"], ["scale"]),
        # How far the estimate has come in each stretch between two knots; times the rise in each, summed, this interpolates.
        helper.make_node("Max", [point, "lower_knot"], ["from_lower"]),
        helper.make_node("Min", ["from_lower", "upper_knot"], ["within"]),
        helper.make_node("Sub", ["within", "lower_knot"], ["come"]),
        helper.make_node("MatMul", ["come", "rise"], ["risen"]),
        helper.make_node("Add", ["risen", "first_row"], ["error"]),
        helper.make_node("Mul", ["error", "scale"], ["scaled_error"]),
        helper.make_node("Add", ["scaled_error", point], ["free"]),
        helper.make_node("Max", ["free", "zero"], ["free_not_negative"]),
        helper.make_node("Min", ["free_not_negative", "cap"], [target]),
    ]
    return steps, [numpy_helper.from_array(value, name) for name, value in constants.items()]


def chance_within(horizon: float, values: np.ndarray) -> np.ndarray:
    """P(remaining life <= horizon) from quantiles (rows x LEVELS): their levels interpolated, at the ends half of what is beyond them."""
    levels = np.array(LEVELS)
    above = (values <= horizon).sum(axis=1)
    inner = np.clip(above, 1, len(levels) - 1)
    row = np.arange(len(values))
    low, high = values[row, inner - 1], values[row, inner]
    share = np.clip((horizon - low) / np.where(high > low, high - low, 1.0), 0.0, 1.0)
    chance = levels[inner - 1] + share * (levels[inner] - levels[inner - 1])
    return np.where(above == 0, levels[0] / 2, np.where(above == len(levels), (1 + levels[-1]) / 2, chance))
