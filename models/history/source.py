"""Where history comes from, as arguments of a command."""

import argparse
import pathlib
import re

from . import Fault, History, kafka, tables, topics

UNITS_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


def duration_ms(text: str) -> int:
    """`500ms`, `1s`, `7d`."""
    found = re.fullmatch(r"(\d+)(ms|s|m|h|d)", text)
    if not found or int(found[1]) == 0:
        raise argparse.ArgumentTypeError(f"`{text}` is no duration; expected a number above 0 and ms, s, m, h or d, such as 1s")
    return int(found[1]) * UNITS_MS[found[2]]


def property_of(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"`{text}` is no NAME=VALUE")
    return name, value


def add_arguments(parser: argparse.ArgumentParser) -> None:
    source = parser.add_argument_group("history").add_mutually_exclusive_group(required=True)
    source.add_argument("--from-csv", nargs="+", type=pathlib.Path, metavar="FILE", help="comma separated values with a header, also .gz")
    source.add_argument("--from-parquet", nargs="+", type=pathlib.Path, metavar="FILE")
    source.add_argument("--from-sql", metavar="URL", help="a database as SQLAlchemy names it; with --query and --row or --time")
    source.add_argument("--from-kafka", metavar="BROKERS", help="readings, events and feedback of Hark, host:port, comma separated")
    table = parser.add_argument_group("tables")
    table.add_argument("--query", metavar="SQL", help="gives the rows of the lives, each life in its order")
    table.add_argument("--life", metavar="COLUMN", default="life", help="names the life of a row [life]")
    table.add_argument("--ended", metavar="COLUMN", help="says in the last row of a life how it ended: failure or censored; without it all failed")
    table.add_argument("--row", metavar="COLUMN", help="number of the row in its life; without it the first row of a life is number 1")
    table.add_argument("--time", metavar="COLUMN", help="seconds since 1970 or RFC 3339")
    stream = parser.add_argument_group("Kafka")
    stream.add_argument("--prefix", default="hark.", help="of the topics [hark.]")
    stream.add_argument("--asset", action="append", metavar="ID", help="this machine alone; may be given several times")
    stream.add_argument("--grid", type=duration_ms, default="1s", metavar="TIME", help="rows are so far apart: the grid of the assets [1s]")
    stream.add_argument("--label-within", type=duration_ms, default="7d", metavar="TIME", help="a label counts for a maintenance at most so far from it [7d]")
    stream.add_argument(
        "--kafka-property", type=property_of, action="append", default=[], metavar="NAME=VALUE", help="of librdkafka, such as ssl.ca.location=FILE"
    )


def read(arguments: argparse.Namespace, points: dict[str, str]) -> History:
    """The history that `arguments` name; `points`: names and units of those that are wanted."""
    if arguments.from_kafka is not None:
        wanted = topics.Topics(points, set(arguments.asset) if arguments.asset else None)
        return kafka.read(wanted, arguments.from_kafka, arguments.prefix, arguments.grid, arguments.label_within, dict(arguments.kafka_property))
    if arguments.from_sql is not None:
        if arguments.query is None or (arguments.row or arguments.time) is None:
            raise Fault("--from-sql needs --query and, since rows of a database have no order of themselves, --row or --time")
        found = [tables.read_sql(arguments.from_sql, arguments.query)]
    else:
        found = [tables.read_csv(path) for path in arguments.from_csv or ()] + [tables.read_parquet(path) for path in arguments.from_parquet or ()]
    return tables.history(found, points, tables.Columns(arguments.life, arguments.ended, arguments.row, arguments.time))
