"""The other candidate: a small network on rank-Gauss inputs, with a distribution over stretches of remaining life as its output.

Each input goes through a piecewise-linear line from its quantiles to those of the normal distribution, noise is added while it learns, and the output is a
softmax over stretches of five cycles up to the cap, whose mean is the estimate. Written in numpy, so that the same seed gives the same numbers.
"""

import numpy as np
from scipy.special import ndtr, ndtri

KNOTS = 16
HIDDEN = (64, 32)
STRETCH = 5.0
#: Targets are spread by so many cycles: neighbouring stretches are nearly right.
SPREAD = 6.0
NOISE = 0.3
DECAY = 0.02
RATE = 2e-3
EPOCHS = 30
#: Rows of an epoch, drawn anew each time, and of a step.
ROWS = 40_000
BATCH = 256


class Network:
    """Fitted by `fit`; `predict` gives the mean of the distribution."""

    def __init__(self, cap: float, seed: int):
        self.random = np.random.default_rng(seed)
        self.edges = np.arange(STRETCH, cap + 1, STRETCH)
        self.middles = np.append(self.edges - STRETCH / 2, cap).astype(np.float32)

    def fit(self, features: np.ndarray, target: np.ndarray) -> "Network":
        levels = np.concatenate([[0.002], (np.arange(KNOTS) + 0.5) / KNOTS, [0.998]])
        self.knots, self.normal = np.quantile(features[::7], levels, axis=0), ndtri(levels)
        inputs, wanted = self.inputs(features), self.wanted(target)
        sizes = (inputs.shape[1], *HIDDEN, len(self.middles))
        self.weights = []
        for ins, outs in zip(sizes, sizes[1:], strict=False):
            self.weights += [(self.random.standard_normal((ins, outs)) * np.sqrt(2 / ins)).astype(np.float32), np.zeros(outs, np.float32)]
        first, second = ([np.zeros_like(weight) for weight in self.weights] for _ in range(2))
        steps = EPOCHS * (ROWS // BATCH)
        for step in range(1, steps + 1):
            rows = self.random.integers(len(inputs), size=BATCH)
            batch = inputs[rows] + NOISE * self.random.standard_normal((BATCH, inputs.shape[1]), dtype=np.float32)
            rate = RATE * 0.5 * (1 + np.cos(np.pi * step / steps)) * min(1.0, step / 200)
            for weight, slope, mean, square in zip(self.weights, self.slopes(batch, wanted[rows]), first, second, strict=True):
                mean += 0.1 * (slope - mean)
                square += 0.01 * (slope * slope - square)
                weight -= rate * (mean / (1 - 0.9**step) / (np.sqrt(square / (1 - 0.99**step)) + 1e-8) + (DECAY * weight if weight.ndim > 1 else 0.0))
        return self

    def predict(self, features: np.ndarray) -> np.ndarray:
        return softmax(self.layers(self.inputs(features))[-1]) @ self.middles

    def inputs(self, features: np.ndarray) -> np.ndarray:
        """Rank-Gauss. Quantiles that coincide take the mean of their normal quantiles."""
        result = np.empty(features.shape, np.float32)
        for column in range(features.shape[1]):
            places, member = np.unique(self.knots[:, column], return_inverse=True)
            result[:, column] = np.interp(features[:, column], places, np.bincount(member, self.normal) / np.bincount(member))
        return result

    def wanted(self, target: np.ndarray) -> np.ndarray:
        """Chance of each stretch, the last for all that is beyond the cap."""
        below = ndtr((self.edges - target[:, None]) / SPREAD)
        return np.diff(below, axis=1, prepend=0.0, append=1.0).astype(np.float32)

    def layers(self, batch: np.ndarray) -> list[np.ndarray]:
        values = [batch]
        for weight, bias in zip(self.weights[0::2], self.weights[1::2], strict=True):
            values.append(values[-1] @ weight + bias if len(values) == len(HIDDEN) + 1 else np.maximum(values[-1] @ weight + bias, 0))
        return values

    def slopes(self, batch: np.ndarray, wanted: np.ndarray) -> list[np.ndarray]:
        values = self.layers(batch)
        back, slopes = (softmax(values[-1]) - wanted) / len(batch), []
        for layer in reversed(range(len(values) - 1)):
            slopes = [values[layer].T @ back, back.sum(axis=0), *slopes]
            back = (back @ self.weights[2 * layer].T) * (values[layer] > 0)
        return slopes


def softmax(values: np.ndarray) -> np.ndarray:
    raised = np.exp(values - values.max(axis=1, keepdims=True))
    return raised / raised.sum(axis=1, keepdims=True)
