"""Lives left out of training in turn: whole ones, since neighbouring rows are nearly the same."""

import numpy as np


def by_life(life: np.ndarray, kind: np.ndarray, count: int, seed: int) -> np.ndarray:
    """A fold, 0 to `count` - 1, for each row; a life is in one, and each fold has its share of the lives of every `kind`."""
    random = np.random.default_rng(seed)
    fold = np.zeros(len(life), dtype=int)
    for of_kind in np.unique(kind):
        for place, one in enumerate(random.permutation(np.unique(life[kind == of_kind]))):
            fold[life == one] = place % count
    return fold


def on_unseen(fitted, features: np.ndarray, target: np.ndarray, fold: np.ndarray) -> np.ndarray:
    """What is predicted of each row by the model that was `fitted(features, target)` without its fold."""
    parts, place = [], np.empty(len(fold), dtype=int)
    for left_out in np.unique(fold):
        seen = fold != left_out
        place[~seen] = np.arange((~seen).sum()) + sum(map(len, parts))
        parts.append(fitted(features[seen], target[seen]).predict(features[~seen]))
    return np.concatenate(parts)[place]
