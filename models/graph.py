"""An ONNX graph that is written node by node, so that nothing depends on an exporter, for whatever writes a bundle in float64."""

import onnx
from onnx import TensorProto, checker, helper

OPSET = 17
IR_VERSION = 8


def model(name: str, nodes: list[onnx.NodeProto], inputs: list[tuple[str, list]], outputs: list[tuple[str, list]], constants: list[onnx.TensorProto]) -> onnx.ModelProto:
    """The checked model. Inputs and outputs are names with shapes, whose dimensions are numbers or names."""

    def infos(of: list[tuple[str, list]]) -> list[onnx.ValueInfoProto]:
        return [helper.make_tensor_value_info(tensor, TensorProto.DOUBLE, shape) for tensor, shape in of]

    body = helper.make_graph(nodes, name, infos(inputs), infos(outputs), constants)
    made = helper.make_model(body, producer_name="hark", opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    checker.check_model(made, full_check=True)
    return made
