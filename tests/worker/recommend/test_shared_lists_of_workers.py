"""Two workers of the browsing lane, of which one is killed again and again, count each person once for an item."""

import time

import msgspec
import pytest

from contract.messages import ShopList, to_json
from testkit.environment.run_environment import RunEnvironment
from tests.kafka import BlockingProducer
from tests.worker.events import make_click, make_product
from tests.worker.probes.worker_process import WorkerProcess
from worker.redis.client import RedisClient

pytestmark = pytest.mark.apache_kafka

PEOPLE = {"i0": 30, "i1": 20}  # by item; of i2 one account is the only visitor
BOT_CLICKS = 3_000
SMALL_BATCHES = {"SHOPSTREAM_WORKER__BATCH_MAX": "100"}


class SharedClicks:
    """Clicks of some people, each one several times, and of one account that clicks an item again and again."""

    def __init__(self, environment: RunEnvironment, client: RedisClient) -> None:
        self.environment, self._client = environment, client
        topics, now_ms = environment.topics, time.time_ns() // 1_000_000
        visits = [(item, f"{item}-u{n % people}") for item, people in PEOPLE.items() for n in range(10 * people)]
        visits += [("i2", "bot")] * BOT_CLICKS
        clicks = [make_click(f"c{n}", item, user=user, ts_ms=now_ms) for n, (item, user) in enumerate(visits)]
        with BlockingProducer(environment.kafka.bootstrap) as producer:
            products = [make_product(f"i{n}", ts_ms=now_ms) for n in range(3)]
            producer.send(topics.products, [(product.item_id, to_json(product)) for product in products])
            producer.send(topics.clicks, [(click.user_id, to_json(click)) for click in clicks])

    def start_worker(self, instance: str) -> WorkerProcess:
        variables = SMALL_BATCHES | {"SHOPSTREAM_WORKER__INSTANCE": instance}
        worker = WorkerProcess(self.environment, lane="browsing", variables=variables)
        worker.start()
        return worker

    def count_people(self) -> dict[str, int]:
        """The people by item, in the order of the list that workers have written."""
        (value,) = self._client.pipeline([("GET", f"{self.environment.redis_prefix}trending")])
        items = msgspec.json.decode(value, type=ShopList).items if value else ()
        return {item.item_id: round(item.score) for item in items}

    def has_popular(self, *items: str) -> bool:
        (value,) = self._client.pipeline([("GET", f"{self.environment.redis_prefix}rec:popular")])
        return value is not None and msgspec.json.decode(value)["items"] == list(items)


@pytest.fixture
def shop(run_environment: RunEnvironment, redis_client: RedisClient) -> SharedClicks:
    return SharedClicks(run_environment, redis_client)


def test_people_are_counted_once_by_several_workers_also_when_one_is_killed(shop: SharedClicks) -> None:
    # given a worker that is killed after it has counted some people
    first = shop.start_worker("0")
    try:
        first.wait_for(lambda: bool(shop.count_people()))
    finally:
        first.kill()
    # when two workers go on
    workers = [shop.start_worker("1"), shop.start_worker("0")]
    try:
        workers[0].wait_for(lambda: shop.count_people() == {**PEOPLE, "i2": 1})
        # then
        workers[0].wait_for(lambda: shop.has_popular("i0", "i1", "i2"))
    finally:
        for worker in workers:
            worker.kill()
