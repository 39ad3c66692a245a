"""Bearings of the Case Western Reserve University Bearing Data Center through `hark features`: what physical rules make of them, untrained.

Each fault and diameter is one bearing, so figures are by diameter; the blocks of a file, and the loads, are the same bearing again. The data have no
licence to redistribute and are not part of this repository: https://engineering.case.edu/bearingdatacenter
"""

import csv
import json
import pathlib
import random
import statistics
import subprocess
import tempfile
import zipfile

FS_HZ = 12_000
BEARING = "6205"
CLASSES = {"normal": "none", "IR": "inner", "B": "ball", "OR": "outer"}
#: Nominal speed at 0 to 3 hp, where a file does not state it.
NOMINAL_RPM = (1797, 1772, 1750, 1730)


def run(hark, data, report):
    """Writes the section of CWRU."""
    blocks = []
    for row in csv.DictReader((data / "index.csv").open()):
        rpm = float(row["rpm"]) if row["rpm"] else NOMINAL_RPM[int(row["load_hp"])]
        answers = features(hark, data / row["file"], rpm)
        blocks += [(int(row["diameter_mil"]), CLASSES[row["fault"]], row["file"], answer) for answer in answers]
    files = len({file for _, _, file, _ in blocks})
    report.heading(f"CWRU, drive end at 12 kHz, {files} files in blocks of 32768 samples, untrained, scored on `fault` of `hark features`")
    report.table(["diameter, 1/1000 inch", "blocks", "macro balanced accuracy", "determined %", "of those", *(f"{name} %" for name in CLASSES.values())])
    normal = [(truth, answer["fault"]) for diameter, truth, _, answer in blocks if diameter == 0]
    diameters = sorted({diameter for diameter, *_ in blocks} - {0})
    for diameter in diameters:
        named = normal + [(truth, answer["fault"]) for of, truth, _, answer in blocks if of == diameter]
        report.row([f"{diameter:03}", *measures(named)])
    for diameter in diameters:
        truths = [truth for truth, _ in normal] + [truth for of, truth, _, _ in blocks if of == diameter]
        for name, answers in {"always outer": ["outer"] * len(truths), "chance, mean of 200": None}.items():
            report.row([f"{diameter:03} {name}", len(truths), chance(truths) if answers is None else measures(list(zip(truths, answers)))[1], "", "", "", "", "", ""])
    report.text("Balanced accuracy is the mean over the classes there are of the part of their blocks that is named rightly; what is not determined counts as wrong "
                "in it and is left out in `of those`. `none` on a fault is a missed fault. The normal blocks are those of one file, the same in each row, whose "
                "sampling rate is disputed: without it the figures are the mean of the other columns.")
    confusion(blocks, report)


def features(hark, path, rpm):
    """Answers, one per block, of the array `de` in an archive of NumPy."""
    with tempfile.TemporaryDirectory() as directory:
        array = pathlib.Path(directory) / "de.npy"
        with zipfile.ZipFile(path) as archive:
            array.write_bytes(archive.read("de.npy"))
        command = [hark.program, "features", "--input", array, "--fs", FS_HZ, "--unit", "[g]", "--rpm", rpm, "--bearing", BEARING]
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
        if done.returncode != 0:
            raise RuntimeError(f"hark features ended with {done.returncode}: {done.stderr.strip()}")
        return [json.loads(line) for line in done.stdout.splitlines()]


def measures(named):
    """Of (true, named) pairs: number, macro balanced accuracy, determined %, balanced accuracy of those, recall of each class."""
    recall, of_determined = {}, []
    for name in CLASSES.values():
        answers = [answer for truth, answer in named if truth == name]
        determined = [answer for answer in answers if answer != "not_determined"]
        if answers:
            recall[name] = statistics.mean(answer == name for answer in answers)
        if determined:
            of_determined.append(statistics.mean(answer == name for answer in determined))
    determined = 100 * statistics.mean(answer != "not_determined" for _, answer in named)
    parts = [f"{100 * recall[name]:.0f}" if name in recall else "-" for name in CLASSES.values()]
    kept = f"{statistics.mean(of_determined):.3f}" if of_determined else "-"
    return [len(named), f"{statistics.mean(recall.values()):.3f}", f"{determined:.0f}", kept, *parts]


def chance(truths):
    """Balanced accuracy of answers drawn evenly from the classes there are, and its spread."""
    draw, names = random.Random(1), sorted(set(truths))
    scores = [float(measures([(truth, draw.choice(names)) for truth in truths])[1]) for _ in range(200)]
    return f"{statistics.mean(scores):.3f} ± {statistics.stdev(scores):.3f}"


def confusion(blocks, report):
    answers = ["none", "inner", "ball", "outer", "cage", "not_determined"]
    report.heading("What the blocks were called", level=3)
    report.table(["true, diameter", *answers])
    for key in sorted({(truth, diameter) for diameter, truth, *_ in blocks}):
        named = [answer["fault"] for diameter, truth, _, answer in blocks if (truth, diameter) == key]
        report.row([f"{key[0]} {key[1]:03}", *(named.count(answer) for answer in answers)])
