"""What recordings cannot tell: false alarms over months of healthy machines, drawn faults by their names, and what it costs. By the programs of `tests/`,
which drive the agent's own decoding, rules and inference in simulated time."""

import json
import re
import subprocess

#: Of each range all machines and instruments have their own seeds, none of which chose a setting.
FIRST_SEEDS = (73001, 74001, 75001)
SEEDS = 100
IN_ALL = r"in all +(\d+) of (\d+) faults, [\d.]+ %; (\d+) healthy"
#: The right answer to a fault of an instrument, after NE 107; one of a machine is its name.
CLASSES = {"stuck": "failure", "silent": "failure", "no value": "failure", "out of range": "off_spec", "clipped": "off_spec", "clock ahead": "off_spec"}
CLASSES |= {"spikes": "maintenance_required"}
BUILD = "cargo build --release --workspace --features hark-tests/real-brokers --bin hark --bin machine_days --bin injected_faults --bin inference_cost --bin lives"


def run(hark, data, report):
    """Writes the sections of the simulator."""
    healthy(hark, report)
    faults(hark, report)
    cost(hark, report)


def missing(program, names=("machine_days", "injected_faults", "inference_cost")):
    """Programs beside `program` that are not built."""
    return [path for name in names if not (path := program.resolve().parent / name).is_file()]


def output(hark, name, *arguments, may_fail=False):
    done = subprocess.run([hark.program.parent / name, *map(str, arguments)], stdout=subprocess.PIPE, text=True)
    if done.returncode != 0 and not may_fail:
        raise RuntimeError(f"{name} ended with {done.returncode}")
    return done.stdout


def healthy(hark, report):
    tallies = [json.loads(line) for line in output(hark, "machine_days", "--days", hark.machine_days, "--json", may_fail=True).splitlines()]
    report.heading(f"Simulated healthy machines, {hark.machine_days:g} days, scored on alarms of priority low and above")
    report.table(["scenario", "machines", "days after commissioning", "alarms", "advice", "alarms a month ≤ (95 %)", "above % of rows"])
    for of in tallies:
        cells = [of["machine_days"], of["alarms"]["upper_95"], of["above_percent"]]
        days, upper, above = (f"{cell:.{digits}f}" for cell, digits in zip(cells, (1, 2, 2)))
        report.row([of["scenario"], of["machines"], days, of["alarms"]["count"], of["advice"]["count"], upper, above])
    total = tallies[-1]
    a_month = 365.25 / 12 * total["advice"]["count"] / total["machine_days"]
    report.text("Advice is what a bare score leads to; it asks for no response. The bound is that of Poisson, one-sided. Beside it: what never is on has no alarm, the "
                "same bound, and finds none of the faults below; what always is on has an alarm of every machine from its first row to its last; and with the bare "
                f"score for an alarm there would be {a_month:.1f} a month.")
    report.asked("healthy machines, alarms a month, upper 95 % bound", total["alarms"]["upper_95"], 0.1, most=True)
    report.asked("healthy machines, alarms in the first 24 h", total["alarms"]["in_first_24_h"], 1, 0, most=True)


def faults(hark, report):
    report.heading(f"Simulated faults, {SEEDS} seeds from each of {', '.join(map(str, FIRST_SEEDS))}")
    shares, texts = [], []
    for first in FIRST_SEEDS:
        text = output(hark, "injected_faults", "--seeds", SEEDS, "--seed", first, may_fail=True)
        report.write("```", *text.strip().splitlines(), "```")
        texts.append(text)
        shares.append([float(share) for share in re.findall(r"faults, ([\d.]+) %", text)])
    for what, floor, of_range in zip(("faults of machines named %", "faults of instruments in their NE 107 class %"), (85, 95), zip(*shares)):
        report.asked(f"{what}, worst of {len(shares)} ranges", min(of_range), floor, 95)


    fault_baselines(texts, report)


def fault_baselines(texts, report):
    """What the same faults make of answers without sight: of each range the counts are the same, so the first one's are taken."""
    report.write("")
    report.table(["said of machines, of instruments", "faults right %", "healthy ones called faulty %"])
    blocks = [re.findall(r"^(\w[\w ]*?) +(\d+) of (\d+)(?: |$)(?!faults)", block, re.MULTILINE) for block in texts[0].split("\n\n")]
    cells = {"what the agent says, all ranges": [], "always the commonest": [], "drawn evenly from all answers, expected": [], "always nothing": []}
    for number, kinds in enumerate(blocks):
        counts = {}
        for kind, _, of in kinds:
            counts[CLASSES.get(kind, kind)] = counts.get(CLASSES.get(kind, kind), 0) + int(of)
        healthy = counts.pop("healthy")
        right, faults, wrong = (sum(map(int, column)) for column in zip(*(re.findall(IN_ALL, text)[number] for text in texts)))
        share = 100 / (len(counts) + 1)
        commonest = 100 * max(counts.values()) / sum(counts.values())
        for of, figures in zip(cells.values(), ((100 * right / faults, 100 * wrong / (healthy * len(texts))), (commonest, 100), (share, 100 - share), (0, 0))):
            of.append(figures)
    for name, of in cells.items():
        report.row([name, *(", ".join(f"{figure:.1f}" for figure in column) for column in zip(*of))])


def cost(hark, report):
    text = output(hark, "inference_cost")
    report.heading("Cost")
    report.write("```", *text.strip().splitlines(), "```")
    row, machines, *channels = (re.findall(pattern, text) for pattern in (r"p99 ([\d.]+) µs", r"row a second: ([\d.]+) %", r"overlap: ([\d.]+) %.*?, ([\d.]+) %"))
    report.asked("Stage A for 8 points, p99 µs", row[0], 50, 25, most=True)
    report.asked("100 machines at 1 Hz, % of a core", machines[0], 2, 1, most=True)
    report.asked("300 vibration channels at 10 kHz, % of a core", sum(map(float, channels[0][0])), 10, 5, most=True)
