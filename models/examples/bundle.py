"""What is around an exported model: manifest, golden vectors, and the program's own word that it will take the bundle."""

import hashlib
import json
import pathlib
import subprocess
import sys

import numpy as np
import onnx
import onnxruntime

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from golden import as_text  # noqa: E402

#: Largest difference from the golden output, relative to the larger of 1 and the value: float32 has seven digits, and sums come in another order.
TOLERANCE = 1e-5


def mean_weights(levels: list[float]) -> np.ndarray:
    """Weights of the quantiles in the mean: each stands for the levels that are nearest to it."""
    levels = np.array(levels)
    return np.diff(np.concatenate([[0.0], (levels[1:] + levels[:-1]) / 2, [1.0]])).astype(np.float32)


def metrics(levels: list[float], remaining: np.ndarray, mean: np.ndarray, quantiles: np.ndarray) -> dict[str, float]:
    """Figures of lives left out of training; `remaining` is capped."""
    lower, upper = quantiles[:, levels.index(0.05)], quantiles[:, levels.index(0.95)]
    below = remaining < remaining.max()
    return {
        "rmse": round(float(np.sqrt(np.mean((mean.ravel() - remaining) ** 2))), 2),
        "rmse_of_a_constant": round(float(np.std(remaining)), 2),
        "coverage_90": round(float(np.mean((lower <= remaining) & (remaining <= upper), where=below)), 3),
        "width_90": round(float(np.mean(upper - lower, where=below)), 1),
    }


def compare(model: bytes, rows: np.ndarray, expected: list[np.ndarray]) -> float:
    """How far the exported model is from what the framework said of `rows`: what an exporter gets wrong shows here, before it is a golden vector."""
    session = onnxruntime.InferenceSession(model)
    found = [session.run(None, {"features": row[None, :]}) for row in rows]
    return max(float(np.abs(np.concatenate(of) - wanted).max()) for of, wanted in zip(zip(*found, strict=True), expected, strict=True))


def write(folder: pathlib.Path, program: pathlib.Path, about: dict, forecast: dict, reached: dict, model: onnx.ModelProto, golden: dict[str, np.ndarray]) -> None:
    """Completes the bundle in `folder`, which has its `features.toml`, and asks the program whether it will take it.

    `about` is the head of the manifest, `forecast` its table of that name, `reached` the figures; `golden` has the input and what the framework makes of it.
    """
    files = {
        "model.onnx": model.SerializeToString(deterministic=True),
        "features.toml": (folder / "features.toml").read_bytes(),
        "golden-input.txt": as_text({"features": golden["features"]}),
        "golden-output.txt": as_text({name: golden[name] for name in ("remaining_life", "quantiles")}),
    }
    operators = sorted({node.op_type for node in model.graph.node})
    opset = next(used.version for used in model.opset_import if used.domain == "")
    head = {"schema": 1, **about, "role": "forecast", "element": "float32", "opset": opset, "operators": operators}
    tables = {
        "[golden]": {"input": "golden-input.txt", "output": "golden-output.txt", "tolerance": TOLERANCE},
        "[forecast]": {"features": "features.toml", **forecast},
        "[forecast.metrics]": reached,
        "[files]": {name: hashlib.sha256(content).hexdigest() for name, content in files.items()},
    }
    text = "# Written by train.py; edit that file instead.\n" + table(head)
    text += "".join(f"\n{name}\n{table(keys)}" for name, keys in tables.items())
    for kind, tensors in (("input", model.graph.input), ("output", model.graph.output)):
        for tensor in tensors:
            shape = [str(dimension.dim_value) for dimension in tensor.type.tensor_type.shape.dim]
            text += f"\n[[{kind}]]\n{table({'name': tensor.name, 'shape': shape})}"
    # The manifest last, since it vouches for the others.
    for name, content in (files | {"manifest.toml": text.encode()}).items():
        (folder / name).write_bytes(content)
    card = subprocess.run([program, "model", "show", folder], stdout=subprocess.PIPE, check=True).stdout
    (folder / "CARD.md").write_bytes(card)
    subprocess.run([program, "model", "verify", folder], check=True)


def table(keys: dict) -> str:
    """Lines of TOML: strings, numbers and lists of them are written as in JSON, names of files are quoted."""
    return "".join(f"{json.dumps(key) if '.' in key else key} = {json.dumps(value)}\n" for key, value in keys.items())
