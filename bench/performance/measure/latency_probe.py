"""Observes answers as they appear, decisions on Kafka and lists in Redis, with the age of each one's event.

It is a separate process, so that nothing delays it: `python -m bench.performance.measure.latency_probe CONFIG`. It
creates the config's `ready` file when it has begun to observe, and writes its observations on SIGTERM.
"""

import json
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, Literal

import msgspec
import redis
from confluent_kafka import OFFSET_END, Consumer, TopicPartition

from contract.messages import read_decision, read_recommendations

WAIT_S: Final = 0.05
KEYS_MAX: Final = 200  # lists that are read at once


class ProbeConfig(msgspec.Struct, frozen=True, kw_only=True):
    """`kind`: a worker's decisions, answers that carry their event's timestamp, or lists. `output`: the result file."""

    kind: Literal["decisions", "dated", "lists"]
    bootstrap: str
    topic: str
    partitions: int
    redis_port: int
    prefix: str
    ready: str
    output: str


class AnswerTime(msgspec.Struct, frozen=True, array_like=True):
    """When an answer was observed, and the time of its event; both in milliseconds since 1970."""

    at_ms: float
    event_ms: float

    @property
    def latency_ms(self) -> float:
        return self.at_ms - self.event_ms


def main() -> int:
    """Observe until SIGTERM."""
    signals: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: signals.append(number))
    config = msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=ProbeConfig)
    times = list[AnswerTime]()
    for new_times in observe_lists(config) if config.kind == "lists" else observe_records(config):
        times += new_times
        if signals:
            break
    Path(config.output).write_bytes(msgspec.json.encode(times))
    return 0


def observe_records(config: ProbeConfig) -> Iterator[list[AnswerTime]]:
    """Records of one topic as read-committed consumers get them."""
    consumer = Consumer(
        {"bootstrap.servers": config.bootstrap, "group.id": "latency-probe", "enable.auto.commit": False}
    )
    consumer.assign([TopicPartition(config.topic, partition, OFFSET_END) for partition in range(config.partitions)])
    consumer.consume(1, 1.0)  # waits for the assignment
    Path(config.ready).touch()
    while True:
        messages = [m for m in consumer.consume(1_000, 0) or consumer.consume(1, WAIT_S) if m.error() is None]
        now_ms = time.time() * 1000
        if config.kind == "decisions":
            yield [AnswerTime(now_ms, read_decision(message.value() or b"").ts_ms) for message in messages]
        else:
            yield [AnswerTime(now_ms, message.timestamp()[1]) for message in messages]


def observe_lists(config: ProbeConfig) -> Iterator[list[AnswerTime]]:
    """Users' lists as they are set: a keyspace notification gives the key, the list the time of its event."""
    store = redis.Redis(port=config.redis_port)
    store.config_set("notify-keyspace-events", "K$")
    subscription = store.pubsub()  # type: ignore[no-untyped-call]
    subscription.psubscribe(f"__keyspace@0__:{config.prefix}rec:u*")
    Path(config.ready).touch()
    while True:
        set_at_ms = dict[bytes, float]()
        wait_s = WAIT_S
        while len(set_at_ms) < KEYS_MAX and (
            message := subscription.get_message(ignore_subscribe_messages=True, timeout=wait_s)
        ):
            set_at_ms[message["channel"].partition(b":")[2]], wait_s = time.time() * 1000, 0.0
        values: Any = store.mget(list(set_at_ms)) if set_at_ms else []
        yield [
            AnswerTime(at_ms, read_recommendations(value).source_ms)
            for at_ms, value in zip(set_at_ms.values(), values, strict=True)
            if value is not None
        ]


def read_answer_times(path: Path) -> list[AnswerTime]:
    """Read the output of a probe."""
    return [AnswerTime(*pair) for pair in json.loads(path.read_bytes())]


if __name__ == "__main__":
    sys.exit(main())
