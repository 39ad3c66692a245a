"""One command of a pipeline: train a bundle on new history, set it against the active one on lives that neither may learn from, refuse it if it is worse.

    python models/retrain --from-kafka kafka-1:9092 --active models/turbofan-rul/with-age --program target/release/hark --out DIR --report REPORT.md

Held out are lives by a hash of their name, so the same ones each time: what this command made never learned from them. A bundle that was made otherwise may
have, which is in its favour. `--new NAME` in place of `--active` makes a first bundle, which must be better than always saying the same.

Exit codes: 0 accepted, the bundle is in DIR; 1 refused, and nothing was written to DIR; 2 nothing was judged: wrong arguments, a history that cannot be used.
The report is written in the first two cases. The same history, program, arguments and kind of processor give the same bytes.
"""

import argparse
import hashlib
import importlib
import os
import pathlib
import subprocess
import sys
import tempfile

# Sums over several threads come out in another order each time.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["OPENBLAS_NUM_THREADS"] = "1"

MODELS = pathlib.Path(__file__).resolve().parents[1]
sys.path[:0] = [str(MODELS), str(MODELS / "retrain")]

import judge  # noqa: E402
import numpy as np  # noqa: E402
from evaluate.report import Report  # noqa: E402
from history import Fault, History, Life, source  # noqa: E402

import features  # noqa: E402

#: Lives that ended in failure, at least. With fewer in training calibration by fold has nothing to stand on, with fewer held out noise decides.
TRAINED_LEAST, HELD_OUT_LEAST = 20, 10


class Refusal(Exception):
    """The candidate is not taken."""


def trainer_of(name: str):
    """The module `retraining` of the folder whose bundle is named so."""
    for path in sorted(MODELS.glob("*/retraining.py")):
        if name.startswith(path.parent.name):
            sys.path.insert(0, str(path.parent))
            module = importlib.import_module("retraining")
            if name in module.BUNDLES:
                return module
    raise Fault(f"nothing here trains a bundle named `{name}`")


def is_held_out(name: str, share: float) -> bool:
    return int(hashlib.sha256(name.encode()).hexdigest()[:8], 16) < share * 2**32


def split(history: History, with_age: bool, share: float, report: Report) -> tuple[History, list[Life]]:
    """Lives to train on and lives to judge by, of those that failed."""
    usable = [life for life in history.failed() if life.first_row is not None or not with_age]
    held_out = [life for life in usable if is_held_out(life.name, share)]
    trained = history.of(life for life in usable if not is_held_out(life.name, share))
    if len(usable) < len(history.failed()):
        report.text(f"Left out: {len(history.failed()) - len(usable)} lives of unknown age: their beginning is not in the history.")
    report.text(
        f"Trained on {len(trained.lives)} lives that ended in failure, {sum(len(life.values) for life in trained.lives)} rows; held out by a hash of "
        f"their name: {len(held_out)}, {sum(len(life.values) for life in held_out)} rows. Censored lives are not used: nobody knows how long they would be."
    )
    if len(trained.lives) < TRAINED_LEAST or len(held_out) < HELD_OUT_LEAST:
        raise Refusal(
            f"too few lives that ended in failure: {len(trained.lives)} to train on, of at least {TRAINED_LEAST}, and {len(held_out)} held out, "
            f"of at least {HELD_OUT_LEAST}"
        )
    return trained, held_out


def compare(candidate: judge.Bundle, active: judge.Bundle | None, trained: History, held_out: list[Life], program: str, report: Report) -> None:
    """Writes the figures; raises `Refusal` if the candidate is worse."""
    bundles = [candidate] if active is None else [active, candidate]
    answers = []
    for bundle in bundles:
        matrices, without = features.of_lives(program, held_out, trained.points, bundle.specification)
        answers.append([bundle.answers(matrix) for matrix in matrices])
        for cause, count in sorted(without.items()):
            report.text(f"Without an answer of {bundle.version}: {count} held-out rows, {cause}.")
    there = [[~np.isnan(point) for point, _ in of_bundle] for of_bundle in answers]
    judged = [np.logical_and.reduce(of_life) for of_life in zip(*there, strict=True)]
    kept = [index for index, rows in enumerate(judged) if rows.any()]
    if len(kept) < HELD_OUT_LEAST:
        raise Refusal(f"only {len(kept)} of {len(held_out)} held-out lives have a row that can be judged; at least {HELD_OUT_LEAST} are needed")

    cap = bundles[0].forecast.get("mean_cut", bundles[0].forecast["cap"])
    judged, truth = [judged[index] for index in kept], [np.minimum(held_out[index].remaining(), cap).astype(float) for index in kept]
    found = [judge.of_bundle(bundle, [of_bundle[index] for index in kept], truth, judged) for bundle, of_bundle in zip(bundles, answers, strict=True)]
    constant = judge.of_constant(trained.lives, cap, truth, judged)
    named = [(f"{'candidate' if bundle is candidate else 'active'}, {bundle.version}", of_it) for bundle, of_it in zip(bundles, found, strict=True)]
    figures_table([*named, ("always the same", constant)], sum(rows.sum() for rows in judged), len(kept), cap, bundles[0].forecast["unit"], report)
    verdict(found[-1], found[0] if active else constant, constant, "the active one" if active else "always the same", report)
    lost = 1 - sum(rows.sum() for rows in there[-1]) / max(sum(rows.sum() for rows in there[0]), 1)
    if lost > judge.UNANSWERED_MOST:
        raise Refusal(f"it leaves {lost:.1%} of the rows without an answer that the active bundle answers; at most {judge.UNANSWERED_MOST:.0%}")


