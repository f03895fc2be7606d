"""The bare loop: the cost of a lane without features and safety; the baseline of throughput and latency.

It consumes, decodes with msgspec, reads and writes as many keys and bytes in Redis, runs the same graphs over as many
rows, produces the same bytes and commits. If it moves fewer bytes through Redis than our worker did in the round
before, one more value makes up the difference. It ignores the content of events: graph inputs are fixed, answers are
copies of recorded ones, nothing is merged, claimed, checked, counted or retried. It sends hand-packed pipelines to
Redis, which cost a fraction of redis-py's own. It is a separate process:
`python -m bench.performance.baselines.bare CONFIG`.
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

from bench.performance.load.synthetic_shop import USERS
from contract.bundle import current_version, read_bundle
from contract.events.model import Click, Event, Order
from contract.events.reading import DECODERS
from contract.profiles.record import RECORD
from worker.model.bundle_parts import load_arrays, open_graph

WAIT_S: Final = 0.02
SLICE: Final = np.random.default_rng(1).bytes(RECORD.itemsize)  # the size of a slice
CANDIDATES: Final = 100
PADDING: Final = 1_000_000  # maximum bytes of one batch


class RecordedAnswer(msgspec.Struct, frozen=True):
    """The answer to one event, or one list: records by the kind of their topic, and the value to set in Redis."""

    produced: list[tuple[str, bytes]]
    cached: bytes = b""


class BareConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Configuration of a bare loop: its servers, topics and graphs, and recorded answers to repeat."""

    bootstrap: str
    redis_port: int
    group: str
    topics: dict[str, str]  # topic -> kind
    prefix: str
    bundles: str
    batch_max: int
    graphs: dict[str, str]  # kind -> graph
    answers: dict[str, list[RecordedAnswer]]  # kind -> answers; key `lists` for lists
    lists_per_event: float
    padding: tuple[float, float] = (0.0, 0.0)  # further bytes to send to and read from Redis per event
    written: dict[str, str] = {}  # kind -> topic
    latest: bool = False  # begin at the end of the topics


class RedisPipeline:
    """One connection to Redis, for pipelines of commands."""

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


class GraphRunner:
    """Runs a graph over the bundle's golden rows, repeated as often as needed."""

    def __init__(self, session: ort.InferenceSession, golden: Mapping[str, Any]) -> None:
        self._session, self._golden = session, golden

    def run(self, rows: int, pairs: int) -> Any:
        """Run for `rows` rows with `pairs` items each; a graph without items ignores `pairs`."""
        inputs = {}
        for graph_input in self._session.get_inputs():
            if graph_input.name == "user":
                inputs["user"] = np.repeat(np.arange(rows), pairs)
            else:
                golden_rows = self._golden[graph_input.name]
                count = rows * pairs if graph_input.name == "item_part" else rows
                inputs[graph_input.name] = np.resize(golden_rows, (count, golden_rows.shape[1]))
        return self._session.run(None, inputs)


def open_graphs(config: BareConfig) -> dict[str, GraphRunner]:
    bundle = read_bundle(Path(config.bundles), current_version(Path(config.bundles)) or "")
    golden = load_arrays(bundle, "golden.npz")
    return {
        name: GraphRunner(
            open_graph(bundle, name),
            {key.split("/")[2]: rows for key, rows in golden.items() if key.startswith(f"{name}/in/")},
        )
        for name in {*config.graphs.values(), "recommend"}
    }


