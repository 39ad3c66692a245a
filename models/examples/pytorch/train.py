"""Trains the example of a PyTorch model: hours that a diaphragm pump, an invented one, still has.

    python models/examples/pytorch/train.py --program target/release/hark

Everything is made here: simulated lives, their features (by the program), the model, and the bundle beside this file. The same seed gives the same bytes.
"""

import argparse
import io
import pathlib
import sys

import numpy as np
import onnx
import torch
from torch import nn

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
import bundle  # noqa: E402
import lives  # noqa: E402

#: Value when new, when it fails, noise; in the units of features.toml.
POINTS = {"flow": (12.0, 9.0, 0.15), "ripple": (0.4, 1.6, 0.05), "current": (2.1, 2.9, 0.05), "housing": (41.0, 55.0, 1.0)}
LEVELS = [0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95]
CAP = 200.0
EPOCHS = 600
ABOUT = {
    "name": "example-pytorch",
    "version": "1.0.0",
    "about": "remaining hours of an invented diaphragm pump from 4 points: a small PyTorch network, an example of a bundle and of use for no real machine",
    "training_data": "300 lives simulated by train.py, 60 of them left out for the figures",
    "licence": "Apache-2.0",
}
FORECAST = {
    "needs": [],
    "end_event": "functional_failure",
    "failure_mode": "wear of the diaphragm, simulated",
    "unit": "hour",
    "row_s": 3600.0,
    "levels": LEVELS,
    "cap": CAP,
    "credit": "nobody: simulated",
}


class Network(nn.Module):
    """Quantiles of the remaining life that cannot cross: each is the one below it plus something above 0."""

    def __init__(self, features: np.ndarray):
        super().__init__()
        # The scale goes into the graph: the agent hands over features as they are.
        self.register_buffer("mean", torch.tensor(features.mean(axis=0)))
        self.register_buffer("deviation", torch.tensor(features.std(axis=0)))
        self.register_buffer("weights", torch.tensor(bundle.mean_weights(LEVELS))[:, None])
        # tanh is bounded: of a value far from all seen in training comes an answer, and no infinity.
        self.body = nn.Sequential(nn.Linear(features.shape[1], 16), nn.Tanh(), nn.Linear(16, 16), nn.Tanh())
        self.steps = nn.Linear(16, len(LEVELS))

    def uncapped(self, features: torch.Tensor) -> torch.Tensor:
        """What is trained: a bound would stop the gradient."""
        steps = nn.functional.softplus(self.steps(self.body((features - self.mean) / self.deviation)))
        return CAP / 2 * torch.cumsum(steps, dim=1)

    def forward(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """What is exported."""
        quantiles = torch.clamp(self.uncapped(features), max=CAP)
        return quantiles @ self.weights, quantiles


def train(features: np.ndarray, remaining: np.ndarray) -> Network:
    """Fits by the pinball loss, which the quantiles at the levels make smallest."""
    model = Network(features)
    features, remaining, levels = torch.tensor(features), torch.tensor(remaining)[:, None], torch.tensor(LEVELS)
    optimiser = torch.optim.Adam(model.parameters(), lr=0.01, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, EPOCHS)
    for _ in range(EPOCHS):
        miss = remaining - model.uncapped(features)
        loss = torch.maximum(levels * miss, (levels - 1) * miss).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    return model.eval()


def export(model: Network, features: int) -> onnx.ModelProto:
    """The model as ONNX for one row at a time."""
    file = io.BytesIO()
    names = {"input_names": ["features"], "output_names": ["remaining_life", "quantiles"]}
    torch.onnx.export(model, (torch.zeros(1, features),), dynamo=True, opset_version=18, **names).save(file)
    exported = onnx.load_from_string(file.getvalue())
    # The exporter notes in every node where on this machine its source stands.
    for noted in (*exported.graph.node, *exported.graph.value_info, *exported.graph.initializer, *exported.graph.input, *exported.graph.output, exported.graph):
        noted.ClearField("metadata_props")
        noted.ClearField("doc_string")
    onnx.checker.check_model(exported, full_check=True)
    return exported


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--program", type=pathlib.Path, default="hark", help="the program, which computes the features [hark]")
    arguments.add_argument("--seed", type=int, default=1)
    arguments = arguments.parse_args()
    torch.manual_seed(arguments.seed)
    torch.set_num_threads(1)

    table = lives.simulate(POINTS, 300, (250, 700), arguments.seed)
    rows = lives.features(arguments.program, list(POINTS), table, HERE / "features.toml")
    remaining = rows.remaining.clip(max=CAP)
    model = train(rows.features[rows.learned], remaining[rows.learned])
    unseen = rows.features[rows.held_out]
    with torch.no_grad():
        mean, quantiles = (output.numpy() for output in model(torch.tensor(unseen)))
        reached = bundle.metrics(LEVELS, remaining[rows.held_out], mean, quantiles)
        exported = export(model, unseen.shape[1])
        # A row with half of the cap to go, alone: a batch may be summed in another order.
        golden = unseen[remaining[rows.held_out] == CAP / 2][:1]
        of_golden = [output.numpy() for output in model(torch.tensor(golden))]
    print(f"{len(rows.life)} rows, {reached}")
    print(f"largest difference of the export: {bundle.compare(exported.SerializeToString(), unseen[::10], [mean[::10], quantiles[::10]]):.1e}")
    golden = {"features": golden, "remaining_life": of_golden[0], "quantiles": of_golden[1]}
    bundle.write(HERE, arguments.program, ABOUT, FORECAST, reached, exported, golden)


if __name__ == "__main__":
    main()
