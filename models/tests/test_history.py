"""History from tables and from records of topics."""

import contextlib
import csv
import datetime
import gzip
import io
import json
import math
import os
import pathlib
import sqlite3
import sys
import tempfile
import types
import unittest
from unittest import mock

# These files share a process, in which the first import of numpy counts: sums over several threads come out in another order, and slowly beside others.
os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"

import confluent_kafka
import numpy as np
import pyarrow
import pyarrow.parquet

MODELS = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(MODELS))

from history import Fault, kafka, tables, topics  # noqa: E402

HEADER = ["unit", "cycle", "temp", "flow", "note", "end"]
ROWS = [
    ["a", 1, 20.5, None, "x", None],
    ["b", 4, 1.0, 2.0, "", ""],
    ["a", 2, 21.0, 3.0, "", "censored"],
    ["b", 5, None, 2.5, "", "failure"],
]
COLUMNS = tables.Columns("unit", "end", "cycle")
SCHEMAS = MODELS.parent / "config/kafka/schemas"


def table(rows, header=HEADER):
    return tables.Table("a.csv", header, iter(rows), "line", 2)


class Tables(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)

    def check(self, found, origin):
        history = tables.history([found], ["temp", "flow"], COLUMNS)
        told = [(life.name, life.failed, life.first_row) for life in history.lives]
        self.assertEqual(told, [("a", False, 1), ("b", True, 4)])
        np.testing.assert_array_equal(history.lives[0].values, [[20.5, math.nan], [21.0, 3.0]])
        np.testing.assert_array_equal(history.lives[1].values, [[1.0, 2.0], [math.nan, 2.5]])
        self.assertIn(origin, history.summary()[0])
        self.assertEqual(history.left_out, {"columns that are no point of the bundle": 1})

    def test_the_same_from_everywhere(self):
        for name, opened in (("t.csv", open), ("t.csv.gz", lambda path, mode, newline: gzip.open(path, mode + "t", newline=newline))):
            path = self.folder / name
            with opened(path, "w", newline="") as file:
                csv.writer(file).writerows([HEADER, *ROWS])
            self.check(tables.read_csv(path), name)
        path = self.folder / "t.parquet"
        pyarrow.parquet.write_table(pyarrow.table({name: list(column) for name, column in zip(HEADER, zip(*ROWS, strict=True), strict=True)}), path)
        self.check(tables.read_parquet(path), "t.parquet")
        with contextlib.closing(sqlite3.connect(self.folder / "t.sqlite")) as database:
            database.execute("create table t (unit text, cycle int, temp real, flow real, note text, end text)")
            database.executemany("insert into t values (?, ?, ?, ?, ?, ?)", ROWS)
            database.commit()
        self.check(tables.read_sql(f"sqlite:///{self.folder}/t.sqlite", "select * from t order by cycle"), "select * from t")

    def test_each_fault_says_where_and_what(self):
        def check(rows, expected, columns=COLUMNS, header=HEADER):
            with self.assertRaises(Fault) as fault:
                tables.history([table(rows, header)], ["temp", "flow"], columns)
            self.assertIn(expected, str(fault.exception))

        good = ["a", "1", "2", "3", "", "failure"]
        check([], "no column is named `temp`; there are unit, cycle, heat", header=["unit", "cycle", "heat", "flow", "end"])
        check([good, ["a", "2", "warm", "3", "", ""]], "`a.csv`, line 3, column `temp`: `warm` is not a finite number")
        check([["a", "1", "inf", "3", "", ""]], "column `temp`: `inf` is not a finite number")
        check([good, ["a", "2", "3"]], "line 3: 3 cells; expected 6")
        check([good, ["a", "3", "2", "3", "", ""]], "line 3, column `cycle`: `3` is not 2, the next row of life `a`")
        check([["a", "0", "2", "3", "", ""]], "column `cycle`: `0` is not the number of a row")
        check([["", "1", "2", "3", "", ""]], "column `unit`: `` is not the name of a life")
        check([["a", "1", "2", "3", "", "broken"]], "line 2, column `end`: `broken` is not how a life ended")
        late = tables.Columns("unit", time="note")
        back = [["a", "1", "2", "3", "2026-12-01T06:00:00Z", ""], ["a", "2", "2", "3", "1764568799", ""]]
        check(back, "`1764568799` is not later than the row before it", late)
        check([["a", "1", "2", "3", "noon", ""]], "`noon` is not a time", late)
        for read in (tables.read_csv, tables.read_parquet):
            self.assertRaisesRegex(Fault, "cannot read .*nowhere", read, self.folder / "nowhere.csv")
        (self.folder / "t.gz").write_bytes(b"no gzip")
        self.assertRaisesRegex(Fault, "cannot read .*t.gz", tables.read_csv, self.folder / "t.gz")
        self.assertRaisesRegex(Fault, "the query failed: .*no such table", tables.read_sql, "sqlite://", "select * from t")


