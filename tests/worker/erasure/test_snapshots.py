"""A Redis that goes back to before an erasure: the erasure is executed and confirmed again."""

from collections.abc import Iterator
from contextlib import closing
from copy import deepcopy

import pytest

from devservers.redis_server import RedisServer
from tests.conftest import KafkaBroker
from tests.worker.environment import WorkerEnvironment
from tests.worker.erasure.test_executor import (
    count_confirmations,
    find_differences,
    order_ms,
    process_all,
    read_decision_ids,
    read_profiles,
    send_orders,
)
from tests.worker.signing_scorer import SigningScorer
from tests.worker.worker_lifecycle import InProcessWorker
from worker.records.answers import DECISION, LIST

pytestmark = pytest.mark.apache_kafka


class ListingScorer(SigningScorer):
    """A scorer of a lane that also caches lists, whose entries an erasure deletes."""

    answer_kinds = (DECISION, LIST)


@pytest.fixture
def servers() -> Iterator[tuple[RedisServer, RedisServer]]:
    """One for profiles, one for lists."""
    with RedisServer() as redis, RedisServer() as cache:
        yield redis, cache


@pytest.fixture
def environment(
    apache_kafka: KafkaBroker, servers: tuple[RedisServer, RedisServer], topic_prefix: str
) -> Iterator[WorkerEnvironment]:
    redis, cache = servers
    environment = WorkerEnvironment(broker=apache_kafka, redis_url=redis.url, prefix=topic_prefix)
    with_cache = environment.settings.redis.model_copy(update={"cache_url": cache.url})
    environment.settings = environment.settings.model_copy(update={"redis": with_cache})
    with closing(environment):
        yield environment


def open_worker(environment: WorkerEnvironment) -> InProcessWorker:
    return InProcessWorker(environment, erases=True, scorer=ListingScorer("worker"))


def is_confirmed_again(environment: WorkerEnvironment, **expected: int) -> bool:
    return count_confirmations(environment) == expected


@pytest.mark.parametrize("is_running", [True, False], ids=["running", "stopped"])
def test_a_snapshot_from_before_an_erasure_brings_nobody_back(
    environment: WorkerEnvironment, servers: tuple[RedisServer, RedisServer], is_running: bool
) -> None:
    # given a snapshot, and since then two erasures and nothing else
    redis, _ = servers
    send_orders(environment, range(20))
    environment.send_erasure("u4", order_ms(99), "before")
    worker = open_worker(environment)
    process_all(worker, environment)
    snapshot, merged = redis.save_snapshot(), deepcopy(worker.offsets.merged)
    environment.send_erasure("u1", order_ms(99), "g1")
    environment.send_erasure("u2", order_ms(99), "g2")
    process_all(worker, environment)
    assert merged == worker.offsets.merged
    assert not {"user:u1", "user:u2"} & read_profiles(environment).keys()
    if not is_running:
        worker.pipeline.close()
        worker.abandon()
    # when Redis goes back
    redis.restore_snapshot(snapshot)
    assert {"user:u1", "user:u2"} <= read_profiles(environment).keys()
    assert "o1" in read_decision_ids(environment)
    worker = worker if is_running else open_worker(environment)
    with worker:
        worker.run_until(lambda: is_confirmed_again(environment, before=1, g1=2, g2=2))
        process_all(worker, environment)
        # then
        assert not {"user:u1", "user:u2"} & read_profiles(environment).keys()
        assert not {"o1", "o2"} & read_decision_ids(environment)
        assert find_differences(environment) == []
        # and it is confirmed once more, and no further
        environment.send_erasure("u3", order_ms(99), "g3")
        worker.run_until(lambda: is_confirmed_again(environment, before=1, g1=2, g2=2, g3=1))


def test_a_crash_between_erasing_again_and_confirming_loses_no_confirmation(
    environment: WorkerEnvironment, servers: tuple[RedisServer, RedisServer]
) -> None:
    # given a Redis that went back, and a worker that has erased again and then dies
    redis, _ = servers
    send_orders(environment, range(20))
    worker = open_worker(environment)
    process_all(worker, environment)
    snapshot = redis.save_snapshot()
    environment.send_erasure("u1", order_ms(99), "g1")
    process_all(worker, environment)
    redis.restore_snapshot(snapshot)
    worker.runs_periodic = False
    worker.run_until(lambda: "user:u1" not in read_profiles(environment))
    worker.abandon()
    # when
    with open_worker(environment) as worker:
        worker.run_until(lambda: is_confirmed_again(environment, g1=2))
        process_all(worker, environment)
    # then
    assert find_differences(environment) == []


def test_a_cache_server_that_goes_back_alone_shows_no_list_of_an_erased_user(
    environment: WorkerEnvironment, servers: tuple[RedisServer, RedisServer]
) -> None:
    # given
    _, cache = servers
    key = f"{environment.prefix}rec:u1"
    send_orders(environment, range(20))
    with open_worker(environment) as worker:
        process_all(worker, environment)
        lists = worker.answer_cache.client
        lists.pipeline([("SET", key, b"{}")])
        snapshot = cache.save_snapshot()
        environment.send_erasure("u1", order_ms(99), "g1")
        process_all(worker, environment)
        assert lists.pipeline([("EXISTS", key)]) == [0]
        # when
        cache.restore_snapshot(snapshot)
        worker.run_until(lambda: is_confirmed_again(environment, g1=2))
        # then
        assert lists.pipeline([("EXISTS", key)]) == [0]


def test_an_emptied_redis_needs_no_other_confirmation(
    environment: WorkerEnvironment, servers: tuple[RedisServer, RedisServer]
) -> None:
    # given
    send_orders(environment, range(20))
    with open_worker(environment) as worker:
        environment.send_erasure("u1", order_ms(99), "g1")
        process_all(worker, environment)
        # when both servers lose all data
        for server in servers:
            server.flush()
        environment.send_erasure("u2", order_ms(99), "g2")
        process_all(worker, environment)
    # then
    assert count_confirmations(environment) == {"g1": 1, "g2": 1}
    assert find_differences(environment) == []
