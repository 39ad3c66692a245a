"""Figures on lives that were left out of training, every life weighing the same, for the manifest."""

import fans
import numpy as np
from forecast import intervals


def figures(name: str, rows: fans.Rows, quantiles: np.ndarray, cap: float, among: np.ndarray) -> dict[str, float]:
    """`quantiles` and `among` are of the exported lives alone. Where wear begins is not in the tables: the last sixth of a record is near the last third of it."""
    whole = ~rows.rewritten
    life, remaining, row = (known[whole][among] for known in (rows.life, rows.remaining, rows.row))
    p10, p50, p90 = (quantiles[among, intervals.LEVELS.index(level)] for level in (0.1, 0.5, 0.9))
    late = remaining < (remaining + row) / 6
    near = np.abs(p50 - remaining) <= 0.3 * np.maximum(remaining, 1)
    held = (p10 <= remaining) & ((remaining <= p90) | (p90 >= cap))
    return {
        f"{name}_near": round(mean_of_lives(near[late], life[late]), 3),
        f"{name}_coverage_80": round(mean_of_lives(held, life), 3),
        f"{name}_dated": round(mean_of_lives((p90 < cap)[row <= fans.HEALTHY_LEAST], life[row <= fans.HEALTHY_LEAST]), 4),
    }


def mean_of_lives(values: np.ndarray, life: np.ndarray) -> float:
    _, member = np.unique(life, return_inverse=True)
    return float(np.mean(np.bincount(member, values) / np.bincount(member)))
