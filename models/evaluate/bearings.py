"""Simulated bearings through `hark features`: machines drawn at random, with and without a fault, on shaft harmonics, gear mesh, a converter's lines,
noise of the structure and stray impacts.

Impacts follow the model of D'Elia and Cocconcelli: their distances vary (slip accumulates), each rings a resonance, the load on the faulty part changes
with the shaft (inner ring) or the cage (rolling element). Limits and method of the program were set on other draws of such machines.
"""

import array
import json
import math
import pathlib
import random
import subprocess
import tempfile

MACHINES = 50
SAMPLES = 32_768
#: What is simulated, and what is the right answer. Strikes at a rate that is none of the bearing's are no bearing fault.
KINDS = {"healthy": "none", "noise at 1x": "none", "strikes of another rate": None, "outer": "outer", "inner": "inner", "ball": "ball"}
ANSWERS = ["none", "not_determined", "outer", "inner", "ball", "cage"]


def run(hark, data, report):
    """Writes the section of simulated bearings; needs no data."""
    report.heading(f"Simulated bearings, {MACHINES} machines of each kind with a block each, scored on `fault` of `hark features`")
    report.table(["simulated", *(f"{answer} %" for answer in ANSWERS)])
    for number, kind in enumerate(KINDS):
        named = [answer(hark, *machine(kind, random.Random(1_000 * number + seed))) for seed in range(MACHINES)]
        report.row([kind, *(f"{100 * named.count(name) / MACHINES:.0f}" for name in ANSWERS)])
    report.text("Faults are drawn evenly on a logarithmic scale from ones below the noise on, so that not all can be found; stray impacts without a rate are "
                "`not_determined`. Always `none` would be right on the first two rows and wrong on all faults, chance among four classes 25 %.")


def answer(hark, samples, fs_hz, speed_hz, geometry):
    with tempfile.TemporaryDirectory() as directory:
        path = pathlib.Path(directory) / "block.f64"
        path.write_bytes(array.array("d", samples).tobytes())
        command = [hark.program, "features", "--input", path, "--fs", fs_hz, "--unit", "m/s2", "--speed", speed_hz, "--bearing", ",".join(map(str, geometry))]
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"hark features ended with {done.returncode}: {done.stderr.strip()}")
    return json.loads(done.stdout)["fault"]


def machine(kind, draw):
    """Samples in m/s2, sampling rate, speed as it was measured, geometry of the bearing."""
    fs_hz, speed_hz, elements = draw.choice([12_000, 25_600]), draw.uniform(15, 50), draw.randint(7, 13)
    ratio = min(draw.uniform(0.12, 0.29), 0.85 * math.pi / elements)
    orders = {"outer": elements / 2 * (1 - ratio), "inner": elements / 2 * (1 + ratio), "cage": (1 - ratio) / 2, "ball": (1 - ratio * ratio) / ratio}
    samples = [0.2 * draw.gauss(0, 1) for _ in range(SAMPLES)]
    for _ in range(3):
        add_structure(samples, draw.uniform(300, 0.45 * fs_hz), draw.uniform(0.02, 0.1), draw.uniform(0.06, 0.3), fs_hz, draw)
    for order in range(1, 11):
        add_line(samples, order * speed_hz, 0.5 * draw.expovariate(1) / math.sqrt(order), fs_hz, draw)
    if draw.random() < 0.5:
        mesh, amplitude, depth = draw.randint(17, 60), draw.uniform(0.2, 2), draw.uniform(0, 0.5)
        for order, part in ((mesh - 1, depth / 2), (mesh, 1), (mesh + 1, depth / 2)):
            add_line(samples, order * speed_hz, amplitude * part, fs_hz, draw)
    if draw.random() < 0.5:
        carrier_hz = draw.choice([2_000, 4_000, 5_000])
        for f_hz in (100, *(carrier_hz + 50 * n for n in range(-4, 5, 2))):
            add_line(samples, f_hz, 0.3 * draw.expovariate(1), fs_hz, draw)
    resonance = draw.uniform(0.15, 0.42) * fs_hz, draw.uniform(0.02, 0.08)
    if draw.random() < 0.2:
        stray = sorted(draw.uniform(0, SAMPLES / fs_hz) for _ in range(draw.randint(1, 5)))
        add_impacts(samples, [(at_s, draw.uniform(3, 10)) for at_s in stray], resonance, fs_hz)
    if kind == "noise at 1x":
        for index in range(SAMPLES):
            samples[index] += 0.5 * draw.gauss(0, 1) * max(0.0, math.cos(math.tau * speed_hz * index / fs_hz)) ** 2
    if kind in orders or kind == "strikes of another rate":
        order = orders[kind] if kind in orders else other_order(orders, draw)
        add_impacts(samples, impacts(kind, order, orders["cage"], speed_hz, fs_hz, draw), resonance, fs_hz)
    return samples, fs_hz, speed_hz * draw.uniform(0.997, 1.003), (elements, ratio, 1)


