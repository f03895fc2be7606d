"""The bare loop: what a lane costs without features and without safety; what throughput and latency compare ours with.

It consumes, decodes with msgspec, reads and writes as many keys and bytes in Redis, runs the same graphs over as many
rows, produces the same bytes and commits. Where its own keys fall short of the bytes that ours moved through Redis in
the round before, one more value makes up for them. It knows nothing of what it reads: rows of the graphs are drawn
once, answers are copies of real ones, nothing is merged, claimed, checked, counted or tried again. Redis is spoken to
by hand-packed pipelines, which cost a fraction of redis-py's own. A process of its own: `python -m bench.bare FILE`.
"""

import signal
import socket
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import hiredis
import msgspec
import numpy as np
import onnxruntime as ort
from confluent_kafka import Consumer, Message, Producer

from bench.batches import USERS
from contract.bundle import current_version, read_bundle
from contract.events import DECODERS, Click, Event, Order
from contract.profiles.record import RECORD
from worker.model.onnx_model import load_arrays, open_graph

WAIT_S: Final = 0.02
SLICE: Final = np.random.default_rng(1).bytes(RECORD.itemsize)  # as long as a slice
CANDIDATES: Final = 100
PADDING: Final = 1_000_000  # bytes, at most, of one batch


class Answer(msgspec.Struct, frozen=True):
    """What one event or one list is answered with: records by the kind of their topic, and what is set in Redis."""

    produced: list[tuple[str, bytes]]
    cached: bytes = b""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What a bare loop is told: where its servers are, and copies of real answers to go round in."""

    bootstrap: str
    redis_port: int
    group: str
    topics: dict[str, str]  # topic -> kind
    prefix: str
    bundles: str
    batch_max: int
    graphs: dict[str, str]  # kind -> graph
    answers: dict[str, list[Answer]]  # kind -> answers; `lists`: of lists
    lists_per_event: float
    padding: tuple[float, float] = (0.0, 0.0)  # bytes sent to and got from Redis for each event, besides its own
    written: dict[str, str] = {}  # kind -> topic
    latest: bool = False  # begin with what comes from now on


class Pipeline:
    """One connection to Redis: commands out together, replies in together."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._reader = hiredis.Reader()

    def run(self, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        self._socket.sendall(b"".join(map(hiredis.pack_command, commands)))
        replies: list[Any] = []
        while len(replies) < len(commands):
            reply = self._reader.gets()
            if reply is False:
                self._reader.feed(self._socket.recv(1 << 20))
            else:
                replies.append(reply)
        return replies


class Graph:
    """A graph over drawn rows, as many as asked for."""

    def __init__(self, session: ort.InferenceSession, golden: Mapping[str, Any]) -> None:
        self._session, self._golden = session, golden

    def run(self, rows: int, pairs: int) -> Any:
        """`pairs` for each of so many rows; of a graph without pairs the rows alone."""
        inputs = {}
        for wanted in self._session.get_inputs():
            if wanted.name == "user":
                inputs["user"] = np.repeat(np.arange(rows), pairs)
            else:
                drawn = self._golden[wanted.name]
                inputs[wanted.name] = np.resize(
                    drawn, (rows * (pairs if wanted.name == "item_part" else 1), drawn.shape[1])
                )
        return self._session.run(None, inputs)


def open_graphs(plan: Plan) -> dict[str, Graph]:
    bundle = read_bundle(Path(plan.bundles), current_version(Path(plan.bundles)) or "")
    golden = load_arrays(bundle, "golden.npz")
    return {
        name: Graph(
            open_graph(bundle, name),
            {key.split("/")[2]: rows for key, rows in golden.items() if key.startswith(f"{name}/in/")},
        )
        for name in {*plan.graphs.values(), "recommend"}
    }


class Bare:
    """The loop."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._consumer = Consumer(
            {
                "bootstrap.servers": plan.bootstrap,
                "group.id": plan.group,
                "auto.offset.reset": "latest" if plan.latest else "earliest",
                "enable.auto.commit": False,
                "fetch.wait.max.ms": 50,
                "log_level": 3,
            }
        )
        self._consumer.subscribe(list(plan.topics))
        self._producer = Producer(
            {"bootstrap.servers": plan.bootstrap, "linger.ms": 2, "compression.type": "lz4", "enable.idempotence": True}
        )
        self._redis = Pipeline(plan.redis_port)
        self._graphs = open_graphs(plan)
        self._due, self._turn = 0.0, 0
        self._padding = f"{plan.prefix}padding"
        self._redis.run([("SET", self._padding, bytes(PADDING))])

    def step(self) -> None:
        """One batch."""
        plan = self._plan
        messages = self._consumer.consume(plan.batch_max, 0) or self._consumer.consume(1, WAIT_S)
        if not messages:
            return
        events = [DECODERS[plan.topics[message.topic() or ""]].decode(message.value() or b"") for message in messages]
        kinds = [plan.topics[message.topic() or ""] for message in messages]
        keys = [
            keys_of(event, plan.prefix)[: None if kind in plan.graphs else 1]
            for event, kind in zip(events, kinds, strict=True)
        ]
        lists = self._lists_due(len(messages))
        watched = [f"{plan.prefix}user:u{(self._turn + n) % USERS}" for n in range(lists)]
        self._redis.run([("HGETALL", key) for key in dict.fromkeys([*(key for of in keys for key in of), *watched])])
        for kind in set(kinds) & plan.graphs.keys():
            self._graphs[plan.graphs[kind]].run(kinds.count(kind), 1)
        answers = [(kind, self._next(kind)) for kind in kinds if kind in plan.answers]
        answers += [("lists", answer) for answer in self._lists(lists)]
        commands: list[tuple[Any, ...]] = [
            ("SET", f"{plan.prefix}{kind}:{self._turn + n}", answer.cached, "NX", "GET", "EX", 604_800)
            for n, (kind, answer) in enumerate(answers)
            if kind == "orders"
        ]
        if commands:
            self._redis.run(commands)
        self._produce(answers, messages)
        commands = [
            ("HSET", key, f"{plan.topics[topic]}/{n}", SLICE)
            for key, topic, n in touched(keys, messages)
            if plan.topics[topic] in plan.graphs
        ]
        commands += [
            ("SET", f"{plan.prefix}rec:u{(self._turn + n) % USERS}", answer.cached, "EX", 1_209_600)
            for n, (kind, answer) in enumerate(answers)
            if kind == "lists"
        ]
        self._redis.run([*commands, *self._padded(len(messages))])

    def _padded(self, events: int) -> Iterator[tuple[Any, ...]]:
        """What else is moved for so many events."""
        sent, got = (min(int(events * of), PADDING) for of in self._plan.padding)
        if sent:
            yield "SETRANGE", self._padding, 0, bytes(sent)
        if got:
            yield "GETRANGE", self._padding, 0, got - 1

    def _produce(self, answers: Sequence[tuple[str, Answer]], messages: Sequence[Message]) -> None:
        """Each answer is dated as the event that it might be of, so that a reader can tell how late it is."""
        produce, users = self._producer.produce, [message.key() for message in messages]
        times = [message.timestamp()[1] for message in messages]
        for n, (_, answer) in enumerate(answers):
            for kind, value in answer.produced:
                produce(self._plan.written[kind], value, users[n % len(users)], timestamp=times[n % len(times)])
        self._producer.flush()
        self._consumer.commit(asynchronous=False)

    def _lists_due(self, events: int) -> int:
        """How many lists are made with so many events."""
        self._due += events * self._plan.lists_per_event
        count, self._due = int(self._due), self._due % 1
        return count

    def _lists(self, count: int) -> list[Answer]:
        for begin in range(0, count, 32):
            self._graphs["recommend"].run(min(32, count - begin), CANDIDATES)
        return [self._next("lists") for _ in range(count)]

    def _next(self, kind: str) -> Answer:
        self._turn += 1
        round_ = self._plan.answers[kind]
        return round_[self._turn % len(round_)]

    def close(self) -> None:
        self._consumer.close()


def keys_of(event: Event, prefix: str) -> list[str]:
    """A key for each entity that a worker would read, the user's first."""
    named: list[tuple[str, str | None]] = []
    if isinstance(event, Click | Order):
        named += [("user", event.user_id), ("device", event.device_id), ("ip", event.ip)]
    if isinstance(event, Click):
        named.append(("item", event.item_id))
    if isinstance(event, Order):
        named.append(("card", event.card_id))
        named += [pair for line in event.lines for pair in (("item", line.item_id), ("seller", line.seller_id))]
    return [f"{prefix}{kind}:{ident}" for kind, ident in named if ident]


def touched(keys: Sequence[Sequence[str]], messages: Sequence[Message]) -> list[tuple[str, str, int]]:
    """Each slice once: its key, and the topic and partition that it is of."""
    places = [(message.topic() or "", message.partition() or 0) for message in messages]
    return list(dict.fromkeys((key, *place) for of, place in zip(keys, places, strict=True) for key in of))


def main() -> int:
    """Work until SIGTERM."""
    ended: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: ended.append(number))
    bare = Bare(msgspec.msgpack.decode(Path(sys.argv[1]).read_bytes(), type=Plan))
    while not ended:
        bare.step()
    bare.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
