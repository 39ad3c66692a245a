"""From the chance of each stretch of remaining life to quantiles that are kept on machines a model had not seen.

Where a true life falls in the distribution that was told of it is its place, 0 to 1. If distributions were right, places would be spread evenly; in truth a
network is too sure of itself here and too unsure there. So the levels that are asked for are replaced by the quantiles of the places of unseen lives, by
the remaining life that was predicted. They rise with the level and rows in between are interpolated, so quantiles never cross.
"""

import numpy as np
from onnx import helper, numpy_helper

from forecast.scale import Scale

#: Levels of the quantiles. 0.05 to 0.95 are the 90 % interval, 0.1 to 0.9 that of 80 %; the rest is for chances of failure within a horizon.
LEVELS = (0.01, 0.025, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 0.975, 0.99)
#: No stretch is less likely than this: where nothing is expected a quantile would be anywhere.
CHANCE_LEAST = 1e-7


def mean(chances: np.ndarray, scale: Scale) -> np.ndarray:
    """The estimate, up to where lives are cut."""
    return chances @ scale.middles


def places(chances: np.ndarray, scale: Scale, remaining: np.ndarray, seed: int) -> np.ndarray:
    """Where each life falls. A row has a range of places, and so have all lives beyond the cap together: one is drawn from it."""
    beyond = remaining >= scale.cap
    lower = np.where(beyond, 1 - chances[:, -1], below(chances, scale.edges, remaining - 1))
    upper = np.where(beyond, 1.0, below(chances, scale.edges, remaining))
    return lower + np.random.default_rng(seed).random(len(lower)) * (upper - lower)


def below(chances: np.ndarray, edges: np.ndarray, life: np.ndarray) -> np.ndarray:
    """The chance of at most `life`, a number for each row, within the edges."""
    stretch, row = np.clip(np.searchsorted(edges, life, side="right") - 1, 0, len(edges) - 2), np.arange(len(life))
    share = ((life - edges[stretch]) / np.diff(edges)[stretch]).clip(0.0, 1.0)
    return (np.cumsum(chances, axis=1) - chances)[row, stretch] + share * chances[row, stretch]


def table(predicted: np.ndarray, place: np.ndarray, life: np.ndarray, scale: Scale) -> np.ndarray:
    """Quantiles of the places, a row for each of the knots. Every life weighs the same in a row, however long it stayed there."""
    rows, knots = [], scale.knots
    for index, knot in enumerate(knots):
        near = np.unique([knots[max(index - 1, 0)], knot, knots[min(index + 1, len(knots) - 1)]])
        weight = np.interp(predicted, near, near == knot, left=0.0, right=0.0)
        inside = weight > 0
        if not inside.any():
            # No unseen life came there: the levels are taken as they are.
            rows.append(np.array(LEVELS))
            continue
        _, member = np.unique(life[inside], return_inverse=True)
        weight = weight[inside] / np.maximum(np.bincount(member, weight[inside]), 1.0)[member]
        rows.append(weighted_quantiles(place[inside], weight))
    return np.array(rows)


def weighted_quantiles(values: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Quantiles at LEVELS, each value standing in the middle of its weight."""
    order = np.argsort(values, kind="stable")
    values, weight = values[order], weight[order]
    place = (np.cumsum(weight) - 0.5 * weight) / weight.sum()
    return np.interp(LEVELS, place, values)


def quantiles(chances: np.ndarray, scale: Scale, rows: np.ndarray) -> np.ndarray:
    """What `graph_part` computes, for many rows at once."""
    predicted = mean(chances, scale)
    levels = np.stack([np.interp(predicted, scale.knots, rows[:, level]) for level in range(rows.shape[1])], axis=1)
    chances = np.maximum(chances, CHANCE_LEAST)
    before, total = np.zeros(len(chances)), np.zeros_like(levels)
    for chance, wide in zip(chances.T, np.diff(scale.edges), strict=False):
        total += ((levels - before[:, None]) / chance[:, None]).clip(0.0, 1.0) * wide
        before += chance
    return total


def graph_part(rows: np.ndarray, scale: Scale, chances: str, point: str, target: str) -> tuple[list, list]:
    """From `chances` (1 x stretches) to `point` (1 x 1) and the quantiles `target` (1 x levels)."""
    lower, upper = np.array([scale.knots[:-1]]), np.array([scale.knots[1:]])
    count = len(scale.edges)
    constants = {
        "zero": np.array(0.0),
        "one": np.array(1.0),
        "chance_least": np.array(CHANCE_LEAST),
        "middles": scale.middles[:, None],
        "lower_predicted": lower,
        "upper_predicted": upper,
        "first_levels": rows[:1],
        "levels_rise": np.diff(rows, axis=0) / (upper - lower).T,
        "column": np.array([len(LEVELS), 1], np.int64),
        "row": np.array([1, len(LEVELS)], np.int64),
        "stretches_before": np.triu(np.ones((count, count)), 1),
        # What is beyond the cap adds nothing: a quantile there stops at it.
        "wide": np.append(np.diff(scale.edges), 0.0)[:, None],
    }
    steps = [
        helper.make_node("MatMul", [chances, "middles"], [point]),
        # How far the estimate has come between each two knots; times the rise there, summed, this interpolates.
        helper.make_node("Max", [point, "lower_predicted"], ["from_lower"]),
        helper.make_node("Min", ["from_lower", "upper_predicted"], ["within"]),
        helper.make_node("Sub", ["within", "lower_predicted"], ["predicted_come"]),
        helper.make_node("MatMul", ["predicted_come", "levels_rise"], ["levels_risen"]),
        helper.make_node("Add", ["levels_risen", "first_levels"], ["levels_row"]),
        helper.make_node("Reshape", ["levels_row", "column"], ["levels"]),
        # Which share of each stretch lies below each level.
        helper.make_node("Max", [chances, "chance_least"], ["possible"]),
        helper.make_node("MatMul", ["possible", "stretches_before"], ["before"]),
        helper.make_node("Sub", ["levels", "before"], ["over"]),
        helper.make_node("Div", ["over", "possible"], ["share"]),
        helper.make_node("Max", ["share", "zero"], ["share_not_negative"]),
        helper.make_node("Min", ["share_not_negative", "one"], ["share_below"]),
        helper.make_node("MatMul", ["share_below", "wide"], ["quantile_column"]),
        helper.make_node("Reshape", ["quantile_column", "row"], [target]),
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
