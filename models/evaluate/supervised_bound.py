"""What is left of SKAB's faults without a sensor: a model that is trained on labels, which no agent has, as a bound of what the other sensors can tell.

    python3 models/evaluate/supervised_bound.py --data DIR

Boosted trees on values, means and spreads of every file but one, judged on that one, each file in turn. Where they do not find the faults, neither can a
score that has seen normal rows alone.
"""

import argparse
import csv
import pathlib

import lightgbm
import numpy as np

from judge import rates
from skab import COMMISSIONING_ROWS, files_of

SMOOTHING = (0.3, 0.1, 0.03)
SETTINGS = {"n_estimators": 150, "num_leaves": 15, "learning_rate": 0.06, "min_child_samples": 100, "colsample_bytree": 0.5, "subsample": 0.6, "subsample_freq": 1}


def values(file, columns):
    """Rows x columns."""
    return np.array([[float(row[name]) for name in columns] for row in csv.DictReader(file["text"].splitlines(), delimiter=";")])


def features(values):
    """Of z-scores against the commissioning rows: themselves, smoothed values, logarithms of smoothed squares around them."""
    normal = values[:COMMISSIONING_ROWS]
    deviation = normal.std(axis=0)
    z = (values - normal.mean(axis=0)) / np.where(deviation < 1e-9, 1.0, deviation)
    columns = [z]
    for weight in SMOOTHING:
        mean, square = z[:100].mean(axis=0), np.ones(z.shape[1])
        means, squares = np.empty_like(z), np.empty_like(z)
        for row, now in enumerate(z):
            mean = mean + weight * (now - mean)
            square = square + weight * ((now - mean) ** 2 - square)
            means[row], squares[row] = mean, square
        columns += [means, np.log(squares + 1e-3)]
    return np.hstack(columns)[COMMISSIONING_ROWS:]


def chances(inputs, truths):
    """Of each file by a model that has not seen it."""
    found = []
    for left_out in range(len(inputs)):
        seen = [index for index in range(len(inputs)) if index != left_out]
        model = lightgbm.LGBMClassifier(**SETTINGS, random_state=1, n_jobs=1, deterministic=True, force_row_wise=True, verbose=-1)
        model.fit(np.vstack([inputs[index] for index in seen])[::2], np.concatenate([truths[index] for index in seen])[::2])
        found.append(model.predict_proba(inputs[left_out])[:, 1])
    return np.concatenate(found)


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--data", type=pathlib.Path, required=True, help="folder with skab/")
    files = files_of(arguments.parse_args().data / "skab")
    truths = [np.array(file["truth"]) for file in files]
    all_rows = list(np.concatenate(truths))
    print("| without | F1 at a chance of 0.5 | F1, FAR % under the threshold that is best on these very rows |\n|---|---|---|")
    print(f"| always on | {rates(all_rows, [True] * len(all_rows))[0]:.3f} | |")
    for without in (None, *files[0]["columns"]):
        kept = [name for name in files[0]["columns"] if name != without]
        chance = chances([features(values(file, kept)) for file in files], truths)
        best = max((rates(all_rows, list(chance >= threshold)) for threshold in np.linspace(0.05, 0.95, 91)), key=lambda figures: figures[0])
        print(f"| {without or 'nothing'} | {rates(all_rows, list(chance >= 0.5))[0]:.3f} | {best[0]:.3f}, {100 * best[1]:.0f} |", flush=True)


if __name__ == "__main__":
    main()