def figures_table(named: list[tuple[str, judge.Figures]], rows: int, lives: int, cap: float, unit: str, report: Report) -> None:
    report.heading("Held-out lives")
    report.text(f"{rows} rows of {lives} lives, remaining life cut at {cap:g} rows ({unit}), every life weighing the same.\n")
    intervals = [f"{nominal} %: {what}" for nominal in judge.INTERVALS for what in ("coverage", "width", "Winkler score")]
    report.table(["bundle", "RMSE", "score of a row", *intervals])
    for name, of_it in named:
        cells = [f"{of_it.rmse():.2f}", f"{of_it.score.mean():.2f}"]
        for nominal in judge.INTERVALS:
            cells += [f"{of_it.covered[nominal].mean():.1%}", f"{of_it.width[nominal].mean():.1f}", f"{of_it.winkler[nominal].mean():.1f}"]
        report.row([name, *cells])


def verdict(candidate: judge.Figures, other: judge.Figures, constant: judge.Figures, against: str, report: Report) -> None:
    report.heading("Verdict")
    report.table([f"candidate against {against}", "ratio", "95 % interval", "at most", "kept"])
    found = judge.ratios(candidate, other)
    for ratio in found:
        kept = "NO" if ratio.is_worse() else "yes"
        report.row([ratio.what, f"{ratio.value:.3f}", f"{ratio.low:.3f} to {ratio.high:.3f}", f"{ratio.most:g}, and not surely above 1", kept])
    worse = [f"its {ratio.what} is {ratio.value:.3f} times that of {against} ({ratio.low:.3f} to {ratio.high:.3f})" for ratio in found if ratio.is_worse()]
    if candidate.rmse() >= constant.rmse():
        worse.append("always saying the same is as good")
    if worse:
        raise Refusal("; ".join(worse))


def asked(program: str, *arguments) -> str:
    """What the program says of a bundle."""
    found = subprocess.run([program, "model", *arguments], capture_output=True, text=True)
    if found.returncode:
        raise Refusal(f"`hark model {arguments[0]}` says: {found.stderr.strip()}")
    return found.stdout


def retrain(arguments: argparse.Namespace, report: Report) -> None:
    """Trains, judges, and writes the bundle if it is taken. Raises `Refusal` if it is not, and `Fault` if there is nothing to judge."""
    active = judge.Bundle(arguments.active) if arguments.active else None
    name = active.name if active else arguments.new
    trainer = trainer_of(name)
    history = source.read(arguments, trainer.POINTS)
    report.heading(f"{name}: {'retrained' if active else 'trained'}", level=1)
    for line in history.summary():
        report.text(line + ".")
    trained, held_out = split(history, trainer.BUNDLES[name], arguments.hold_out, report)
    files = trainer.bundle_files(name, trained, arguments.program, arguments.seed)
    with tempfile.TemporaryDirectory() as folder:
        write(pathlib.Path(folder), files)
        compare(judge.Bundle(pathlib.Path(folder)), active, trained, held_out, arguments.program, report)
        # How long a run took is another number each time.
        report.text(f"hark model verify: {asked(arguments.program, 'verify', folder).split(',')[0]}.")
        files["CARD.md"] = asked(arguments.program, "show", folder).encode()
    write(arguments.out, files)


def write(folder: pathlib.Path, files: dict[str, bytes]) -> None:
    """The manifest last, since it vouches for the others."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in sorted(files, key=lambda name: name == "manifest.toml"):
        (folder / name).write_bytes(files[name])


def share(text: str) -> float:
    value = float(text)
    if not 0 < value < 1:
        raise ValueError
    return value


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="retrain", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    source.add_arguments(parser)
    bundle = parser.add_mutually_exclusive_group(required=True)
    bundle.add_argument("--active", type=pathlib.Path, metavar="DIR", help="the bundle in use")
    bundle.add_argument("--new", metavar="NAME", help="a first bundle, such as turbofan-rul-with-age")
    parser.add_argument("--program", default="hark", help="the program, which computes the features and verifies the bundle [hark]")
    parser.add_argument("--out", type=pathlib.Path, required=True, metavar="DIR", help="where the bundle is written if it is accepted")
    parser.add_argument("--report", type=pathlib.Path, required=True, metavar="FILE")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--hold-out", type=share, default=0.25, metavar="SHARE", help="of the lives, never trained on [0.25]")
    arguments = parser.parse_args(words)
    report, code = Report(), 0
    try:
        retrain(arguments, report)
        report.text(f"**Accepted**, written to `{arguments.out}`.")
    except Refusal as refusal:
        report.text(f"**Refused**: {refusal}.")
        code = 1
    except (Fault, OSError) as fault:
        print(f"retrain: {fault}", file=sys.stderr)
        return 2
    arguments.report.write_text("\n".join(report.lines) + "\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
