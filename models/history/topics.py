"""What the records of Hark's topics make of a machine's history. Pure: records in, lives out.

- **Rows.** A slot of the grid in which a point of the bundle was read is a row, and the newest reading of a point in it is its value; a bad one leaves it
  missing. As in the agent, slots in which the machine was off, idle or changing its load are no rows, nor are those in which nothing came.
- **Ends.** A life ends with each event of kind `maintenance`, and the next one begins. The name of a life has the time of its end, so it is the same
  however much of the topics has expired.
- **Labels.** What people said about the machine: a label in `hark.feedback.v1` or, given at the gateway, in an event of kind `audit`. `true_alarm` and
  `fixed` say failure, `false_alarm` and `not_a_fault` say none; a maintenance reported with the failure mode that was found says failure. A label counts for
  the end nearest to it, if that is not farther than `label_within_ms`; of several for one end the newest counts; one that the gateway refused does not. An
  end without a label is censored: a part that was changed in time tells only that it lasted so long. So is the life that goes on.
- **Age.** The first life that the readings show has a known beginning only if none of them has expired yet, or a maintenance before them began it.
"""

import array
import datetime
import json
from bisect import bisect_right
from collections import Counter, defaultdict
from typing import Any

import numpy as np

from . import Fault, History, Life, seconds

LABELS = {"true_alarm": True, "fixed": True, "false_alarm": False, "not_a_fault": False}
#: An earlier time is that of a clock which was not set since the power came.
CLOCK_IS_SET_FROM_MS = 1_704_067_200_000
NOT_RUNNING = {"off", "idle", "transient"}


class Machine:
    """What was read of one asset; 18 bytes a reading."""

    def __init__(self) -> None:
        self.ts_ms, self.point, self.value = array.array("q"), array.array("H"), array.array("d")
        #: Some of its readings have expired before they could be read.
        self.expired = False
        #: (ms, operating state), ms of each maintenance, {id of the command: (ms, whether it says failure)}.
        self.states, self.ends, self.labels = [], [], {}
        #: Ids of labels that the gateway refused: for an alarm that never was, for instance.
        self.refused = set()