DAY, T0 = 86_400_000, 1_778_508_000_000


def example(topic, **changes):
    return json.loads((SCHEMAS / f"hark.{topic}.v1.example.json").read_text()) | {"asset": "m"} | changes


class Records(unittest.TestCase):
    def setUp(self):
        self.topics = topics.Topics({"p": "mm/s", "q": "Cel"})

    def reading(self, at, point="p", value=1.0, expired=False, **changes):
        unit = {"p": "mm/s", "q": "Cel"}.get(point, "1")
        self.topics.reading(example("readings", ts_ms=T0 + at, point=point, value=value, unit=unit, **changes), "here", expired)

    def event(self, at, kind, **changes):
        self.topics.event(example("events", ts_ms=T0 + at, kind=kind, **changes), "here")

    def lives(self):
        return self.topics.lives("there", 1_000, 7 * DAY).lives

    def test_a_slot_holds_its_newest_readings_and_nothing_is_filled_in(self):
        self.reading(2_900, value=2.0)
        self.reading(2_100, value=1.0)
        self.reading(2_000, "q", 50.0)
        self.reading(4_000, "q", 51.0, quality="uncertain")
        self.reading(4_100, value=9.0)
        self.reading(4_200, value=None, quality="bad")
        [life] = self.lives()
        np.testing.assert_array_equal(life.values, [[2.0, 50.0], [math.nan, 51.0]])
        np.testing.assert_array_equal(life.time * 1e3 - T0, [2_000, 4_000])
        self.assertEqual((life.name, life.failed, life.first_row), ("m/running", False, 1))
        self.assertEqual(self.topics.left_out["values of bad quality"], 1)

    def test_what_is_left_out_is_counted(self):
        self.topics.assets = {"m"}
        self.reading(0)
        self.reading(0, "r")
        self.reading(0, asset="other")
        self.reading(-T0 + 5)
        self.reading(0, reason="clock", ts_source="sensor")
        self.topics.reading(example("readings", ts_ms=T0, point="p", unit="m/s"), "here", False)
        self.event(0, "gap")
        history = self.topics.lives("there", 1_000, DAY)
        self.assertEqual(len(history.lives[0].values), 1)
        self.assertEqual(sorted(history.left_out.values()), [1, 1, 1, 1, 1, 8192])
        self.assertTrue(any("in `m/s` instead of `mm/s`" in line for line in history.summary()))

    def test_slots_in_which_the_machine_did_not_run_are_no_rows(self):
        for at in range(0, 6_000, 1_000):
            self.reading(at)
        self.event(1_500, "operating_state", state="idle")
        self.event(3_500, "operating_state", state="running")
        self.event(3_600, "operating_state", state="idle", what="unseen_regime")
        self.assertEqual([int(time * 1e3) - T0 for time in self.lives()[0].time], [0, 1_000, 4_000, 5_000])

    def test_labels_near_an_end_say_whether_it_was_a_failure(self):
        def check(expected, *labels, ended=True):
            self.setUp()
            for day in range(60):
                self.reading(day * DAY)
            if ended:
                self.event(30 * DAY, "maintenance", what="done")
            for number, label in enumerate(labels):
                label(str(number))
            self.assertEqual([life.failed for life in self.lives()], [expected, False][: 1 + ended])

        def feedback(day, label, **changes):
            issued = datetime.datetime.fromtimestamp(T0 / 1e3 + day * DAY / 1e3, datetime.UTC).isoformat()
            return lambda name: self.topics.feedback(example("feedback", issued_at=issued, label=label, command_id=name, **changes), "here")

        def audit(day, command, detail, result="success"):
            return lambda name: self.event(day * DAY, "audit", command=command, command_id=name, result=result, detail_json=json.dumps(detail))

        check(False)
        check(True, feedback(29, "true_alarm"))
        check(True, feedback(36, "fixed"))
        check(False, feedback(22, "true_alarm"))
        check(False, feedback(38, "fixed"))
        check(False, feedback(29, "false_alarm"))
        check(False, feedback(29, "true_alarm"), feedback(30, "not_a_fault"))
        check(True, feedback(30, "true_alarm"), feedback(29, "not_a_fault"))
        check(False, feedback(29, "true_alarm"), ended=False)
        check(False, feedback(29, "true_alarm", asset="other"))
        check(True, audit(29, "label", {"label": "true_alarm"}))
        check(False, audit(29, "label", {"label": "true_alarm"}, "refused"))
        check(False, feedback(29, "true_alarm"), lambda _: audit(29, "label", {"label": "true_alarm"}, "refused")("0"))
        check(True, audit(30, "maintenance_done", {"failure_mode": "VIB"}))
        check(False, audit(30, "maintenance_done", {"failure_mode": None}))

    def test_a_label_counts_for_the_end_nearest_to_it(self):
        ends = [0, 10, 20]
        said = lambda *labels: topics.verdicts(ends, dict(enumerate(labels)), 6)  # noqa: E731
        self.assertEqual(said((6, True)), ({10}, 0))
        self.assertEqual(said((14, True), (16, False), (26, True), (27, True)), ({10, 20}, 1))

    def test_names_stay_and_ages_are_unknown_where_readings_expired(self):
        def named(expired):
            self.setUp()
            for at in (DAY, 3 * DAY, 5 * DAY):
                self.reading(at, expired=expired)
            self.event(2 * DAY, "maintenance")
            self.event(4 * DAY, "maintenance")
            return [(life.name, life.first_row) for life in self.lives()]

        names = ["m/2026-05-13T14:00:00.000+00:00", "m/2026-05-15T14:00:00.000+00:00", "m/running"]
        self.assertEqual(named(False), list(zip(names, [1, 1, 1], strict=True)))
        self.assertEqual(named(True), list(zip(names, [None, 1, 1], strict=True)))

    def test_a_record_that_is_wrong_is_named(self):
        wrong = [({"value": "1"}, "here, `value`: `1` is not a number"), ({"sv": 2}, "`sv`: `2` is not 1"), ({"unit": None}, "`unit`: `None` is not a text")]
        for changes, expected in wrong:
            with self.assertRaises(Fault) as fault:
                self.topics.reading(example("readings", ts_ms=T0, point="p") | changes, "here", False)
            self.assertIn(expected, str(fault.exception))
        self.assertRaisesRegex(Fault, "here: expected a JSON object", kafka.value_of, b"{", "here", True)
        self.assertEqual(kafka.value_of(b'{"schema": {}, "payload": {"sv": 1}}', "here", True), {"sv": 1})
        # Any program of the plant may write feedback: one that is wrong does not end training.
        for record in (None, example("feedback", sv=9), example("feedback", label=5), example("feedback", issued_at="noon", label="fixed")):
            self.topics.feedback(record, "here")
        self.assertEqual(sorted((+self.topics.left_out).values()), [1, 3])


