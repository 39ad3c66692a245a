"""Reads Hark's topics from their beginning to their end as it was at the start, committed records alone."""

import json
import sys
import time
from collections.abc import Callable

from . import Fault, History
from .topics import Topics

#: A cluster that says nothing for so long is given up.
SILENT_MOST_S = 60.0
PROGRESS_S = 5.0
BATCH = 10_000


def read(topics: Topics, brokers: str, prefix: str, grid_ms: int, label_within_ms: int, properties: dict[str, str]) -> History:
    """The history in the topics of the cluster `brokers`. `properties`: more for the client, such as security.protocol."""
    import confluent_kafka

    settings = {
        "bootstrap.servers": brokers,
        "group.id": "hark-training",
        # Offsets are never committed: each training reads everything there is.
        "enable.auto.commit": False,
        "enable.partition.eof": True,
        # Otherwise records of aborted transactions are seen, which come again.
        "isolation.level": "read_committed",
        "auto.offset.reset": "error",
    }
    consumer = confluent_kafka.Consumer(properties | settings)
    try:
        read_topic(consumer, f"{prefix}events.v1", lambda record, where, _: topics.event(record, where))
        read_topic(consumer, f"{prefix}feedback.v1", lambda record, where, _: topics.feedback(record, where), strict=False)
        read_topic(consumer, f"{prefix}readings.v1", topics.reading)
    except confluent_kafka.KafkaException as error:
        raise Fault(f"Kafka at {brokers}: {error.args[0].str()}") from error
    finally:
        consumer.close()
    return topics.lives(f"{prefix}readings.v1, {prefix}events.v1, {prefix}feedback.v1", grid_ms, label_within_ms)


def read_topic(consumer, topic: str, take: Callable[[dict, str, bool], None], strict: bool = True) -> None:
    """Hands each record to `take`: the value, where it stands, and whether older ones of its partition have expired."""
    import confluent_kafka

    found = consumer.list_topics(topic, timeout=SILENT_MOST_S).topics[topic]
    if found.error is not None or not found.partitions:
        raise Fault(f"there is no topic `{topic}`; expected those of config/kafka/create-topics.sh")
    bounds = {number: consumer.get_watermark_offsets(confluent_kafka.TopicPartition(topic, number), timeout=SILENT_MOST_S) for number in found.partitions}
    open_ones = {number for number, (low, high) in bounds.items() if low < high}
    consumer.assign([confluent_kafka.TopicPartition(topic, number, bounds[number][0]) for number in sorted(open_ones)])
    total, count, heard, told = sum(high - low for low, high in bounds.values()), 0, time.monotonic(), time.monotonic()
    while open_ones:
        messages = consumer.consume(BATCH, timeout=1.0)
        now = time.monotonic()
        heard = now if messages else heard
        if now - heard > SILENT_MOST_S:
            raise Fault(f"`{topic}`: nothing came for {SILENT_MOST_S:.0f} s; {count} records were read, partitions {sorted(open_ones)} are not at their end")
        if now - told > PROGRESS_S:
            print(f"{topic}: {count} records of at most {total}", file=sys.stderr, flush=True)
            told = now
        for message in messages:
            number, error = message.partition(), message.error()
            if error is not None and error.code() != confluent_kafka.KafkaError._PARTITION_EOF:
                raise confluent_kafka.KafkaException(error)
            low, high = bounds[number]
            if error is None and message.offset() < high:
                count += 1
                where = f"`{topic}`, partition {number}, offset {message.offset()}"
                take(value_of(message.value(), where, strict), where, low > 0)
            # The last records may be aborted, or markers that nobody sees: then the end is all that comes.
            if error is not None or message.offset() >= high - 1:
                open_ones.discard(number)
    consumer.unassign()
    print(f"{topic}: {count} records", file=sys.stderr, flush=True)


def value_of(value: bytes | None, where: str, strict: bool) -> dict:
    """The value of a record, also as Kafka Connect wraps it."""
    try:
        record = json.loads(value or b"")
    except ValueError:
        record = None
    if isinstance(record, dict) and "schema" in record and isinstance(record.get("payload"), dict):
        record = record["payload"]
    if not isinstance(record, dict) and strict:
        raise Fault(f"{where}: expected a JSON object, found {str(value)[:80]}")
    return record
