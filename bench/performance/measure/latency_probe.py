"""Watches answers come out, and notes how old the event of each is by then: decisions on Kafka, lists in Redis.

A process of its own, so that nothing else keeps it from looking: `python -m bench.performance.measure.latency_probe FILE`. It writes what it saw
when it is asked to end, and has its plan's `ready` file there as soon as it looks.
"""

import json
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Literal

import msgspec
import redis
from confluent_kafka import OFFSET_END, Consumer, TopicPartition

from contract.messages import read_decision, read_recommendations

WAIT_S: Final = 0.05


class ProbeConfig(msgspec.Struct, frozen=True, kw_only=True):
    """`of`: decisions of ours, answers that are dated as their events, or lists. `found`: where what was seen goes."""

    of: Literal["decisions", "dated", "lists"]
    bootstrap: str
    topic: str
    partitions: int
    redis_port: int
    prefix: str
    ready: str
    found: str


class AnswerTime(msgspec.Struct, frozen=True, array_like=True):
    """An answer: when it was there, and the time of its event; both in milliseconds since 1970."""

    at_ms: float
    event_ms: float

    @property
    def latency_ms(self) -> float:
        return self.at_ms - self.event_ms


def main() -> int:
    """Look until SIGTERM."""
    signals: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: signals.append(number))
    config = msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=ProbeConfig)
    times = list[AnswerTime]()
    for new_times in lists(config) if config.of == "lists" else records(config):
        times += new_times
        if signals:
            break
    Path(config.found).write_bytes(msgspec.json.encode(times))
    return 0


def records(config: ProbeConfig) -> Iterator[list[AnswerTime]]:
    """Records of one topic, as readers of committed ones get them."""
    consumer = Consumer({"bootstrap.servers": config.bootstrap, "group.id": "watcher", "enable.auto.commit": False})
    consumer.assign([TopicPartition(config.topic, partition, OFFSET_END) for partition in range(config.partitions)])
    consumer.consume(1, 1.0)  # it is where it begins
    Path(config.ready).touch()
    while True:
        messages = [m for m in consumer.consume(1_000, 0) or consumer.consume(1, WAIT_S) if m.error() is None]
        now_ms = time.time() * 1000
        if config.of == "decisions":
            yield [AnswerTime(now_ms, read_decision(message.value() or b"").ts_ms) for message in messages]
        else:
            yield [AnswerTime(now_ms, message.timestamp()[1]) for message in messages]


def lists(config: ProbeConfig) -> Iterator[list[AnswerTime]]:
    """Users' lists as they are set: Redis tells of the key, and the list says which event it reflects."""
    store = redis.Redis(port=config.redis_port)
    store.config_set("notify-keyspace-events", "K$")
    subscription = store.pubsub()  # type: ignore[no-untyped-call]
    subscription.psubscribe(f"__keyspace@0__:{config.prefix}rec:u*")
    Path(config.ready).touch()
    while True:
        message = subscription.get_message(ignore_subscribe_messages=True, timeout=WAIT_S)
        if message is None:
            yield []
            continue
        now_ms, key = time.time() * 1000, message["channel"].partition(b":")[2]
        value = store.get(key)
        yield [AnswerTime(now_ms, read_recommendations(value).source_ms)] if isinstance(value, bytes) else []


def read_answer_times(path: Path) -> list[AnswerTime]:
    """What a watcher has written."""
    return [AnswerTime(*pair) for pair in json.loads(path.read_bytes())]


if __name__ == "__main__":
    sys.exit(main())
