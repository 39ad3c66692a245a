"""Writes a bundle: graph, specification of the features, golden vectors, and the manifest with their hashes."""

import dataclasses
import hashlib
import pathlib

import numpy as np
import onnx
from onnx import TensorProto, checker, helper

import intervals
import network

VERSION = "2.0.0"
OPSET = 17
IR_VERSION = 8
CREDIT = (
    'NASA Ames Prognostics Center of Excellence, C-MAPSS: A. Saxena, K. Goebel, D. Simon, N. Eklund, "Damage Propagation Modeling for Aircraft Engine '
    'Run-to-Failure Simulation", PHM08, 2008'
)


@dataclasses.dataclass(frozen=True)
class Origin:
    """What the manifest says of where a bundle comes from; `credit` without single quotes, the others without double quotes."""

    version: str
    training_data: str
    credit: str


def graph(name: str, features: int, networks: network.Network, table: np.ndarray) -> onnx.ModelProto:
    """The whole model, written node by node so that nothing depends on an exporter."""
    network_nodes, network_constants = networks.graph_part("features", "chances")
    interval_nodes, interval_constants = intervals.graph_part(table, networks.edges, "chances", "remaining_life", "quantiles")

    def info(of: str, columns: int) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(of, TensorProto.DOUBLE, [1, columns])

    outputs = [info("remaining_life", 1), info("quantiles", len(intervals.LEVELS))]
    body = helper.make_graph(network_nodes + interval_nodes, name, [info("features", features)], outputs, network_constants + interval_constants)
    model = helper.make_model(body, producer_name="hark", opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    checker.check_model(model, full_check=True)
    return model


def manifest(name: str, about: str, age: bool, features: int, files: dict[str, bytes], operators: list[str], cap: float, metrics: dict[str, float], origin: Origin) -> bytes:
    """What the agent reads first: identity, what it needs and promises, hashes."""
    hashes = "".join(f'"{file}" = "{hashlib.sha256(content).hexdigest()}"\n' for file, content in files.items())
    reached = "".join(f"{key} = {value}\n" for key, value in metrics.items())
    return f"""\
# Written by train.py; edit that file instead.
schema = 1
name = "{name}"
version = "{origin.version}"
role = "forecast"
about = "{about}"
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
# Which features, in their order; a row is one flight cycle.
features = "features.toml"
# What an asset must tell; without it the bundle is refused for that asset.
needs = [{'"age"' if age else ""}]
end_event = "functional_failure"
failure_mode = "degradation of the high-pressure compressor or of the fan"
# A row of life and of what comes out.
unit = "cycle"
# Of `quantiles`, in their order.
levels = {list(intervals.LEVELS)}
# Lives longer than this are told as this: "at least".
cap = {cap}
credit = '{origin.credit}'

# On engines left out of training, five folds, labels capped; `like_test`: with at most 150 cycles to go; `late`: watched only from some cycle on;
# `below_cap`: where less than the cap was to go. Coverage, width and `like_test` from the 20th cycle on; `brier_skill` of the chance of failure within.
[forecast.metrics]
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
