"""Small networks with a distribution over stretches of remaining life as their output.

Each input goes through a piecewise-linear line from its quantiles to those of the normal distribution (rank-Gauss), noise is added while the networks learn,
and each ends in a softmax over stretches of life, the last for all lives beyond the cap. Their distributions are averaged. Written in numpy, so that the same
seed gives the same numbers.
"""

import numpy as np
from onnx import TensorProto, helper, numpy_helper
from scipy.special import ndtri

from forecast.scale import Scale

KNOTS = 16
HIDDEN = (64, 32)
DECAY = 0.02
RATE = 2e-3
#: Rows of an epoch, drawn anew each time, and of a step.
ROWS = 40_000
BATCH = 256


class Network:
    """Fitted by `fit`; `predict` gives for each row the chance of each stretch.

    A bundle that needs other numbers than these has a class of its own that names them.

    A `view` stands between features and networks where they should look at something made of features: `of` makes it of many rows, `graph_part` in the graph.
    """

    #: Networks side by side, told apart by what they begin with and by their noise.
    MEMBERS = 3
    #: Of the normal values that go in.
    NOISE = 0.1
    EPOCHS = 30

    def __init__(self, scale: Scale, seed: int, view=None):
        self.scale, self.seed, self.view = scale, seed, view

    def fit(self, features: np.ndarray, remaining: np.ndarray) -> "Network":
        random, features = np.random.default_rng(self.seed), self.seen(features)
        levels = np.concatenate([[0.002], (np.arange(KNOTS) + 0.5) / KNOTS, [0.998]])
        # What goes into the graph is rounded to its precision here, so that what is learned is what runs.
        self.knots = np.quantile(features[::7], levels, axis=0).astype(np.float32).astype(float)
        normal, wide = ndtri(levels), np.diff(self.knots, axis=0)
        self.least = normal[0]
        self.rise = np.divide(np.diff(normal)[:, None], wide, out=np.zeros_like(wide), where=wide > 0).astype(np.float32).astype(float)
        inputs, wanted = self.inputs(features).astype(np.float32), self.scale.wanted(remaining)
        sizes = (inputs.shape[1], *HIDDEN, len(self.scale.edges))
        self.weights = []
        for ins, outs in zip(sizes, sizes[1:], strict=False):
            weight = random.standard_normal((self.MEMBERS, ins, outs)) * np.sqrt(2 / ins)
            self.weights += [weight.astype(np.float32), np.zeros((self.MEMBERS, 1, outs), np.float32)]
        first, second = ([np.zeros_like(weight) for weight in self.weights] for _ in range(2))
        steps = self.EPOCHS * (ROWS // BATCH)
        for step in range(1, steps + 1):
            rows = random.integers(len(inputs), size=BATCH)
            batch = inputs[rows] + self.NOISE * random.standard_normal((self.MEMBERS, BATCH, inputs.shape[1]), dtype=np.float32)
            rate = RATE * 0.5 * (1 + np.cos(np.pi * step / steps)) * min(1.0, step / 200)
            for weight, slope, mean, square in zip(self.weights, self.slopes(batch, wanted[rows]), first, second, strict=True):
                mean += 0.1 * (slope - mean)
                square += 0.01 * (slope * slope - square)
                weight -= rate * (mean / (1 - 0.9**step) / (np.sqrt(square / (1 - 0.99**step)) + 1e-8) + (DECAY * weight if weight.shape[1] > 1 else 0.0))
        return self

    def predict(self, features: np.ndarray) -> np.ndarray:
        """What `graph_part` computes, for many rows at once."""
        parts = np.array_split(features, len(features) // 10_000 + 1)
        return np.concatenate([softmax(self.layers(self.inputs(self.seen(part)))[-1]).mean(axis=0) for part in parts])

    def seen(self, features: np.ndarray) -> np.ndarray:
        return features if self.view is None else self.view.of(features)

    def inputs(self, features: np.ndarray) -> np.ndarray:
        """Rank-Gauss: how far a feature has come between each two knots, times the rise there, summed from the least value on."""
        return self.least + sum((features.clip(lower, upper) - lower) * rise for lower, upper, rise in zip(self.knots, self.knots[1:], self.rise, strict=False))

    def layers(self, batch: np.ndarray) -> list[np.ndarray]:
        values = [batch]
        for weight, bias in zip(self.weights[0::2], self.weights[1::2], strict=True):
            values.append(values[-1] @ weight + bias if len(values) == len(HIDDEN) + 1 else np.maximum(values[-1] @ weight + bias, 0))
        return values

    def slopes(self, batch: np.ndarray, wanted: np.ndarray) -> list[np.ndarray]:
        values = self.layers(batch)
        back, slopes = (softmax(values[-1]) - wanted) / len(wanted), []
        for layer in reversed(range(len(values) - 1)):
            slopes = [values[layer].swapaxes(1, 2) @ back, back.sum(axis=1, keepdims=True), *slopes]
            if layer:
                back = (back @ self.weights[2 * layer].swapaxes(1, 2)) * (values[layer] > 0)
        return slopes

    def graph_part(self, source: str, target: str) -> tuple[list, list]:
        """From the features `source` (1 x F) to the chance of each stretch `target` (1 x S). Numbers are stored in single precision and cast when loaded."""
        constants, steps, of_view = {}, [], []
        if self.view is not None:
            steps, of_view = self.view.graph_part(source, "seen")
            source = "seen"

        def stored(name: str, value: np.ndarray) -> str:
            constants[f"{name}_single"] = value.astype(np.float32)
            steps.append(helper.make_node("Cast", [f"{name}_single"], [name], to=TensorProto.DOUBLE))
            return name

        steps += [
            helper.make_node("Max", [source, stored("lower_knots", self.knots[:-1])], ["from_lower_knot"]),
            helper.make_node("Min", ["from_lower_knot", stored("upper_knots", self.knots[1:])], ["within_knots"]),
            helper.make_node("Sub", ["within_knots", "lower_knots"], ["come"]),
            helper.make_node("Mul", ["come", stored("knot_rise", self.rise)], ["risen"]),
            helper.make_node("MatMul", [stored("each_once", np.ones((1, len(self.rise)))), "risen"], ["risen_in_all"]),
            helper.make_node("Add", ["risen_in_all", "least"], ["layer_0"]),
        ]
        count = len(self.weights) // 2
        for layer in range(count):
            weight, bias = (stored(f"{name}_{layer}", self.weights[2 * layer + index]) for index, name in enumerate(("weight", "bias")))
            steps.append(helper.make_node("MatMul", [f"layer_{layer}", weight], [f"weighed_{layer}"]))
            steps.append(helper.make_node("Add", [f"weighed_{layer}", bias], [f"sum_{layer}"]))
            if layer < count - 1:
                steps.append(helper.make_node("Relu", [f"sum_{layer}"], [f"layer_{layer + 1}"]))
        steps += [
            helper.make_node("Softmax", [f"sum_{count - 1}"], ["of_member"], axis=2),
            helper.make_node("ReduceMean", ["of_member"], [target], axes=[0], keepdims=0),
        ]
        constants["least"] = np.array(self.least)
        return steps, of_view + [numpy_helper.from_array(value, name) for name, value in constants.items()]


def softmax(values: np.ndarray) -> np.ndarray:
    raised = np.exp(values - values.max(axis=-1, keepdims=True))
    return raised / raised.sum(axis=-1, keepdims=True)