class Topics:
    """Takes records in the order of their partition, then tells the lives."""

    def __init__(self, points: dict[str, str], assets: set[str] | None = None):
        """`points`: names of the points that are wanted, with their units. `assets`: only these."""
        self.units, self.index, self.assets = points, {name: index for index, name in enumerate(points)}, assets
        self.machines: dict[str, Machine] = defaultdict(Machine)
        self.left_out: Counter = Counter()

    def machine(self, record: dict, where: str) -> Machine | None:
        if record.get("sv") != 1:
            raise Fault(f"{where}, `sv`: `{record.get('sv')}` is not 1, the version of records that is read")
        asset = record.get("asset")
        if asset is None or (self.assets is not None and asset not in self.assets):
            return None
        return self.machines[asset]

    def reading(self, record: dict, where: str, expired: bool) -> None:
        """Of `hark.readings.v1`. `expired`: older records of the partition are gone."""
        machine, point = self.machine(record, where), of(record, "point", str, where)
        if machine is None:
            self.left_out["readings of other assets"] += 1
        elif point not in self.index:
            self.left_out["readings of points that the bundle does not take"] += 1
        elif of(record, "unit", str, where) != self.units[point]:
            self.left_out[f"readings of `{point}` in `{record['unit']}` instead of `{self.units[point]}`"] += 1
        elif of(record, "ts_ms", int, where) < CLOCK_IS_SET_FROM_MS:
            self.left_out["readings of before 2024, when a clock was not set"] += 1
        elif record.get("reason") == "clock" and record.get("ts_source") == "sensor":
            self.left_out["readings whose sensor's clock could not be trusted"] += 1
        else:
            bad = of(record, "quality", str, where) == "bad"
            self.left_out["values of bad quality"] += bad
            machine.expired |= expired
            machine.ts_ms.append(record["ts_ms"])
            machine.point.append(self.index[point])
            machine.value.append(np.nan if bad else of(record, "value", (int, float), where))

    def event(self, record: dict, where: str) -> None:
        """Of `hark.events.v1`."""
        machine, kind = self.machine(record, where), of(record, "kind", str, where)
        if kind == "gap" and record.get("gap_lane") == "inputs":
            first, last = (of(record, field, int, where) for field in ("gap_from_seq", "gap_to_seq"))
            self.left_out["records of inputs that never arrived, which gap events name"] += last - first + 1
        if machine is None:
            return
        if kind == "maintenance":
            machine.ends.append(of(record, "ts_ms", int, where))
        elif kind == "operating_state" and record.get("what") is None:
            machine.states.append((of(record, "ts_ms", int, where), record.get("state")))
        elif kind == "audit" and record.get("command") == "label" and record.get("result") == "refused":
            machine.refused.add(record.get("command_id"))
        elif kind == "audit" and record.get("result") == "success" and record.get("command") in ("label", "maintenance_done"):
            detail = json.loads(record.get("detail_json") or "{}")
            failed = LABELS.get(detail.get("label")) if record["command"] == "label" else True if detail.get("failure_mode") else None
            self.label(machine, record, "ts_ms", failed, where)

    def feedback(self, record: dict, where: str) -> None:
        """Of `hark.feedback.v1`: any program may write there, so what is not as it should be is left out and counted."""
        try:
            machine, label = self.machine(record, where), record.get("label")
            if machine is not None and label is not None:
                self.label(machine, record | {"ts_ms": issued_ms(record)}, "ts_ms", LABELS.get(label), where)
                self.left_out["labels in feedback that say none of " + ", ".join(LABELS)] += label not in LABELS
        except (Fault, AttributeError, TypeError, ValueError):
            self.left_out["records of feedback that are not as their schema says"] += 1

    def label(self, machine: Machine, record: dict, key: str, failed: bool | None, where: str) -> None:
        # The same command stands in feedback and in the answer of the gateway.
        if failed is not None:
            machine.labels[record.get("command_id") or where] = (of(record, key, int, where), failed)

    def lives(self, origin: str, grid_ms: int, label_within_ms: int) -> History:
        """The lives that were read, rows `grid_ms` apart."""
        lives = []
        for asset, machine in sorted(self.machines.items()):
            ends = sorted(set(machine.ends))
            labels = {command: said for command, said in machine.labels.items() if command not in machine.refused}
            self.left_out["labels that the gateway refused"] += len(machine.labels) - len(labels)
            failed, unused = verdicts(ends, labels, label_within_ms)
            self.left_out["labels farther from any maintenance than a label may be"] += unused
            ts_ms = np.array(machine.ts_ms)
            known_from = ts_ms.min() if machine.expired and len(ts_ms) else 0
            for number in range(len(ends) + 1):
                begin, end = ends[number - 1] if number else 0, ends[number] if number < len(ends) else None
                of_life = (ts_ms >= begin) & (ts_ms < end if end is not None else True)
                if not of_life.any():
                    self.left_out["lives without a reading"] += end is not None
                    continue
                slots, values = self.pivot(machine, of_life, grid_ms)
                if len(slots) == 0:
                    self.left_out["lives in which the machine never ran"] += 1
                    continue
                name = "running" if end is None else datetime.datetime.fromtimestamp(end / 1e3, datetime.UTC).isoformat(timespec="milliseconds")
                whole = not machine.expired or begin >= known_from
                lives.append(Life(f"{asset}/{name}", end in failed, 1 if whole else None, slots * grid_ms / 1e3, values))
        return History(origin, tuple(self.index), lives, +self.left_out)

    def pivot(self, machine: Machine, of_life: np.ndarray, grid_ms: int) -> tuple[np.ndarray, np.ndarray]:
        """Numbers of the slots that are rows, and rows x points."""
        ts_ms, point, value = (np.array(column)[of_life] for column in (machine.ts_ms, machine.point, machine.value))
        # Newest first, of equal times the one that came last: the first of each slot and point is then its value.
        order = np.lexsort((np.arange(len(ts_ms)), ts_ms))[::-1]
        slots, row = np.unique(ts_ms[order] // grid_ms, return_inverse=True)
        cells, newest = np.unique(row * len(self.index) + point[order], return_index=True)
        values = np.full((len(slots), len(self.index)), np.nan)
        values.flat[cells] = value[order][newest]
        states = sorted(machine.states, key=lambda state: state[0])
        times = [time for time, _ in states]
        runs = np.array([(at := bisect_right(times, slot * grid_ms)) == 0 or states[at - 1][1] not in NOT_RUNNING for slot in slots], dtype=bool)
        self.left_out["rows in which the machine was off, idle or changing its load"] += int((~runs).sum())
        return slots[runs], values[runs]


def verdicts(ends: list[int], labels: dict[str, tuple[int, bool]], within_ms: int) -> tuple[set[int], int]:
    """Which of `ends` were failures, and how many labels were too far from all of them."""
    said, unused = {}, 0
    for time, failed in sorted(labels.values()):
        near = min(ends, key=lambda end: abs(end - time), default=None)
        if near is None or abs(near - time) > within_ms:
            unused += 1
        else:
            said[near] = failed
    return {end for end, failed in said.items() if failed}, unused


def of(record: dict, field: str, kind: Any, where: str) -> Any:
    """A field that must be there."""
    value = record.get(field)
    if not isinstance(value, kind) or isinstance(value, bool):
        raise Fault(f"{where}, `{field}`: `{value}` is not {'a number' if kind != str else 'a text'}")
    return value


def issued_ms(record: dict) -> int:
    """When a command was given: people label later than they see, and `ts` is only when the record was written."""
    return int(seconds(datetime.datetime.fromisoformat(record["issued_at"])) * 1e3)
