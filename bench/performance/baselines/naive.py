"""The naive loop: one record at a time, as in tutorials; a baseline of throughput.

For each record: JSON, one GET and one SET per entity, the graph over one row, a flushed answer and a committed offset.
It makes no lists. It is a separate process, like the bare loop: `python -m bench.performance.baselines.naive CONFIG`.
"""

import json
import signal
import sys
from pathlib import Path
from typing import Any, Final

import msgspec
import redis
from confluent_kafka import Consumer, Producer

from bench.performance.baselines.bare import BareConfig, open_graphs

ENTITIES: Final = ("user_id", "item_id", "device_id", "ip", "card_id")


def main() -> int:
    """Run until SIGTERM."""
    signals: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: signals.append(number))
    config = msgspec.msgpack.decode(Path(sys.argv[1]).read_bytes(), type=BareConfig)
    settings = {"bootstrap.servers": config.bootstrap, "log_level": 3}
    consumer_settings = {"group.id": config.group, "auto.offset.reset": "earliest", "enable.auto.commit": False}
    consumer, producer = Consumer({**settings, **consumer_settings}), Producer(settings)
    consumer.subscribe(list(config.topics))
    store = redis.Redis(port=config.redis_port)
    graphs = open_graphs(config)
    while not signals:
        message = consumer.poll(0.1)
        if message is None or message.error():
            continue
        kind, event = config.topics[message.topic() or ""], json.loads(message.value() or b"")
        for entity in list_entities(event):
            update_profile(store, f"{config.prefix}{entity}", event)
        if kind in config.graphs:
            scores = graphs[config.graphs[kind]].run(1, 1)
            answer = {"event_id": event["event_id"], "scores": [float(score[0]) for score in scores]}
            producer.produce(config.written["scored"], json.dumps(answer), message.key())
            producer.flush()
        consumer.commit(message=message, asynchronous=False)
    consumer.close()
    return 0


def list_entities(event: dict[str, Any]) -> list[str]:
    entities = [f"{name}:{event[name]}" for name in ENTITIES if event.get(name)]
    return entities + [f"item_id:{line['item_id']}" for line in event.get("lines", [])]


def update_profile(store: Any, key: str, event: dict[str, Any]) -> None:
    """Count the event in a profile."""
    stored = store.get(key)
    profile = json.loads(stored) if stored else {"count": 0, "sum": 0.0, "first_ms": event["ts_ms"]}
    profile["count"] += 1
    profile["sum"] += event.get("amount", 0.0)
    profile["last_ms"] = event["ts_ms"]
    store.set(key, json.dumps(profile))


if __name__ == "__main__":
    sys.exit(main())
