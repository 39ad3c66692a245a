"""Writes graphs that no agent may take, for the tests: each has the input and the outputs of the PyTorch example and does harm in one way.

    python models/examples/bad.py

They go to `tests/data/bundles`. The same bytes each time.
"""

import pathlib

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

FEATURES, LEVELS = 16, 7
OUT = pathlib.Path(__file__).resolve().parent.parent.parent / "tests" / "data" / "bundles"


class Graph:
    """Nodes and constants, added one by one; each gives the name of its output."""

    def __init__(self):
        self.nodes, self.constants = [], []

    def add(self, operator: str, *inputs: str, output: str | None = None, **attributes) -> str:
        output = output or f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [output], **attributes))
        return output

    def constant(self, values, element=np.float32) -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.array(values, dtype=element), name))
        return name

    def shape(self, *dimensions: int) -> str:
        return self.constant(dimensions, np.int64)

    def write(self, name: str, harmful: str) -> None:
        """The graph `name` whose outputs are what `harmful` adds up to, less the same: zeros, if anything comes out at all."""
        total = self.add("ReduceSum", harmful, keepdims=0)
        nothing = self.add("Sub", total, total)
        self.add("Expand", nothing, self.shape(1, 1), output="remaining_life")
        self.add("Expand", nothing, self.shape(1, LEVELS), output="quantiles")

        def info(of: str, columns: int) -> onnx.ValueInfoProto:
            return helper.make_tensor_value_info(of, TensorProto.FLOAT, [1, columns])

        outputs = [info("remaining_life", 1), info("quantiles", LEVELS)]
        graph = helper.make_graph(self.nodes, name, [info("features", FEATURES)], outputs, self.constants)
        model = helper.make_model(graph, producer_name="hark", opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        (OUT / f"{name}.onnx").write_bytes(model.SerializeToString(deterministic=True))


def not_a_number() -> None:
    graph = Graph()
    below = graph.add("Sub", graph.constant(-1.0), graph.add("Abs", "features"))
    graph.write("nan", graph.add("Sqrt", below))


def infinity() -> None:
    graph = Graph()
    graph.write("infinity", graph.add("Log", graph.add("Sub", "features", "features")))


def doubled(graph: Graph, of: str, times: int) -> str:
    """A row that is twice as long so many times."""
    for _ in range(times):
        of = graph.add("Concat", of, of, axis=1)
    return of


def products(name: str, doublings: int, count: int) -> None:
    """Products of square matrices, which take some bytes of a file and any time of a run."""
    graph = Graph()
    size = FEATURES << doublings
    row = doubled(graph, graph.add("Tanh", "features"), doublings)
    square = graph.add("MatMul", graph.add("Transpose", row, perm=[1, 0]), row)
    start = square = graph.add("Div", square, graph.constant(float(size)))
    for _ in range(count):
        square = graph.add("MatMul", square, start)
    graph.write(name, square)


def memory() -> None:
    """32 GiB."""
    graph = Graph()
    graph.write("memory", doubled(graph, "features", 29))


def convolution(name: str, **attributes) -> None:
    graph = Graph()
    line = graph.add("Reshape", "features", graph.shape(1, 1, FEATURES))
    graph.write(name, graph.add("Conv", line, graph.constant(np.ones((1, 1, 2))), kernel_shape=[2], **attributes))


def main() -> None:
    OUT.mkdir(parents=True, exist_ok=True)
    not_a_number()
    infinity()
    products("slow", 5, 10)
    products("endless", 8, 100)
    memory()
    convolution("abort", dilations=[2**40], pads=[2**40, 0])
    convolution("panic", strides=[0])


if __name__ == "__main__":
    main()
