"""What comes of no skill: detectors that are over their limit as often as the program is, at rows that are drawn."""

import random
import statistics

DRAWS = 200


def rows_at_random(alarms, draw):
    """As many rows as in `alarms`, a list per file, each drawn for itself."""
    rate = statistics.mean(alarm for of_file in alarms for alarm in of_file)
    return [[draw.random() < rate for _ in of_file] for of_file in alarms]


def turned(alarms, draw):
    """The same alarms, moved by a drawn number of rows in each file; what leaves it at the end comes in at its beginning. They last as long as they did."""
    shifts = [draw.randrange(len(of_file)) for of_file in alarms]
    return [of_file[shift:] + of_file[:shift] for of_file, shift in zip(alarms, shifts)]


def drawn(alarms, how, measures):
    """Mean and deviation of each of `measures(alarms)`, numbers or their text, over DRAWS of `how`."""
    draw = random.Random(1)
    columns = list(zip(*([float(figure) for figure in measures(how(alarms, draw))] for _ in range(DRAWS))))
    return [(statistics.mean(column), statistics.stdev(column)) for column in columns]
