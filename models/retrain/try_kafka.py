"""Trains and retrains from a real Apache Kafka on loopback, and prints what was run and what it said.

    python models/retrain/try_kafka.py --data DIR --program target/release/hark

`DIR` has train_FD001.txt of C-MAPSS, also .gz. Its engines become lives of machines, four after another on each, one second for a cycle; at the end of each
an event of maintenance and most times a label. Some engines are changed in time, unlabelled or as a false alarm. Records come in transactions, and some of
these are aborted: half of a machine's life with wrong values, a maintenance that never was. The broker is the one of tests/kafka, in a temporary directory,
and is stopped at the end. Exit code 0 if each step ended as it should.
"""

import argparse
import datetime
import json
import os
import pathlib
import shlex
import socket
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "models"), str(ROOT / "models/turbofan-rul")]

import engines  # noqa: E402
import numpy as np  # noqa: E402
from confluent_kafka import Producer  # noqa: E402
from confluent_kafka.admin import AdminClient, NewTopic  # noqa: E402
from history.source import UNITS_MS  # noqa: E402

KAFKA = ROOT / "tests/kafka/kafka.sh"
BEGINNING_MS = 1_767_225_600_000
LIVES_OF_A_MACHINE = 4
UNITS = {name: unit for name, unit, _ in engines.SETTINGS} | dict(engines.POINTS)
#: Only what is critical: a client complains of the broker before it is ready and after it was stopped.
QUIET = {"log_level": 2}
COLUMNS = ["unit", "cycle", *(name for name, *_ in engines.SETTINGS), *(name for name, _ in engines.SENSORS)]
#: Cut to this part of its life, an engine has not failed.
CHANGED_AT = 0.6


def free_ports() -> int:
    """A port that is free, and the one above; below the range of outgoing connections."""
    for port in range(21_000, 32_000, 2):
        try:
            with socket.create_server(("127.0.0.1", port)), socket.create_server(("127.0.0.1", port + 1)):
                return port
        except OSError:
            continue
    sys.exit("no two ports are free")


