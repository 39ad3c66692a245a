"""Trains the example of a Keras (TensorFlow) model: mixing cycles that the shaft seal of a mixer, an invented one, still lasts.

    python models/examples/keras/train.py --program target/release/hark

Everything is made here: simulated lives, their features (by the program), the model, and the bundle beside this file. The same seed gives the same bytes.
"""

import argparse
import os
import pathlib
import sys
import tempfile

# Sums over several threads, and in other instruction sets, come out in another order each time.
os.environ |= {"TF_CPP_MIN_LOG_LEVEL": "3", "TF_ENABLE_ONEDNN_OPTS": "0", "CUDA_VISIBLE_DEVICES": "-1"}

import keras
import numpy as np
import onnx
import tensorflow
from keras import layers, ops

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
import bundle  # noqa: E402
import lives  # noqa: E402

#: Value when new, when it fails, noise; in the units of features.toml.
POINTS = {"torque": (180.0, 215.0, 3.0), "power": (14.0, 16.5, 0.3), "seal": (38.0, 70.0, 1.5), "leak": (2.0, 60.0, 1.0)}
LEVELS = [0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95]
CAP = 120.0
EPOCHS = 40
BATCH = 256
ABOUT = {
    "name": "example-keras",
    "version": "1.0.0",
    "about": "remaining cycles of the shaft seal of an invented mixer from 4 points and its age: a small Keras network, an example of a bundle and of use for no real machine",
    "training_data": "300 lives simulated by train.py, 60 of them left out for the figures",
    "licence": "Apache-2.0",
}
FORECAST = {
    "needs": ["age"],
    "end_event": "functional_failure",
    "failure_mode": "wear of the shaft seal, simulated",
    "unit": "cycle",
    "levels": LEVELS,
    "cap": CAP,
    "credit": "nobody: simulated",
}


def network(features: np.ndarray) -> tuple[keras.Model, keras.Model]:
    """The model that is trained and the one that is exported, of the same layers. Quantiles cannot cross: each is the one below it plus something above 0."""
    taken = keras.Input((features.shape[1],), name="features")
    # The scale goes into the graph: the agent hands over features as they are. As plain arrays, since the exporter makes inputs of a Normalization layer's.
    scaled = (taken - features.mean(axis=0)) / features.std(axis=0)
    # tanh is bounded: of a value far from all seen in training comes an answer, and no infinity.
    hidden = layers.Dense(16, activation="tanh")(scaled)
    hidden = layers.Dense(16, activation="tanh")(hidden)
    steps = layers.Dense(len(LEVELS), activation="softplus")(hidden)
    uncapped = CAP / 2 * ops.cumsum(steps, axis=1)
    # Trained without the bound, which would stop the gradient.
    quantiles = ops.minimum(uncapped, CAP)
    remaining_life = ops.matmul(quantiles, bundle.mean_weights(LEVELS)[:, None])
    given = {"remaining_life": layers.Identity(name="remaining_life")(remaining_life), "quantiles": layers.Identity(name="quantiles")(quantiles)}
    return keras.Model(taken, uncapped), keras.Model(taken, given)


def pinball(remaining, quantiles):
    """The loss that the quantiles at the levels make smallest."""
    miss, levels = remaining - quantiles, np.array(LEVELS, dtype=np.float32)
    return ops.mean(ops.maximum(levels * miss, (levels - 1) * miss))


def export(model: keras.Model, features: int) -> onnx.ModelProto:
    """The model as ONNX for one row at a time."""
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder) / "model.onnx"
        one_row = keras.InputSpec(shape=(1, features), dtype="float32", name="features")
        model.export(file, format="onnx", input_signature=[one_row], opset_version=17, verbose=False)
        exported = onnx.load(file)
    # The exporter has outputs in the order of their names.
    order = [output.name for output in exported.graph.output]
    outputs = [exported.graph.output[order.index(name)] for name in ("remaining_life", "quantiles")]
    del exported.graph.output[:]
    exported.graph.output.extend(outputs)
    onnx.checker.check_model(exported, full_check=True)
    return exported


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--program", type=pathlib.Path, default="hark", help="the program, which computes the features [hark]")
    arguments.add_argument("--seed", type=int, default=1)
    arguments = arguments.parse_args()
    keras.utils.set_random_seed(arguments.seed)
    tensorflow.config.experimental.enable_op_determinism()
    tensorflow.config.threading.set_intra_op_parallelism_threads(1)
    tensorflow.config.threading.set_inter_op_parallelism_threads(1)

    table = lives.simulate(POINTS, 300, (150, 400), arguments.seed)
    rows = lives.features(arguments.program, list(POINTS), table, HERE / "features.toml")
    remaining = rows.remaining.clip(max=CAP)
    learned = rows.learned
    trained, model = network(rows.features[learned])
    schedule = keras.optimizers.schedules.CosineDecay(0.005, EPOCHS * learned.sum() // BATCH)
    trained.compile(keras.optimizers.Adam(schedule), pinball)
    trained.fit(rows.features[learned], remaining[learned][:, None], batch_size=BATCH, epochs=EPOCHS, verbose=0)
    unseen = rows.features[rows.held_out]
    said = {name: output.numpy() for name, output in model(unseen).items()}
    reached = bundle.metrics(LEVELS, remaining[rows.held_out], said["remaining_life"], said["quantiles"])
    exported = export(model, unseen.shape[1])
    print(f"{len(rows.life)} rows, {reached}")
    outputs = [said[output.name][::10] for output in exported.graph.output]
    print(f"largest difference of the export: {bundle.compare(exported.SerializeToString(), unseen[::10], outputs):.1e}")
    # A row with half of the cap to go, alone: a batch may be summed in another order.
    golden = unseen[remaining[rows.held_out] == CAP / 2][:1]
    golden = {"features": golden} | {name: output.numpy() for name, output in model(golden).items()}
    bundle.write(HERE, arguments.program, ABOUT, FORECAST, reached, exported, golden)


if __name__ == "__main__":
    main()
