"""Measures of detection, on rows of 0 and 1. No point adjustment anywhere."""

import bisect
import math


def rates(truth, alarms):
    """F1, false alarms as a part of all normal rows, missed ones as a part of all anomalous rows."""
    hits = sum(t and a for t, a in zip(truth, alarms))
    false = sum(a and not t for t, a in zip(truth, alarms))
    missed = sum(t and not a for t, a in zip(truth, alarms))
    return 2 * hits / max(1, 2 * hits + false + missed), false / max(1, truth.count(False)), missed / max(1, truth.count(True))


def changepoint_score(files, within_s=60):
    """The changepoint score of SKAB's leaderboard, standard profile: a change of the alarm within `within_s` after a true change counts from 1 at once
    down to -0.11 at the end along a hyperbolic tangent, only the first of each; any other costs 0.11, a missed true change 1. 0 is no alarm at all, 100
    perfect.

    `files`: of each the times of its rows in seconds, the indices of true changes, the alarms.
    """
    score, changes = 0.0, 0
    for times, true, alarms in files:
        turned = [times[row] for row in range(len(alarms)) if alarms[row] != (alarms[row - 1] if row else False)]
        ends = [min(times[row] + within_s, times[later] if later is not None else math.inf) for row, later in zip(true, [*true[1:], None])]
        in_windows = 0
        for row, end in zip(true, ends):
            inside = [at for at in turned if times[row] <= at < end]
            in_windows += len(inside)
            place = math.pi * ((inside[0] - times[row]) / within_s - 0.5) if inside else None
            score += 0.445 - 0.555 * math.tanh(place) / math.tanh(math.pi / 2) if inside else -1.0
        score -= 0.11 * (len(turned) - in_windows)
        changes += len(true)
    return 100 * (score + changes) / (2 * changes)


def nab_score(streams):
    """The Numenta Anomaly Benchmark's standard profile under the best threshold on these streams, with that threshold, as NAB does; and a function that
    gives the score under a threshold.

    `streams`: of each its scores per row, the rows of its windows (first, last), rows of probation.
    """
    false_at, best_in, windows = [], [], 0
    for scores, spans, probation in streams:
        windows += len(spans)
        for first, last in spans:
            width = last - first + 1
            inside = [(scores[row], sigmoid(-(last - row + 1) / width) / sigmoid(-1.0)) for row in range(max(first, probation), last + 1)]
            best_in.append(inside)
        span = iter([*spans, None])
        following, before = next(span), None
        for row, score in enumerate(scores):
            while following and row > following[1]:
                before, following = following, next(span)
            if row < probation or (following and following[0] <= row <= following[1]):
                continue
            cost = -1.0 if before is None else sigmoid((row - before[1]) / max(1, before[1] - before[0]))
            false_at.append((score, 0.11 * cost))

    false_from = suffixes(false_at, lambda sum, cost: sum + cost, 0.0)
    # The earliest row over the threshold counts, which is worth most.
    detected_from = [suffixes(inside, max, -1.0) for inside in best_in]

    def at(threshold):
        gained = sum(at_least(threshold, *of) for of in [false_from, *detected_from])
        return 100 * (gained + windows) / (2 * windows)

    best = max({score for inside in best_in for score, _ in inside}, key=lambda threshold: (at(threshold), threshold))
    return at(best), best, at


def suffixes(scored, join, start):
    """Scores in order, and for each the values of all from it on, joined; at the end that of none."""
    scored = sorted(scored)
    joined = [start]
    for _, value in reversed(scored):
        joined.append(join(joined[-1], value))
    return [score for score, _ in scored], joined[::-1]


def at_least(threshold, scores, joined):
    return joined[bisect.bisect_left(scores, threshold)]


def sigmoid(x):
    """NAB's: 1 far on the left, 0 at the end of a window, -1 from three window lengths on."""
    return -1.0 if x > 3.0 else 2 / (1 + math.exp(5 * x)) - 1