def impacts(kind, order, cage, speed_hz, fs_hz, draw):
    """Times and peaks of a fault's impacts."""
    rate_hz = order * speed_hz * draw.uniform(0.99, 1.01)
    peak, slip, phase = 10 ** draw.uniform(math.log10(0.5), math.log10(15)), draw.uniform(0.002, 0.02), draw.uniform(0, math.tau)
    depth, power, other_ring = draw.uniform(0.2, 0.9), draw.uniform(0.5, 2), draw.uniform(0.2, 1)
    at_s, number, made = 0.0, 0, []
    while at_s < SAMPLES / fs_hz:
        at_s += (1 + slip * draw.gauss(0, 1)) / rate_hz
        turn = math.cos(math.tau * speed_hz * at_s + phase)
        load = 1.0
        if kind == "inner":
            load = max(0.05, turn) ** power
        elif kind == "ball":
            load = (1 if number % 2 else other_ring) * (1 - depth * (0.5 + 0.5 * math.cos(math.tau * cage * speed_hz * at_s + phase)))
        elif kind == "outer":
            load = 1 + 0.4 * depth * turn
        made.append((at_s, peak * load * (1 + 0.2 * draw.gauss(0, 1))))
        number += 1
    return made


def other_order(orders, draw):
    while True:
        order = draw.uniform(1.3, 9)
        if all(abs(order * factor / of - 1) > 0.035 for of in orders.values() for factor in (0.5, 1, 2)) and abs(order - round(order)) > 0.05:
            return order


def add_impacts(samples, impacts, resonance, fs_hz):
    f_hz, damping = resonance
    decay, ring = damping * math.tau * f_hz, math.tau * f_hz
    for at_s, peak in impacts:
        first = math.ceil(at_s * fs_hz)
        for index in range(first, min(SAMPLES, first + min(1_500, int(8 * fs_hz / decay)))):
            t = index / fs_hz - at_s
            samples[index] += peak * math.exp(-decay * t) * math.sin(ring * t)


def add_structure(samples, f_hz, damping, rms, fs_hz, draw):
    """Noise through a resonance."""
    radius = math.exp(-damping * math.tau * f_hz / fs_hz)
    first, second = 2 * radius * math.cos(math.tau * f_hz / fs_hz), -radius * radius
    ringing, last, before = [], 0.0, 0.0
    for _ in range(SAMPLES):
        last, before = first * last + second * before + draw.gauss(0, 1), last
        ringing.append(last)
    scale = rms / math.sqrt(sum(x * x for x in ringing) / SAMPLES)
    for index, x in enumerate(ringing):
        samples[index] += scale * x


def add_line(samples, f_hz, amplitude, fs_hz, draw):
    step, phase = math.tau * f_hz / fs_hz, draw.uniform(0, math.tau)
    for index in range(SAMPLES):
        samples[index] += amplitude * math.cos(step * index + phase)
