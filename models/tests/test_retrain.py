"""`models/retrain` from a table of made-up engines to a bundle, with networks that learn for a moment only.

Needs the program: $HARK, or one built in target/.
"""

import contextlib
import csv
import importlib.util
import io
import os
import pathlib
import sys
import tempfile
import unittest
from unittest import mock

os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"

import numpy as np

MODELS = pathlib.Path(__file__).resolve().parents[1]
sys.path[:0] = [str(MODELS), str(MODELS / "retrain")]

specification = importlib.util.spec_from_file_location("retrain_main", MODELS / "retrain/__main__.py")
retrain = importlib.util.module_from_spec(specification)
specification.loader.exec_module(retrain)
trainer = retrain.trainer_of("turbofan-rul-with-age")

import judge  # noqa: E402
from forecast.network import Network  # noqa: E402

BUILT = [pathlib.Path(os.environ["HARK"])] if "HARK" in os.environ else [MODELS.parent / f"target/{kind}/hark" for kind in ("release", "debug")]
PROGRAM = next((path for path in BUILT if path.is_file()), None)
POINTS = list(trainer.POINTS)
SETTINGS = POINTS[:3]


def lives(count: int) -> dict[str, np.ndarray]:
    """Rows x points of engines that drift in their last 60 rows."""
    random, found = np.random.default_rng(7), {}
    for number in range(count):
        rows = int(random.integers(70, 110))
        worn = np.clip(60 - np.arange(rows - 1, -1, -1), 0, None)[:, None] / 60.0
        values = random.standard_normal((rows, len(POINTS))) + 6 * worn**2 * np.linspace(-1, 1, len(POINTS))
        values[:, : len(SETTINGS)] = (0.0, 0.0, 100.0)
        found[f"engine-{number}"] = values
    return found


@unittest.skipUnless(PROGRAM, "no program: set HARK, or build it")
class Retrain(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        for name, value in (("MEMBERS", 1), ("EPOCHS", 1)):
            patch = mock.patch.object(Network, name, value)
            patch.start()
            self.addCleanup(patch.stop)

    def run_on(self, history: dict[str, np.ndarray], out: str, *bundle: str) -> tuple[int, str]:
        """Exit code and report."""
        table = self.folder / "history.csv"
        with table.open("w", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(["life", *POINTS])
            rows.writerows([name, *(repr(float(value)) for value in row)] for name, values in history.items() for row in values)
        report = self.folder / f"{out}.md"
        words = ["--from-csv", table, *bundle, "--program", PROGRAM, "--out", self.folder / out, "--report", report]
        with contextlib.redirect_stdout(io.StringIO()):
            code = retrain.main([str(word) for word in words])
        return code, report.read_text() if report.is_file() else ""

    def files(self, out: str) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in (self.folder / out).iterdir()}

    def test_a_first_bundle_the_same_again_and_one_that_is_worse(self):
        good = lives(50)
        code, report = self.run_on(good, "first", "--new", "turbofan-rul-with-age")
        self.assertEqual(code, 0, report)
        self.assertEqual(len(self.files("first")), 6)
        self.assertIn("**Accepted**", report)

        # What is as good is not worse, and the same history gives the same bytes.
        code, report = self.run_on(good, "second", "--active", self.folder / "first")
        self.assertEqual(code, 0, report)
        self.assertIn("| RMSE | 1.000 | 1.000 to 1.000 |", report)
        self.assertEqual(self.files("first"), self.files("second"))

        # Lives whose rows stand in no order teach nothing about their end; those that are held out are as before.
        random = np.random.default_rng(1)
        mixed = {name: values if retrain.is_held_out(name, 0.25) else random.permutation(values) for name, values in good.items()}
        code, report = self.run_on(mixed, "third", "--active", self.folder / "first")
        self.assertEqual(code, 1, report)
        self.assertIn("**Refused**: its RMSE is ", report)
        self.assertFalse((self.folder / "third").exists())

    def test_too_few_lives_are_refused_by_number(self):
        code, report = self.run_on(lives(30), "out", "--new", "turbofan-rul-with-age")
        self.assertEqual(code, 1)
        self.assertRegex(report, r"too few lives that ended in failure: \d+ to train on, of at least 20, and \d held out, of at least 10")

    def test_what_cannot_be_judged_ends_with_2(self):
        said = io.StringIO()
        with contextlib.redirect_stderr(said):
            self.assertEqual(self.run_on({}, "out", "--new", "pump"), (2, ""))
            with mock.patch(f"{__name__}.POINTS", ["altitude"]):
                self.assertEqual(self.run_on({}, "out", "--new", "turbofan-rul-with-age"), (2, ""))
            self.assertRaisesRegex(SystemExit, "2", retrain.main, ["--new", "turbofan-rul-with-age"])
            self.assertRaisesRegex(SystemExit, "2", self.run_on, {}, "out", "--new", "turbofan-rul-with-age", "--hold-out", "1.5")
        self.assertIn("nothing here trains a bundle named `pump`", said.getvalue())
        self.assertIn("no column is named `mach`", said.getvalue())


class Judge(unittest.TestCase):
    def figures(self, error: float, width: float) -> judge.Figures:
        """Of twenty lives whose estimates are wrong by about `error`."""
        random = np.random.default_rng(3)
        truth = [np.arange(30.0) for _ in range(20)]
        points = [of_life + error * random.standard_normal(30) for of_life in truth]
        return judge.figures(truth, points, {nominal: [(point - width, point + width) for point in points] for nominal in (80, 90)})

    def test_a_wrong_number_counts_as_it_should(self):
        found = judge.figures([np.array([10.0, 20.0])], [np.array([12.0, 16.0])], {90: [(np.array([9.0, 14.0]), np.array([13.0, 18.0]))]})
        self.assertAlmostEqual(found.rmse(), 10**0.5)
        self.assertAlmostEqual(found.score[0], (np.expm1(0.2) + np.expm1(4 / 13)) / 2)
        self.assertEqual((found.covered[90][0], found.width[90][0], round(found.winkler[90][0], 9)), (0.5, 4.0, 4 + 0.5 * 20 * 2))

    def test_worse_is_beyond_a_margin_or_beyond_noise(self):
        def worse(candidate, other):
            return [ratio.is_worse() for ratio in judge.ratios(self.figures(*candidate), self.figures(*other))]

        self.assertEqual(worse((10, 15), (10, 15)), [False, False])
        self.assertEqual(worse((9, 15), (10, 15)), [False, False])
        self.assertEqual(worse((12, 18), (10, 15)), [True, True])
        self.assertEqual(worse((10.2, 15), (10, 15)), [True, True])
        self.assertEqual(worse((10, 30), (10, 15)), [False, True])
        self.assertTrue(judge.Ratio("x", 1.06, 0.9, 1.2, 1.05).is_worse())
        self.assertFalse(judge.Ratio("x", 1.04, 0.9, 1.2, 1.05).is_worse())


if __name__ == "__main__":
    unittest.main()
