"""What `models/retrain` asks of this folder: a bundle made anew from any history of turbofan engines."""

import dataclasses

import engines
import numpy as np
import train
from forecast import bundle
from history import Fault, History, Life

import features

#: What a history must have, with units.
POINTS = {name: unit for name, unit, _ in engines.SETTINGS} | dict(engines.POINTS)
#: Names of the bundles, and whether the age of a life must be known.
BUNDLES = {f"turbofan-rul-{variant}": age for variant, age in train.VARIANTS.items()}
#: The golden input is made of rows with so much to go.
LONGEST_AT_LEAST = 41


def bundle_files(name: str, history: History, program: str, seed: int) -> dict[str, bytes]:
    """The files of the bundle `name`, trained on the lives that failed, with flight conditions found in them."""
    lives = history.failed()
    if all(len(life.values) < LONGEST_AT_LEAST for life in lives):
        raise Fault(f"the longest life has {max(len(life.values) for life in lives)} rows; expected {LONGEST_AT_LEAST} at least")
    specification = engines.specification(as_files_have_them(history.points, lives), age=True)
    late = late_copies(lives, seed)
    matrices, _ = features.of_lives(program, lives + late, history.points, specification)
    rows = known(lives + late, matrices, len(lives))
    training = f"{len(lives)} lives that ended in failure, SHA-256 {history.digest()}"
    origin = bundle.Origin(f"{train.VERSION}+{history.digest()[:12]}", training, "the operator of the machines")
    return train.train(name, BUNDLES[name], rows, specification, seed, origin)


def as_files_have_them(points: tuple[str, ...], lives: list[Life]) -> np.ndarray:
    """Whole rows as in the files of C-MAPSS: unit, cycle, settings, sensors; those that no model uses are missing."""
    values = np.concatenate([life.values for life in lives])
    values = values[~np.isnan(values[:, [points.index(point) for point in POINTS]]).any(axis=1)]
    names = [name for name, *_ in engines.SETTINGS] + [name for name, _ in engines.SENSORS]
    columns = [values[:, points.index(name)] if name in POINTS else np.full(len(values), np.nan) for name in names]
    return np.stack([np.zeros(len(values)), np.zeros(len(values)), *columns], axis=1)


def late_copies(lives: list[Life], seed: int) -> list[Life]:
    """Each life as if it had been watched only from some cycle on."""
    random, copies = np.random.default_rng(seed), []
    for life in lives:
        begin = int(random.uniform(0, engines.LATE_MOST) * len(life.values))
        copies.append(dataclasses.replace(life, first_row=(life.first_row or 1) + begin, time=life.time[begin:], values=life.values[begin:]))
    return copies


def known(lives: list[Life], matrices: list[np.ndarray], whole: int) -> engines.Rows:
    """Rows that have features, and what is known of each; the lives after the first `whole` are the late copies of these."""
    parts = []
    for number, (life, matrix) in enumerate(zip(lives, matrices, strict=True)):
        there = ~np.isnan(matrix).any(axis=1)
        cycle = (life.first_row or 1) + np.arange(len(matrix))
        same = [np.full(len(matrix), value) for value in (number % whole, "all", number >= whole)]
        parts.append([column[there] for column in (matrix, same[0], cycle, life.remaining(), same[1], same[2])])
    matrix, engine, cycle, remaining, subset, late = (np.concatenate(column) for column in zip(*parts, strict=True))
    return engines.Rows(matrix, [], engine, cycle, remaining, subset, late)
