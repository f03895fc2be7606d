"""A worker that was frozen during an erasure leaves nothing of the person in Redis when it goes on."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final, Self

import pytest
import redis

from contract.messages import to_json
from tests.worker.environment import PARTITIONS, WorkerEnvironment
from tests.worker.erasure.test_executor import order_ms
from tests.worker.events import make_order
from tests.worker.frozen_worker import FrozenWorker, RankingScorer
from tests.worker.worker_lifecycle import InProcessWorker, WorkerThread, wait_until

PERSON, OTHER = "erased-person", "other-person"
PARTITIONS_READ: Final = 2 * PARTITIONS  # of orders and erasures


class WriteObserver:
    """Sees each write to a key that names `text`, even if the key is deleted at once."""

    def __init__(self, url: str, text: str) -> None:
        self._operator = redis.Redis.from_url(url, decode_responses=True)
        self._operator.config_set("notify-keyspace-events", "KA")
        self._writes = self._operator.pubsub(ignore_subscribe_messages=True)  # type: ignore[no-untyped-call]
        self._writes.psubscribe(f"__keyspace@0__:*{text}*")
        self.read_writes()  # the reply to the subscription

    def read_writes(self) -> list[str]:
        """The keys written so far, except by deleting them."""
        messages = list(iter(lambda: self._writes.get_message(timeout=0.5), None))
        return [message["channel"].partition(":")[2] for message in messages if message["data"] not in ("del", "hdel")]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._writes.close()
        self._operator.config_set("notify-keyspace-events", "")
        self._operator.close()


def send_orders(environment: WorkerEnvironment, user: str, numbers: range) -> set[str]:
    """Send orders of one person; returns their ids."""
    orders = [make_order(f"{user}-o{n}", user=user, device=f"d{n % 2}", ts_ms=order_ms(n)) for n in numbers]
    environment.send("orders", [(order.user_id, to_json(order)) for order in orders])
    return {order.event_id for order in orders}


def find_mentions(environment: WorkerEnvironment, text: str) -> list[str]:
    """The keys in Redis that name `text`, or that hold a value or member which does."""
    return sorted(
        key
        for page in environment.redis.scan(environment.prefix)
        for key in page
        if text in key or text.encode() in read_content(environment, key)
    )


def read_content(environment: WorkerEnvironment, key: str) -> bytes:
    """Everything that a key holds."""
    (kind,) = environment.redis.pipeline([("TYPE", key)])
    command = {b"string": ("GET", key), b"zset": ("ZRANGE", key, 0, -1), b"hash": ("HGETALL", key)}.get(kind)
    if command is None:  # it has expired or was deleted
        return b""
    (content,) = environment.redis.pipeline([command])
    return content or b"" if kind == b"string" else b" ".join(content)


@pytest.fixture
def thawed(apache_stage: WorkerEnvironment, tmp_path: Path) -> Iterator[list[FrozenWorker]]:
    """Frozen workers, which are killed at the end."""
    started = list[FrozenWorker]()
    yield started
    for worker in started:
        worker.kill()


@pytest.mark.apache_kafka
@pytest.mark.parametrize("step", ["claim", "send", "publish", "merge", "cache"])
def test_a_worker_frozen_in_any_step_writes_nothing_of_an_erased_person(
    apache_stage: WorkerEnvironment, redis_url: str, tmp_path: Path, thawed: list[FrozenWorker], step: str
) -> None:
    # given a worker that freezes in its first batch, with orders of one person only
    environment = apache_stage
    frozen = FrozenWorker(environment.settings_for("frozen"), step, tmp_path)
    thawed.append(frozen)
    sent = send_orders(environment, PERSON, range(10))
    frozen.start()
    wait_until(lambda: frozen.is_frozen)
    sent |= send_orders(environment, OTHER, range(10))
    # when another one takes its partitions and carries an erasure out
    survivor = InProcessWorker(environment, "survivor", instance="b", scorer=RankingScorer("survivor"), erases=True)
    with WorkerThread(survivor):
        wait_until(lambda: environment.is_decided_once(sent))
        wait_until(lambda: len(survivor.consumer.assignment) == PARTITIONS_READ)
        environment.send_erasure(PERSON, order_ms(100))
        wait_until(lambda: environment.read_records("erased"))
        assert find_mentions(environment, PERSON) == []
        # and the frozen one goes on, until it has partitions again
        with WriteObserver(redis_url, PERSON) as observer:
            frozen.resume()
            wait_until(lambda: len(survivor.consumer.assignment) < PARTITIONS_READ, frozen.tail)
            # then it has written nothing of the person
            assert observer.read_writes() == []
        assert find_mentions(environment, PERSON) == []
        assert find_mentions(environment, OTHER)
        # and orders that the erasure covers are answered by either of them, and leave nothing
        sent |= send_orders(environment, PERSON, range(10, 20))
        wait_until(lambda: environment.is_decided_once(sent))
        wait_until(lambda: find_mentions(environment, PERSON) == [], lambda: find_mentions(environment, PERSON))
