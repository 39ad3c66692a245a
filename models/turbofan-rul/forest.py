"""Boosted trees as dense tensors: the runtime of the agent has no usable operator for trees, but compares, multiplies and adds.

Every inner node of every tree is asked at once. A leaf is reached where all nodes above it agree: with +1 for each node that has it on its left side and -1
for each that has it on its right, the sum over the nodes that say "left" is the number of left turns on its way, and for every other leaf less.
"""

import numpy as np
from onnx import TensorProto, helper, numpy_helper


class Forest:
    """Sums of trees by output, as arrays: one row per tree, padded to the widest."""

    def __init__(self, outputs: int):
        self.outputs = outputs
        self.trees = []

    def add(self, model, output: int) -> None:
        """All trees of a LightGBM regressor; their sum is `output`."""
        for tree in model.booster_.dump_model()["tree_info"]:
            self.trees.append((flatten(tree["tree_structure"]), output))

    def arrays(self) -> dict[str, np.ndarray]:
        """The tensors of the graph. A padded node asks feature 0 and concerns no leaf; a padded leaf is never reached."""
        nodes = max(1, max(len(feature) for (feature, *_), _ in self.trees))
        leaves = max(len(value) for (*_, value), _ in self.trees)
        count = len(self.trees)
        feature, threshold = np.zeros((count, nodes), np.int64), np.zeros((count, 1, nodes))
        side, turns = np.zeros((count, nodes, leaves), np.int8), np.full((count, 1, leaves), np.iinfo(np.int8).max, np.int8)
        value = np.zeros((count, leaves, self.outputs))
        for index, ((features, thresholds, paths, values), output) in enumerate(self.trees):
            feature[index, : len(features)], threshold[index, 0, : len(features)] = features, thresholds
            value[index, : len(values), output] = values
            for leaf, path in enumerate(paths):
                turns[index, 0, leaf] = sum(1 for _, left in path if left)
                for node, left in path:
                    side[index, node, leaf] = 1 if left else -1
        return {
            "feature_of_node": feature.ravel(),
            "threshold": threshold,
            "side": side,
            "left_turns": turns,
            "leaf_value": value.reshape(count * leaves, self.outputs),
        }


def flatten(root: dict) -> tuple[list[int], list[float], list[list[tuple[int, bool]]], list[float]]:
    """Feature and threshold of the inner nodes; of the leaves the way from the root (node, left) and the value."""
    features, thresholds, paths, values = [], [], [], []

    def visit(node: dict, path: list[tuple[int, bool]]) -> None:
        if "leaf_value" in node:
            paths.append(path)
            values.append(node["leaf_value"])
            return
        if node["decision_type"] != "<=":
            raise ValueError(f"a decision `{node['decision_type']}` is not known here")
        number = len(features)
        features.append(node["split_feature"])
        thresholds.append(node["threshold"])
        visit(node["left_child"], [*path, (number, True)])
        visit(node["right_child"], [*path, (number, False)])

    visit(root, [])
    return features, thresholds, paths, values


def sums(arrays: dict[str, np.ndarray], features: np.ndarray, at_once: int = 512) -> np.ndarray:
    """What `graph_part` computes, for many rows (rows x F)."""
    count, nodes, leaves = arrays["side"].shape
    side, value = arrays["side"].astype(float), arrays["leaf_value"].reshape(count, leaves, -1)
    parts = []
    for start in range(0, len(features), at_once):
        asked = features[start : start + at_once, arrays["feature_of_node"]].reshape(-1, count, nodes).transpose(1, 0, 2)
        left = (asked <= arrays["threshold"]).astype(float)
        reached = arrays["left_turns"] < left @ side + 0.5
        parts.append((reached.astype(float) @ value).sum(axis=0))
    return np.concatenate(parts)


def graph_part(arrays: dict[str, np.ndarray], source: str, target: str) -> tuple[list, list]:
    """Nodes and initialisers from the features `source` (1 x F) to the sums `target` (1 x outputs). Small integers are stored as such and cast when loaded."""
    count, nodes, leaves = arrays["side"].shape
    constants = {
        **arrays,
        "by_tree": np.array([count, 1, nodes], np.int64),
        "one_row": np.array([1, count * leaves], np.int64),
        "half": np.array(0.5),
    }
    steps = [
        helper.make_node("Gather", [source, "feature_of_node"], ["asked"], axis=1),
        helper.make_node("Reshape", ["asked", "by_tree"], ["asked_by_tree"]),
        helper.make_node("LessOrEqual", ["asked_by_tree", "threshold"], ["is_left"]),
        helper.make_node("Cast", ["is_left"], ["left"], to=TensorProto.DOUBLE),
        helper.make_node("Cast", ["side"], ["side_double"], to=TensorProto.DOUBLE),
        helper.make_node("Cast", ["left_turns"], ["left_turns_double"], to=TensorProto.DOUBLE),
        helper.make_node("MatMul", ["left", "side_double"], ["agreed"]),
        helper.make_node("Add", ["agreed", "half"], ["agreed_and_half"]),
        helper.make_node("Less", ["left_turns_double", "agreed_and_half"], ["is_reached"]),
        helper.make_node("Cast", ["is_reached"], ["reached"], to=TensorProto.DOUBLE),
        helper.make_node("Reshape", ["reached", "one_row"], ["reached_row"]),
        helper.make_node("MatMul", ["reached_row", "leaf_value"], [target]),
    ]
    return steps, [numpy_helper.from_array(value, name) for name, value in constants.items()]