class BareLoop:
    """Consumes, answers from recorded answers, and commits, batch by batch."""

    def __init__(self, config: BareConfig) -> None:
        self._config = config
        self._consumer = Consumer(
            {
                "bootstrap.servers": config.bootstrap,
                "group.id": config.group,
                "auto.offset.reset": "latest" if config.latest else "earliest",
                "enable.auto.commit": False,
                "fetch.wait.max.ms": 50,
                "log_level": 3,
            }
        )
        self._consumer.subscribe(list(config.topics))
        self._producer = Producer(
            {
                "bootstrap.servers": config.bootstrap,
                "linger.ms": 2,
                "compression.type": "lz4",
                "enable.idempotence": True,
            }
        )
        self._redis = RedisPipeline(config.redis_port)
        self._graphs = open_graphs(config)
        self._due_lists, self._answer_count = 0.0, 0
        self._padding = f"{config.prefix}padding"
        self._redis.run([("SET", self._padding, bytes(PADDING))])

    def step(self) -> None:
        """One batch."""
        config = self._config
        messages = self._consumer.consume(config.batch_max, 0) or self._consumer.consume(1, WAIT_S)
        if not messages:
            return
        events = [DECODERS[config.topics[message.topic() or ""]].decode(message.value() or b"") for message in messages]
        kinds = [config.topics[message.topic() or ""] for message in messages]
        keys = [
            list_keys(event, config.prefix)[: None if kind in config.graphs else 1]
            for event, kind in zip(events, kinds, strict=True)
        ]
        lists = self._count_due_lists(len(messages))
        user_keys = [f"{config.prefix}user:u{(self._answer_count + n) % USERS}" for n in range(lists)]
        self._redis.run(
            [
                ("HGETALL", key)
                for key in dict.fromkeys([*(key for event_keys in keys for key in event_keys), *user_keys])
            ]
        )
        for kind in set(kinds) & config.graphs.keys():
            self._graphs[config.graphs[kind]].run(kinds.count(kind), 1)
        answers = [(kind, self._next_answer(kind)) for kind in kinds if kind in config.answers]
        answers += [("lists", answer) for answer in self._make_lists(lists)]
        commands: list[tuple[Any, ...]] = [
            ("SET", f"{config.prefix}{kind}:{self._answer_count + n}", answer.cached, "NX", "GET", "EX", 604_800)
            for n, (kind, answer) in enumerate(answers)
            if kind == "orders"
        ]
        if commands:
            self._redis.run(commands)
        self._produce(answers, messages)
        commands = [
            ("HSET", key, f"{config.topics[topic]}/{n}", SLICE)
            for key, topic, n in list_slices(keys, messages)
            if config.topics[topic] in config.graphs
        ]
        commands += [
            ("SET", f"{config.prefix}rec:u{(self._answer_count + n) % USERS}", answer.cached, "EX", 1_209_600)
            for n, (kind, answer) in enumerate(answers)
            if kind == "lists"
        ]
        self._redis.run([*commands, *self._padding_commands(len(messages))])

    def _padding_commands(self, events: int) -> Iterator[tuple[Any, ...]]:
        """Commands that move the missing bytes of this many events."""
        sent, got = (min(int(events * bytes_per_event), PADDING) for bytes_per_event in self._config.padding)
        if sent:
            yield "SETRANGE", self._padding, 0, bytes(sent)
        if got:
            yield "GETRANGE", self._padding, 0, got - 1

    def _produce(self, answers: Sequence[tuple[str, RecordedAnswer]], messages: Sequence[Message]) -> None:
        """Produce the answers with the timestamps of events, from which the latency probe measures their age."""
        produce, users = self._producer.produce, [message.key() for message in messages]
        times = [message.timestamp()[1] for message in messages]
        for n, (_, answer) in enumerate(answers):
            for kind, value in answer.produced:
                produce(self._config.written[kind], value, users[n % len(users)], timestamp=times[n % len(times)])
        self._producer.flush()
        self._consumer.commit(asynchronous=False)

    def _count_due_lists(self, events: int) -> int:
        """The number of lists to make with this many events."""
        self._due_lists += events * self._config.lists_per_event
        count, self._due_lists = int(self._due_lists), self._due_lists % 1
        return count

    def _make_lists(self, count: int) -> list[RecordedAnswer]:
        for begin in range(0, count, 32):
            self._graphs["recommend"].run(min(32, count - begin), CANDIDATES)
        return [self._next_answer("lists") for _ in range(count)]

    def _next_answer(self, kind: str) -> RecordedAnswer:
        self._answer_count += 1
        recorded = self._config.answers[kind]
        return recorded[self._answer_count % len(recorded)]

    def close(self) -> None:
        self._consumer.close()


def list_keys(event: Event, prefix: str) -> list[str]:
    """A key for each entity whose profile a worker would read, the user's first."""
    entities: list[tuple[str, str | None]] = []
    if isinstance(event, Click | Order):
        entities += [("user", event.user_id), ("device", event.device_id), ("ip", event.ip)]
    if isinstance(event, Click):
        entities.append(("item", event.item_id))
    if isinstance(event, Order):
        entities.append(("card", event.card_id))
        entities += [entity for line in event.lines for entity in (("item", line.item_id), ("seller", line.seller_id))]
    return [f"{prefix}{kind}:{ident}" for kind, ident in entities if ident]


def list_slices(keys: Sequence[Sequence[str]], messages: Sequence[Message]) -> list[tuple[str, str, int]]:
    """The distinct slices of a batch: key, topic and partition."""
    partitions = [(message.topic() or "", message.partition() or 0) for message in messages]
    return list(
        dict.fromkeys(
            (key, *partition) for event_keys, partition in zip(keys, partitions, strict=True) for key in event_keys
        )
    )


def main() -> int:
    """Run until SIGTERM."""
    signals: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: signals.append(number))
    bare = BareLoop(msgspec.msgpack.decode(Path(sys.argv[1]).read_bytes(), type=BareConfig))
    while not signals:
        bare.step()
    bare.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
