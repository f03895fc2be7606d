"""The naive loop: one record at a time, as tutorials do it; what throughput is compared with.

For each record: JSON, one GET and one SET for each entity, the graph over one row, an answer that is flushed and a
position that is committed. It makes no lists. A process of its own: `python -m bench.naive FILE`, as `bench.bare` is.
"""

import json
import signal
import sys
from pathlib import Path
from typing import Any, Final

import msgspec
import redis
from confluent_kafka import Consumer, Producer

from bench.bare import Plan, open_graphs

ENTITIES: Final = ("user_id", "item_id", "device_id", "ip", "card_id")


def main() -> int:
    """Work until SIGTERM."""
    ended: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: ended.append(number))
    plan = msgspec.msgpack.decode(Path(sys.argv[1]).read_bytes(), type=Plan)
    settings = {"bootstrap.servers": plan.bootstrap, "log_level": 3}
    reading = {"group.id": plan.group, "auto.offset.reset": "earliest", "enable.auto.commit": False}
    consumer, producer = Consumer({**settings, **reading}), Producer(settings)
    consumer.subscribe(list(plan.topics))
    store = redis.Redis(port=plan.redis_port)
    graphs = open_graphs(plan)
    while not ended:
        message = consumer.poll(0.1)
        if message is None or message.error():
            continue
        kind, event = plan.topics[message.topic() or ""], json.loads(message.value() or b"")
        for entity in entities_of(event):
            remember(store, f"{plan.prefix}{entity}", event)
        if kind in plan.graphs:
            scores = graphs[plan.graphs[kind]].run(1, 1)
            answer = {"event_id": event["event_id"], "scores": [float(score[0]) for score in scores]}
            producer.produce(plan.written["scored"], json.dumps(answer), message.key())
            producer.flush()
        consumer.commit(message=message, asynchronous=False)
    consumer.close()
    return 0


def entities_of(event: dict[str, Any]) -> list[str]:
    found = [f"{name}:{event[name]}" for name in ENTITIES if event.get(name)]
    return found + [f"item_id:{line['item_id']}" for line in event.get("lines", [])]


def remember(store: Any, key: str, event: dict[str, Any]) -> None:
    """Count the event."""
    held = store.get(key)
    profile = json.loads(held) if held else {"count": 0, "sum": 0.0, "first_ms": event["ts_ms"]}
    profile["count"] += 1
    profile["sum"] += event.get("amount", 0.0)
    profile["last_ms"] = event["ts_ms"]
    store.set(key, json.dumps(profile))


if __name__ == "__main__":
    sys.exit(main())
