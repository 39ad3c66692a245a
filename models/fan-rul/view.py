"""What the networks look at: the heat that load does not explain, the velocity, how long straight lines would take to the heat at which fans failed, and how
long they took to the heat of now.

A housing is as warm as its surroundings, the load and the friction of what wears make it. The current tells the load, so what is left of the temperature is
wear, some ten times as plain as in the velocity, which mounting and surroundings move by 3 % for hours.
"""

import numpy as np
from onnx import helper, numpy_helper

#: The mean that stands for the level, and the slope that brings it up to now: it is as many rows late as its weight and the housing's time constant make it.
LEVEL, LEVEL_SLOPE, LATE_ROWS = "drift_0.06", "slope_72", 18.2
#: Least way to go or come, K, and least pace, K per row: less is noise.
WAY_LEAST, PACE_LEAST = 0.02, 5e-5


class View:
    """Fitted by `fit`; of each row of features gives heat and velocity in all their kinds, and as logarithms the way to go, the way come, and each
    over the pace of every window. Wear that is even keeps the first of these times true, wear that grows by a part of itself keeps the second one the same."""

    def fit(self, features: np.ndarray, names: list[str], healthy: np.ndarray, failed: np.ndarray) -> "View":
        """`healthy`: rows of machines as new, by which load explains heat; `failed`: last rows of machines, by which they fail."""
        of = {point: [index for index, name in enumerate(names) if name.startswith(f"{point}.")] for point in ("temperature", "current", "de.v_rms")}
        explained = np.linalg.lstsq(features[healthy][:, of["current"]], features[healthy][:, of["temperature"]], rcond=None)[0]
        heat = np.zeros((len(names), len(of["temperature"])))
        heat[of["temperature"], range(heat.shape[1])] = 1.0
        heat[of["current"]] = -explained
        kinds = [names[index].removeprefix("temperature.") for index in of["temperature"]]
        level = heat[:, kinds.index(LEVEL)] + LATE_ROWS * heat[:, kinds.index(LEVEL_SLOPE)]
        self.shown = np.concatenate([heat, np.eye(len(names))[:, of["de.v_rms"]]], axis=1)
        self.paces = heat[:, [index for index, kind in enumerate(kinds) if kind.startswith("slope")]]
        self.level, self.failing = level[:, None], float(np.median(features[failed] @ level))
        return self

    def of(self, features: np.ndarray) -> np.ndarray:
        level, pace = features @ self.level, np.log(np.maximum(features @ self.paces, PACE_LEAST))
        to_go, come = (np.log(np.maximum(way, WAY_LEAST)) for way in (self.failing - level, level))
        return np.concatenate([features @ self.shown, to_go, come, to_go - pace, come - pace], axis=1)

    def graph_part(self, source: str, target: str) -> tuple[list, list]:
        """What `of` computes, from `source` (1 x features) to `target`."""
        constants = {"view_shown": self.shown, "view_paces": self.paces, "view_level": self.level, "view_failing": self.failing}
        constants |= {"view_way_least": WAY_LEAST, "view_pace_least": PACE_LEAST}
        steps = [
            helper.make_node("MatMul", [source, "view_shown"], ["shown"]),
            helper.make_node("MatMul", [source, "view_level"], ["way_come"]),
            helper.make_node("Sub", ["view_failing", "way_come"], ["way_to_go"]),
            helper.make_node("MatMul", [source, "view_paces"], ["pace"]),
            *logarithm("pace", "view_pace_least"),
            *logarithm("way_to_go", "view_way_least"),
            *logarithm("way_come", "view_way_least"),
            helper.make_node("Sub", ["log_way_to_go", "log_pace"], ["log_times_to_go"]),
            helper.make_node("Sub", ["log_way_come", "log_pace"], ["log_times_come"]),
            helper.make_node("Concat", ["shown", "log_way_to_go", "log_way_come", "log_times_to_go", "log_times_come"], [target], axis=1),
        ]
        return steps, [numpy_helper.from_array(np.array(value, float), name) for name, value in constants.items()]


def logarithm(of: str, least: str) -> list:
    return [helper.make_node("Max", [of, least], [f"{of}_at_least"]), helper.make_node("Log", [f"{of}_at_least"], [f"log_{of}"])]
