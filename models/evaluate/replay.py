"""`hark replay` on one recorded file, as the program ships: one pass, one answer per row."""

import json
import pathlib
import subprocess
import tempfile

MODELS = pathlib.Path(__file__).resolve().parent.parent


class Hark:
    """The program, and how it is called."""

    def __init__(self, program, machine_days):
        self.program = pathlib.Path(program).resolve()
        #: Days of healthy simulated machines.
        self.machine_days = machine_days

    def replay(self, text, columns, *, grid="1s", commission_rows=None, commission=None, period=None, tables="", point=""):
        """Answers, one dict per row of `text` (separated values with a header), with a scored point `pN` for the Nth of `columns`.

        Commissioned on the first `commission_rows` rows, or on the text `commission`. `period`: seconds between rows, where no column tells the time.
        `tables`: more of the machine's file; `point`: more of each point.
        """
        with tempfile.TemporaryDirectory() as directory:
            config = pathlib.Path(directory)
            (config / "assets").mkdir()
            (config / "hark.toml").write_text(f"[gateway]\nid = 'evaluation'\norigin = 'replay'\n[inference]\nmodels = '{MODELS}'\n")
            points = "".join(f"[[point]]\nid = 'p{index}'\nunit = '1'\ncolumn = '{name}'\n{point}" for index, name in enumerate(columns))
            (config / "assets/machine.toml").write_text(f"id = 'machine'\ngrid = '{grid}'\n[commissioning]\nrows = 400\n{tables}{points}")
            (config / "input.csv").write_text(text)
            command = [self.program, "replay", "--config", config, "--asset", "machine", "--input", config / "input.csv"]
            if commission is not None:
                (config / "normal.csv").write_text(commission)
                command += ["--commission", config / "normal.csv"]
            if commission_rows is not None:
                command += ["--commission-rows", str(commission_rows)]
            if period is not None:
                command += ["--period", str(period)]
            replayed = subprocess.run(command, capture_output=True, text=True)
            if replayed.returncode != 0:
                raise RuntimeError(f"hark replay ended with {replayed.returncode}: {replayed.stderr.strip()}")
            return [json.loads(line) for line in replayed.stdout.splitlines()]
