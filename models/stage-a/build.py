"""Writes the bundle of Stage A: `model.onnx`, golden input and output, and `manifest.toml` with their hashes.

Stage A scores one window of a machine: z-score, of which no less than `least` counts, then in two channels one-step ridge VAR residual, whitening, power mean of
order four. The machine's weights are inputs of the graph (`share` is each point's part in the mean, one n-th), fitted on the gateway, so this file holds no
data and is the same for all machines and any number of points n.

    python models/stage-a/build.py            writes the bundle beside this file; a second run gives the same bytes
    python models/stage-a/build.py --check    exit 1 where the files differ from what would be written

All arithmetic is float64: with float32 a pressure of 101325 Pa that moves by 1 Pa would keep three digits, and the float64 kernel of the runtime adds in
the same order on every processor, so a replay on another gateway gives the same numbers.
"""

import argparse
import hashlib
import math
import pathlib
import sys

import numpy as np
import onnx
from onnx import helper, numpy_helper

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from golden import as_text  # noqa: E402
from graph import OPSET, model  # noqa: E402

NAME = "stage-a"
VERSION = "4.0.0"
LAGS = 3
GOLDEN_POINTS = 3

# Names, shapes. `n` points, LAGS * n history values.
INPUTS = [
    ("window", [LAGS + 1, "n"]),
    ("mean", ["n"]),
    ("inv_std", ["n"]),
    ("least", ["n"]),
    ("regression", ["history", "n"]),
    ("bias", ["n"]),
    ("whitening", ["n", "n"]),
    ("slow_regression", ["history", "n"]),
    ("slow_bias", ["n"]),
    ("slow_whitening", ["n", "n"]),
    ("share", ["n", 1]),
]
OUTPUTS = [("whitened", [1, "n"]), ("score", [1, 1]), ("slow_whitened", [1, "n"]), ("slow_score", [1, 1])]


def channel(prefix: str) -> list[onnx.NodeProto]:
    """From the z-scores of a window to the whitened residual, signed, and its score."""

    def node(operator: str, inputs: list[str], output: str) -> onnx.NodeProto:
        return helper.make_node(operator, inputs, [prefix + output])

    return [
        node("MatMul", ["past_row", prefix + "regression"], "explained"),
        node("Add", [prefix + "explained", prefix + "bias"], "predicted"),
        node("Sub", ["present", prefix + "predicted"], "residual"),
        node("MatMul", [prefix + "residual", prefix + "whitening"], "whitened"),
        node("Mul", [prefix + "whitened", prefix + "whitened"], "squared"),
        node("Mul", [prefix + "squared", prefix + "squared"], "fourth"),
        # Not ReduceMean: the runtime (0.23.9) fuses a square and its mean into one float32 operator, and the score would keep seven digits.
        node("MatMul", [prefix + "fourth", "share"], "mean_fourth"),
        node("Sqrt", [prefix + "mean_fourth"], "mean_square"),
        node("Sqrt", [prefix + "mean_square"], "score"),
    ]


def scoring() -> onnx.ModelProto:
    """The scoring graph."""

    def integers(name: str, values: list[int]) -> onnx.TensorProto:
        return numpy_helper.from_array(np.array(values, dtype=np.int64), name)

    constants = [
        integers("first", [0]),
        integers("last", [LAGS]),
        integers("end", [LAGS + 1]),
        integers("rows", [0]),
        integers("one_row", [1, -1]),
    ]
    nodes = [
        helper.make_node("Sub", ["window", "mean"], ["centred"]),
        helper.make_node("Mul", ["centred", "inv_std"], ["seen"]),
        # A fall that is no anomaly counts for so much at most.
        helper.make_node("Max", ["seen", "least"], ["z"]),
        helper.make_node("Slice", ["z", "first", "last", "rows"], ["past"]),
        helper.make_node("Slice", ["z", "last", "end", "rows"], ["present"]),
        helper.make_node("Reshape", ["past", "one_row"], ["past_row"]),
        *channel(""),
        *channel("slow_"),
    ]

    return model(NAME, nodes, INPUTS, OUTPUTS, constants)