class Plant:
    """What gateways would send."""

    def __init__(self, brokers: str):
        self.producer = Producer(QUIET | {"bootstrap.servers": brokers, "transactional.id": "hark.try", "linger.ms": 5, "compression.type": "zstd"})
        self.producer.init_transactions(60)
        self.sequence, self.committed, self.aborted, self.pending = 0, 0, 0, 0
        examples = ROOT / "config/kafka/schemas"
        self.example = {topic: json.loads((examples / f"hark.{topic}.v1.example.json").read_text()) for topic in ("readings", "events", "feedback")}
        self.example["events"] |= {field: None for field in self.example["events"] if field.startswith("gap_") or field == "count"}

    def send(self, topic: str, asset: str, ts_ms: int, **fields) -> None:
        self.sequence += 1
        ts = datetime.datetime.fromtimestamp(ts_ms / 1e3, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        record = self.example[topic] | {"asset": asset, "ts": ts, "ts_ms": ts_ms, "seq": self.sequence, "origin": "replay"} | fields
        while True:
            try:
                self.producer.produce(f"hark.{topic}.v1", json.dumps(record), asset)
                break
            except BufferError:
                self.producer.poll(0.1)
        self.pending += 1

    def transaction(self, records, commit: bool = True) -> None:
        self.producer.begin_transaction()
        for topic, asset, ts_ms, fields in records:
            self.send(topic, asset, ts_ms, **fields)
        if commit:
            self.producer.commit_transaction(60)
            self.committed += self.pending
        else:
            # Aborted records must have reached the broker, or there would be none to hide.
            self.producer.flush(60)
            self.producer.abort_transaction(60)
            self.aborted += self.pending
        self.pending = 0


def readings(asset: str, begin_ms: int, rows: np.ndarray, factor: float = 1.0):
    for second, row in enumerate(rows):
        for point, unit in UNITS.items():
            fields = {"point": point, "unit": unit, "value": float(row[COLUMNS.index(point)]) * factor}
            yield "readings", asset, begin_ms + second * UNITS_MS["s"], fields


def end(asset: str, ts_ms: int, label: str | None):
    """A maintenance and, an hour later, what people found."""
    yield "events", asset, ts_ms, {"kind": "maintenance", "what": "done", "text": None}
    if label is not None:
        later = datetime.datetime.fromtimestamp(ts_ms / 1e3 + 3_600, datetime.UTC).isoformat()
        yield "feedback", asset, ts_ms, {"action": "label", "label": label, "issued_at": later, "command_id": f"{asset}/{ts_ms}"}


def produce(plant: Plant, table: np.ndarray, units: range) -> None:
    """The engines `units` as lives of machines; a machine that is not the last one has had its last maintenance."""
    for unit in units:
        machine, number = divmod(unit - 1, LIVES_OF_A_MACHINE)
        asset, begin_ms = f"engine-{machine + 1:02}", BEGINNING_MS + number * UNITS_MS["d"]
        rows = table[table[:, 0] == unit]
        changed = unit % 10 == 7
        rows = rows[: int(len(rows) * CHANGED_AT)] if changed else rows
        label = "fixed" if not changed else "false_alarm" if unit % 20 == 7 else None
        end_ms = begin_ms + len(rows) * UNITS_MS["s"]
        if unit % 5 == 0:
            half = list(readings(asset, begin_ms, rows[: len(rows) // 2], factor=1.5))
            plant.transaction([*half, *end(asset, end_ms - 60_000, "fixed")], commit=False)
        plant.transaction([*readings(asset, begin_ms, rows), *end(asset, end_ms, label)])


def retrain(brokers: str, program: pathlib.Path, folder: pathlib.Path, bundle: list, out: str, expected: int) -> None:
    command = ["models/retrain", "--from-kafka", brokers, *map(str, bundle), "--program", str(program)]
    command += ["--out", str(folder / out), "--report", str(folder / f"{out}.md")]
    print(f"\n$ python {shlex.join(command)}".replace(f"{folder}/", "").replace(str(program), "hark").replace(f"{ROOT}/", ""), flush=True)
    began = time.monotonic()
    found = subprocess.run([sys.executable, *command], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    print("\n".join(line for line in found.stdout.replace(f"{folder}/", "").splitlines() if line), flush=True)
    print(f"(exit {found.returncode} after {time.monotonic() - began:.0f} s)", flush=True)
    if found.returncode != expected:
        sys.exit(f"expected exit {expected}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=pathlib.Path, required=True)
    parser.add_argument("--program", type=pathlib.Path, default=ROOT / "target/release/hark")
    arguments = parser.parse_args()
    table = engines.read(arguments.data, "train", "FD001")
    program = arguments.program.resolve()
    with tempfile.TemporaryDirectory() as name:
        folder, port = pathlib.Path(name), free_ports()
        brokers = f"127.0.0.1:{port}"
        subprocess.run(["bash", KAFKA, "start", folder / "broker", str(port)], check=True, timeout=600, stdout=subprocess.DEVNULL)
        try:
            topics = json.loads((ROOT / "config/kafka/topics.json").read_text())
            # Kept by name: without its client an answer never comes.
            admin = AdminClient(QUIET | {"bootstrap.servers": brokers})
            made = admin.create_topics([NewTopic(f"hark.{topic['name']}", topic["partitions"], 1, config=topic["settings"]) for topic in topics])
            for created in made.values():
                created.result(60)
            plant = Plant(brokers)
            for units, bundle, out, expected in (
                (range(1, 61), ["--new", "turbofan-rul-with-age"], "first", 0),
                (range(61, 101), ["--active", folder / "first"], "second", 0),
                (range(0), ["--active", ROOT / "models/turbofan-rul/with-age"], "third", 1),
            ):
                produce(plant, table, units)
                if units:
                    now = f"in the topics are now {plant.committed} committed records and {plant.aborted} aborted ones"
                    print(f"\nEngines {units.start} to {units.stop - 1}: {now}", flush=True)
                retrain(brokers, program, folder, bundle, out, expected)
        finally:
            subprocess.run(["bash", KAFKA, "stop", folder / "broker"], check=True, timeout=120)


if __name__ == "__main__":
    os.environ.setdefault("PYTHONUNBUFFERED", "1")
    main()
