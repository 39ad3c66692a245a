"""The same windows through the agent's runtime (tract) and onnxruntime: agreement and latency. Needs the packages of requirements.txt.

Both run the golden input of each bundle, one thread, one window at a time. The agent's times are those of `inference_cost`, which includes nothing but the
run; those of onnxruntime include its call from Python.
"""

import re
import subprocess
import time
import tomllib

from replay import MODELS

BUNDLES = ("stage-a", "turbofan-rul/with-age", "turbofan-rul/without-age", "fan-rul")
RUNS = 20_000


def run(hark, data, report):
    """Writes the table."""
    import numpy as np
    import onnxruntime

    printed = subprocess.run([hark.program.parent / "inference_cost"], capture_output=True, text=True, check=True).stdout
    report.heading("The same windows through tract and onnxruntime")
    report.table(["bundle", "KiB", "largest difference, relative", "tract p50, p99 µs", f"onnxruntime {onnxruntime.__version__} p50, p99 µs"])
    for bundle in BUNDLES:
        folder = MODELS / bundle
        manifest = tomllib.loads((folder / "manifest.toml").read_text())
        inputs, expected = (golden(np, folder / manifest["golden"][side]) for side in ("input", "output"))
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        session = onnxruntime.InferenceSession(folder / "model.onnx", options, providers=["CPUExecutionProvider"])
        found = session.run(list(expected), inputs)
        apart = max(float(np.max(np.abs(of - expected[name]) / np.maximum(1.0, np.abs(expected[name])))) for name, of in zip(expected, found))
        taken = []
        for _ in range(RUNS):
            began = time.perf_counter_ns()
            session.run(None, inputs)
            taken.append((time.perf_counter_ns() - began) / 1e3)
        taken.sort()
        p50, p99 = re.search(rf"a run of {bundle}: p50 ([\d.]+) µs, p99 ([\d.]+) µs", printed).groups()
        size = (folder / "model.onnx").stat().st_size / 1024
        report.row([bundle, f"{size:.0f}", f"{apart:.1e}", f"{p50}, {p99}", f"{taken[RUNS // 2]:.1f}, {taken[RUNS * 99 // 100]:.1f}"])
        report.asked(f"{bundle}, p99 of a run in the agent, µs", p99, 300, 100, most=True)
        report.asked(f"{bundle}, difference from onnxruntime", apart, 1e-4, most=True)


def golden(np, path):
    """Tensors by name; what the agent reproduces before it loads the bundle."""
    tensors = {}
    for line in path.read_text().splitlines():
        name, shape, *values = line.split()
        tensors[name] = np.array(values, float).reshape([int(size) for size in shape.split("x")])
    return tensors
