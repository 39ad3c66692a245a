"""Two bundles on the same lives, which neither was trained on, and whether one of them is worse.

An error counts against remaining life cut where the bundle's mean is, in rows of life. Every life weighs the same, however long it is. Noise is what comes of
drawing lives anew (bootstrap, in pairs: both bundles on the same lives).
"""

import dataclasses
import pathlib
import tomllib

import numpy as np
import onnxruntime
from history import Fault, Life

RESAMPLES = 2_000
#: The candidate may exceed the active bundle by so much, where noise could be the reason.
RMSE_MOST, WINKLER_MOST = 1.05, 1.10
#: Of the rows that the active bundle answers, so many the candidate may leave without an answer.
UNANSWERED_MOST = 0.01
INTERVALS = {80: (0.1, 0.9), 90: (0.05, 0.95)}


class Bundle:
    """A forecasting bundle, run by onnxruntime."""

    def __init__(self, folder: pathlib.Path):
        try:
            manifest = tomllib.loads((folder / "manifest.toml").read_text())
            self.name, self.version, self.forecast = manifest["name"], manifest["version"], manifest["forecast"]
        except (KeyError, tomllib.TOMLDecodeError) as error:
            raise Fault(f"`{folder}` holds no bundle that forecasts: {error}") from error
        self.specification = (folder / self.forecast["features"]).read_text()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.session = onnxruntime.InferenceSession((folder / "model.onnx").read_bytes(), options, providers=["CPUExecutionProvider"])

    def answers(self, matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Estimate of each row and its quantiles at the bundle's levels; NaN where a row has no features."""
        point, quantiles = np.full(len(matrix), np.nan), np.full((len(matrix), len(self.forecast["levels"])), np.nan)
        for row in np.flatnonzero(~np.isnan(matrix).any(axis=1)):
            found = self.session.run(["remaining_life", "quantiles"], {"features": matrix[row : row + 1]})
            point[row], quantiles[row] = found[0][0, 0], found[1][0]
        return point, quantiles


@dataclasses.dataclass
class Figures:
    """Means over the judged rows of each life, one number a life."""

    square: np.ndarray
    score: np.ndarray
    covered: dict[int, np.ndarray]
    width: dict[int, np.ndarray]
    winkler: dict[int, np.ndarray]

    def rmse(self, drawn=slice(None)) -> float:
        return float(np.sqrt(self.square[drawn].mean()))

    def winkler_90(self, drawn=slice(None)) -> float:
        return float(self.winkler[90][drawn].mean())


def figures(truth: list[np.ndarray], points: list[np.ndarray], ranges: dict[int, list[tuple[np.ndarray, np.ndarray]]]) -> Figures:
    """Of each life: capped truth, estimates, and lower and upper ends of the intervals by their nominal per cent."""
    late = [point - of_life for point, of_life in zip(points, truth, strict=True)]
    # The score of C-MAPSS: to say too late costs more than to say too early.
    score = np.array([np.where(error < 0, np.expm1(-error / 13), np.expm1(error / 10)).mean() for error in late])
    found = Figures(np.array([(error**2).mean() for error in late]), score, {}, {}, {})
    for nominal, of_lives in ranges.items():
        covered, width, winkler = [], [], []
        for of_life, (lower, upper) in zip(truth, of_lives, strict=True):
            beyond = np.maximum(lower - of_life, 0) + np.maximum(of_life - upper, 0)
            covered.append(((lower <= of_life) & (of_life <= upper)).mean())
            width.append((upper - lower).mean())
            winkler.append((upper - lower + 2 / (1 - nominal / 100) * beyond).mean())
        found.covered[nominal], found.width[nominal], found.winkler[nominal] = np.array(covered), np.array(width), np.array(winkler)
    return found


def of_bundle(bundle: Bundle, answers: list[tuple[np.ndarray, np.ndarray]], truth: list[np.ndarray], judged: list[np.ndarray]) -> Figures:
    """`judged`: of each life the rows that count."""
    levels = bundle.forecast["levels"]

    def level(wanted: float) -> list[np.ndarray]:
        return [quantiles[rows, levels.index(wanted)] for (_, quantiles), rows in zip(answers, judged, strict=True)]

    ranges = {nominal: list(zip(level(low), level(high), strict=True)) for nominal, (low, high) in INTERVALS.items()}
    points = [point[rows] for (point, _), rows in zip(answers, judged, strict=True)]
    return figures([of_life[rows] for of_life, rows in zip(truth, judged, strict=True)], points, ranges)


def of_constant(trained: list[Life], cap: float, truth: list[np.ndarray], judged: list[np.ndarray]) -> Figures:
    """What says the same of every row: median and quantiles of the lives in training."""
    known = np.concatenate([np.minimum(life.remaining(), cap) for life in trained])
    counted = [of_life[rows] for of_life, rows in zip(truth, judged, strict=True)]

    def same(level: float) -> list[np.ndarray]:
        return [np.full(len(of_life), np.quantile(known, level)) for of_life in counted]

    return figures(counted, same(0.5), {nominal: list(zip(same(low), same(high), strict=True)) for nominal, (low, high) in INTERVALS.items()})


@dataclasses.dataclass(frozen=True)
class Ratio:
    """The candidate's figure as a multiple of the other one's, with its 95 % interval."""

    what: str
    value: float
    low: float
    high: float
    most: float

    def is_worse(self) -> bool:
        return self.value > self.most or self.low > 1


def ratios(candidate: Figures, other: Figures) -> list[Ratio]:
    random, lives = np.random.default_rng(0), len(candidate.square)
    drawn = [random.integers(lives, size=lives) for _ in range(RESAMPLES)]
    found = []
    for what, of, most in (("RMSE", Figures.rmse, RMSE_MOST), ("Winkler score of the 90 % interval", Figures.winkler_90, WINKLER_MOST)):
        low, high = np.quantile([of(candidate, rows) / of(other, rows) for rows in drawn], [0.025, 0.975])
        found.append(Ratio(what, of(candidate) / of(other), low, high, most))
    return found