def golden() -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Inputs made of small dyadic fractions and the outputs that follow. Sums of such numbers are exact in float64, whatever the order of addition."""
    n = GOLDEN_POINTS

    def dyadic(rows: int, columns: int, step: int, modulus: int) -> np.ndarray:
        return np.array([[((r * columns + c) * step % modulus - modulus // 2) / 8 for c in range(columns)] for r in range(rows)])

    inputs = {
        "window": dyadic(LAGS + 1, n, 7, 23) + 16,
        "mean": dyadic(1, n, 5, 11)[0] + 16,
        "inv_std": np.array([0.5, 2.0, 1.0]),
        "least": np.array([-1.0, -1e30, -0.5]),
        "regression": dyadic(LAGS * n, n, 11, 17) / 4,
        "bias": dyadic(1, n, 3, 7)[0],
        "whitening": dyadic(n, n, 5, 13) + 2 * np.eye(n),
        "slow_regression": dyadic(LAGS * n, n, 3, 19) / 4,
        "slow_bias": dyadic(1, n, 5, 7)[0],
        "slow_whitening": dyadic(n, n, 7, 13) + 2 * np.eye(n),
        "share": np.array([[0.25], [0.5], [0.25]]),
    }
    z = np.maximum((inputs["window"] - inputs["mean"]) * inputs["inv_std"], inputs["least"])
    outputs = {}
    for prefix in ("", "slow_"):
        residual = z[LAGS] - (z[:LAGS].reshape(1, -1) @ inputs[prefix + "regression"] + inputs[prefix + "bias"])
        whitened = residual @ inputs[prefix + "whitening"]
        outputs[prefix + "whitened"] = whitened
        outputs[prefix + "score"] = np.array([[math.sqrt(math.sqrt(math.fsum(((whitened**2) ** 2 @ inputs["share"])[0])))]])
    return inputs, outputs


def manifest(files: dict[str, bytes], operators: list[str]) -> bytes:
    """What the agent reads first: identity, shapes, limits of the graph, hashes."""

    def tensors(kind: str, of: list[tuple[str, list]]) -> str:
        return "".join(f'\n[[{kind}]]\nname = "{name}"\nshape = [{", ".join(repr(str(d)).replace(chr(39), chr(34)) for d in shape)}]\n' for name, shape in of)

    hashes = "".join(f'"{name}" = "{hashlib.sha256(content).hexdigest()}"\n' for name, content in files.items())
    return f"""\
# Written by build.py; edit that file instead.
schema = 1
name = "{NAME}"
version = "{VERSION}"
role = "anomaly"
about = "z-score, a least that counts, ridge VAR({LAGS}) one-step residuals in a fast and a slow channel, whitening, power mean; the weights of a machine are inputs, fitted on its gateway"
element = "float64"
lags = {LAGS}
opset = {OPSET}
operators = [{", ".join(f'"{o}"' for o in operators)}]
training_data = "none: the graph holds no fitted number"
licence = "Apache-2.0"

[golden]
input = "golden-input.txt"
output = "golden-output.txt"
# Largest difference allowed, relative to the larger of 1 and the expected value.
tolerance = 1e-12

# SHA-256 of every other file of the bundle.
[files]
{hashes}{tensors("input", INPUTS)}{tensors("output", OUTPUTS)}""".encode()


def bundle() -> dict[str, bytes]:
    """All files of the bundle by name."""
    made = scoring()
    inputs, outputs = golden()
    files = {
        "model.onnx": made.SerializeToString(deterministic=True),
        "golden-input.txt": as_text(inputs),
        "golden-output.txt": as_text(outputs),
    }
    files["manifest.toml"] = manifest(files, sorted({node.op_type for node in made.graph.node}))
    return files


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--check", action="store_true", help="compare with the files on disk and write nothing")
    check = arguments.parse_args().check
    folder = pathlib.Path(__file__).resolve().parent
    differing = []
    for name, content in bundle().items():
        path = folder / name
        if path.is_file() and path.read_bytes() == content:
            continue
        differing.append(name)
        if not check:
            path.write_bytes(content)
    print(f"{NAME} {VERSION}: " + (f"{'differs' if check else 'wrote'} {', '.join(differing)}" if differing else "unchanged"))
    return 1 if check and differing else 0


if __name__ == "__main__":
    sys.exit(main())
