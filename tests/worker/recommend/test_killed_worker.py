"""A worker that is killed while users wait for lists: its successor makes them."""

import time
from itertools import starmap

import pytest

from contract.errors import Unavailable
from contract.messages import to_json
from testkit.environment.kafka_log import KafkaLog
from testkit.environment.run_environment import RunEnvironment
from tests.kafka import BlockingProducer
from tests.polling import wait_until
from tests.worker.events import make_click, make_product
from tests.worker.probes.worker_process import WorkerProcess
from transport.group_offsets import fetch_commits
from transport.records import TopicPartition
from worker.redis.client import RedisClient

pytestmark = pytest.mark.apache_kafka

USERS = [f"u{n}" for n in range(4_000)]
ITEMS = 5
# Few lists go with a batch while there is a backlog, so that most users of the batches that are committed wait.
FEW_LISTS = {"SHOPSTREAM_LISTS__BATCH_SHARE": "0.001", "SHOPSTREAM_WORKER__BATCH_MAX": "400"}


class Shop:
    """A backlog of clicks, each of another user, and the lists in Redis."""

    def __init__(self, environment: RunEnvironment, client: RedisClient) -> None:
        self.environment, self._client = environment, client
        topics, now_ms = environment.topics, time.time_ns() // 1_000_000
        with BlockingProducer(environment.kafka.bootstrap) as producer:
            products = [make_product(f"i{n}", ts_ms=now_ms) for n in range(ITEMS)]
            producer.send(topics.products, [(product.item_id, to_json(product)) for product in products])
            clicks = [make_click(f"c-{u}", f"i{n % ITEMS}", user=u, ts_ms=now_ms) for n, u in enumerate(USERS)]
            producer.send(topics.clicks, [(click.user_id, to_json(click)) for click in clicks])

    def start_worker(self) -> WorkerProcess:
        worker = WorkerProcess(self.environment, lane="browsing", variables=FEW_LISTS)
        worker.start()
        return worker

    def count_committed(self) -> int:
        """The number of clicks that are committed; 0 while Kafka does not tell them."""
        log, topics = KafkaLog(bootstrap=self.environment.kafka.bootstrap), self.environment.topics
        ends = log.read_end_offsets([topics.clicks])
        try:
            commits = fetch_commits(
                self.environment.kafka_settings, self.environment.group_id("browsing"), starmap(TopicPartition, ends)
            )
        except Unavailable:
            return 0
        return sum(offset for offset, _ in commits.values())

    def count_lists(self) -> int:
        """The number of users with a list."""
        replies = self._client.pipeline([("EXISTS", f"{self.environment.redis_prefix}rec:{user}") for user in USERS])
        return sum(replies)


@pytest.fixture
def shop(run_environment: RunEnvironment, redis_client: RedisClient) -> Shop:
    return Shop(run_environment, redis_client)


def test_users_who_wait_in_a_killed_worker_get_their_lists_from_the_next_one(shop: Shop) -> None:
    # given a worker that is killed within a backlog
    worker = shop.start_worker()
    try:
        worker.wait_for(lambda: shop.count_committed() > 0)
    finally:
        worker.kill()
    wait_until(lambda: shop.count_committed() > 0)  # its open transaction holds the offsets back until it times out
    assert shop.count_lists() < shop.count_committed()
    # when
    worker = shop.start_worker()
    try:
        worker.wait_for(lambda: shop.count_lists() == len(USERS))
    # then
    finally:
        worker.kill()
