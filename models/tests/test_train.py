"""`models/turbofan-rul/train.py` on files as C-MAPSS has them, of made-up engines, with networks that learn for a moment only.

Needs the program: $HARK, or one built in target/.
"""

import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"

import numpy as np

MODELS = pathlib.Path(__file__).resolve().parents[1]
TURBOFAN = MODELS / "turbofan-rul"
sys.path[:0] = [str(MODELS), str(TURBOFAN)]

import engines  # noqa: E402

BUILT = [pathlib.Path(os.environ["HARK"])] if "HARK" in os.environ else [MODELS.parent / f"target/{kind}/hark" for kind in ("release", "debug")]
PROGRAM = next((path for path in BUILT if path.is_file()), None)
#: Beside the clone, where there are any; no row of them is in it.
C_MAPSS = MODELS.parents[1] / "shared/data/cmapss"
QUICK = f"import sys; sys.path.insert(0, {str(TURBOFAN)!r}); import train; train.Network.MEMBERS = train.Network.EPOCHS = 1; train.main()"


def write_sets(folder: pathlib.Path) -> None:
    """Training files of four sets, each of ten engines that drift in their last rows."""
    random = np.random.default_rng(5)
    for name in engines.TRAINING_SETS:
        lives = []
        for unit in range(1, 11):
            rows = int(random.integers(60, 90))
            worn = np.clip(50 - np.arange(rows - 1, -1, -1), 0, None)[:, None] / 50.0
            sensors = random.standard_normal((rows, len(engines.SENSORS))) + 6 * worn**2
            lives.append(np.hstack([np.full((rows, 1), unit), np.arange(1, rows + 1)[:, None], np.tile([0.0, 0.0, 100.0], (rows, 1)), sensors]))
        np.savetxt(folder / f"train_{name}.txt", np.concatenate(lives), fmt="%.6g")


class Train(unittest.TestCase):
    @unittest.skipUnless(PROGRAM, "no program: set HARK, or build it")
    def test_the_same_files_give_the_same_bytes_in_another_process(self):
        with tempfile.TemporaryDirectory() as made:
            folder, found = pathlib.Path(made), []
            write_sets(folder)
            for seed in ("1", "2"):
                out = folder / seed
                out.mkdir()
                command = [sys.executable, "-c", QUICK, "--data", folder, "--program", PROGRAM, "--variant", "with-age", "--out", out]
                # The order of sets of words differs with this seed, which must not matter.
                subprocess.run(list(map(str, command)), env=os.environ | {"PYTHONHASHSEED": seed}, stdout=subprocess.DEVNULL, check=True)
                found.append({path.name: path.read_bytes() for path in (out / "with-age").iterdir()})
            self.assertEqual(len(found[0]), 5)
            self.assertEqual(*found)

    @unittest.skipUnless(C_MAPSS.is_dir(), "no C-MAPSS beside the clone")
    def test_the_shipped_specifications_are_those_of_the_files(self):
        rows = np.concatenate([engines.read(C_MAPSS, "train", name) for name in engines.TRAINING_SETS])
        for variant, age in (("with-age", True), ("without-age", False)):
            self.assertEqual((TURBOFAN / variant / "features.toml").read_text(), engines.specification(rows, age))


if __name__ == "__main__":
    unittest.main()
