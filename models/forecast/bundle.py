"""The files of a bundle: graph, specification of the features, golden vectors, and the manifest with their hashes."""

import dataclasses
import hashlib
import pathlib

import numpy as np
import onnx

from forecast import intervals
from forecast.network import Network
from forecast.scale import Scale
from golden import as_text
from graph import OPSET, model


@dataclasses.dataclass(frozen=True)
class Origin:
    """What the manifest says of where a bundle comes from; `credit` without single quotes, the others without double quotes."""

    version: str
    training_data: str
    credit: str


@dataclasses.dataclass(frozen=True)
class Identity:
    """What the manifest says of what a bundle is, without double quotes."""

    name: str
    about: str
    #: Whether an asset must tell its age.
    age: bool
    failure_mode: str
    #: What a row of life is called, what it is in words, and how far rows are apart, s, where not any distance will do.
    unit: str
    row: str
    row_s: float | None
    #: Lines of a comment: on which lives the figures are, and what their names mean.
    figures: tuple[str, ...]


def files(identity: Identity, origin: Origin, specification: str, fitted: Network, table: np.ndarray, golden: np.ndarray, metrics: dict[str, float]) -> dict[str, bytes]:
    """Contents by name. `table` has the levels put right, `golden` (1 x features) is what the golden output is made of, `metrics` the figures."""
    made, chances, scale = network_and_intervals(identity.name, golden.shape[1], fitted, table), fitted.predict(golden), fitted.scale
    answers = {"remaining_life": intervals.mean(chances, scale)[:, None], "quantiles": intervals.quantiles(chances, scale, table)}
    found = {
        "model.onnx": made.SerializeToString(deterministic=True),
        "features.toml": specification.encode(),
        "golden-input.txt": as_text({"features": golden}),
        "golden-output.txt": as_text(answers),
    }
    operators = sorted({node.op_type for node in made.graph.node})
    return found | {"manifest.toml": manifest(identity, origin, golden.shape[1], found, operators, scale, metrics)}


def network_and_intervals(name: str, features: int, fitted: Network, table: np.ndarray) -> onnx.ModelProto:
    """The whole model."""
    network_nodes, network_constants = fitted.graph_part("features", "chances")
    interval_nodes, interval_constants = intervals.graph_part(table, fitted.scale, "chances", "remaining_life", "quantiles")

    outputs = [("remaining_life", [1, 1]), ("quantiles", [1, len(intervals.LEVELS)])]
    return model(name, network_nodes + interval_nodes, [("features", [1, features])], outputs, network_constants + interval_constants)


def manifest(identity: Identity, origin: Origin, features: int, files: dict[str, bytes], operators: list[str], scale: Scale, metrics: dict[str, float]) -> bytes:
    """What the agent reads first: identity, what it needs and promises, hashes."""
    hashes = "".join(f'"{file}" = "{hashlib.sha256(content).hexdigest()}"\n' for file, content in files.items())
    reached = "".join(f"{key} = {value}\n" for key, value in metrics.items())
    row_s = "" if identity.row_s is None else f"# Rows are so many seconds apart.\nrow_s = {identity.row_s}\n"
    cut = "" if scale.cut is None else f"# `remaining_life` is the mean of lives cut at this.\nmean_cut = {scale.cut}\n"
    figures = "".join(f"# {line}\n" for line in identity.figures)
    return f"""\
# Written by train.py; edit that file instead.
schema = 1
name = "{identity.name}"
version = "{origin.version}"
role = "forecast"
about = "{identity.about}"
element = "float64"
opset = {OPSET}
operators = [{", ".join(f'"{operator}"' for operator in operators)}]
training_data = "{origin.training_data}"
licence = "Apache-2.0"

[golden]
input = "golden-input.txt"
output = "golden-output.txt"
# Largest difference allowed, relative to the larger of 1 and the expected value.
tolerance = 1e-9

[forecast]
# Which features, in their order; a row is {identity.row}.
features = "features.toml"
# What an asset must tell; without it the bundle is refused for that asset.
needs = [{'"age"' if identity.age else ""}]
end_event = "functional_failure"
failure_mode = "{identity.failure_mode}"
# A row of life and of what comes out.
unit = "{identity.unit}"
{row_s}# Of `quantiles`, in their order.
levels = {list(intervals.LEVELS)}
# Lives longer than this are told as this: "at least".
cap = {scale.cap}
{cut}credit = '{origin.credit}'

{figures}[forecast.metrics]
{reached}
# SHA-256 of every other file of the bundle.
[files]
{hashes}
[[input]]
name = "features"
shape = ["1", "{features}"]

[[output]]
name = "remaining_life"
shape = ["1", "1"]

[[output]]
name = "quantiles"
shape = ["1", "{len(intervals.LEVELS)}"]
""".encode()


def write(folder: pathlib.Path, files: dict[str, bytes]) -> None:
    """Writes the files; the manifest last, since it vouches for the others."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in sorted(files, key=lambda name: name == "manifest.toml"):
        (folder / name).write_bytes(files[name])