class Message:
    def __init__(self, partition, offset, value=b"{}", error=None):
        self.partition, self.offset, self.value, self.error = (lambda: partition), (lambda: offset), (lambda: value), (lambda: error)


class Consumer:
    """Two partitions with records 5 to 7 and 0 to 2 at the start, answered by `batches`."""

    def __init__(self, *batches, partitions=(0, 1), error=None):
        self.batches, self.found = list(batches), types.SimpleNamespace(error=error, partitions=dict.fromkeys(partitions))

    def list_topics(self, topic, timeout):
        return types.SimpleNamespace(topics={topic: self.found})

    def get_watermark_offsets(self, partition, timeout):
        return [(5, 8), (0, 3)][partition.partition]

    def assign(self, partitions):
        self.assigned = [(partition.partition, partition.offset) for partition in partitions]

    def consume(self, count, timeout):
        return self.batches.pop(0) if self.batches else []

    def unassign(self):
        pass


class Reading(unittest.TestCase):
    def read(self, consumer):
        taken = []
        with contextlib.redirect_stderr(io.StringIO()), mock.patch.object(kafka, "SILENT_MOST_S", 0.1):
            kafka.read_topic(consumer, "t", lambda record, where, expired: taken.append((where, expired)))
        return taken

    def test_it_ends_where_the_topic_ended_at_the_start(self):
        at_end = confluent_kafka.KafkaError(confluent_kafka.KafkaError._PARTITION_EOF)
        # From offset 1 on a transaction of partition 1 is open: what is stable ends there. Offset 8 of partition 0 was not there yet.
        consumer = Consumer([Message(0, 5), Message(1, 0), Message(0, 7), Message(0, 8)], [], [Message(1, 1, error=at_end)])
        where = [("`t`, partition 0, offset 5", True), ("`t`, partition 1, offset 0", False), ("`t`, partition 0, offset 7", True)]
        self.assertEqual(self.read(consumer), where)
        self.assertEqual(consumer.assigned, [(0, 5), (1, 0)])

    def test_it_gives_up_and_says_where(self):
        silent = r"`t`: nothing came for .* 1 records were read, partitions \[1\] are not at their end"
        self.assertRaisesRegex(Fault, silent, self.read, Consumer([Message(0, 7)]))
        self.assertRaisesRegex(Fault, "there is no topic `t`", self.read, Consumer(partitions=(), error="unknown"))
        failed = confluent_kafka.KafkaError(confluent_kafka.KafkaError._ALL_BROKERS_DOWN)
        self.assertRaises(confluent_kafka.KafkaException, self.read, Consumer([Message(0, 5, error=failed)]))
        self.assertRaisesRegex(Fault, "partition 0, offset 5: expected a JSON object", self.read, Consumer([Message(0, 5, b"x")]))


if __name__ == "__main__":
    unittest.main()
