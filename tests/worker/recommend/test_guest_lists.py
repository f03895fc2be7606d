"""Whole browsing workers on Apache Kafka and Redis: lists of guests, of those who log in, and of odd histories."""

import time
from collections.abc import Iterator, Sequence

import msgspec
import pytest

from contract.events.model import Click
from contract.hashing import item_hash
from contract.messages import Recommendations, read_recommendations, to_json
from contract.redis_keys import escape_user_id
from contract.units import DAY_MS
from testkit.audits.state_audit import StateAudit
from testkit.environment.run_environment import RunEnvironment
from tests.kafka import BlockingProducer
from tests.worker.events import make_product
from tests.worker.probes.worker_process import WorkerProcess
from worker.redis.client import RedisClient
from worker.state.profile_store import open_profile_store
from worker.state.user_histories import UserHistories

pytestmark = pytest.mark.apache_kafka

ITEMS = 12
STEP_MS = 1_000  # what happens within one second cannot be told apart
KINDS = ("clicks", "impressions", "searches")
NO_DELAY = {"SHOPSTREAM_LISTS__REFRESH_MS": "0", "SHOPSTREAM_LISTS__EXPLORE": "0"}


class ListShop:
    """A shop of a few items; its clicks are sent as documents."""

    def __init__(self, environment: RunEnvironment, client: RedisClient) -> None:
        self.environment, self._client = environment, client
        self.began_ms, self._sent = time.time_ns() // 1_000_000 - DAY_MS, 0
        self.latest_ms = self.began_ms
        self.send("products", [make_product(f"i{n}", ts_ms=self.began_ms) for n in range(ITEMS)], "item_id")

    def send(self, kind: str, events: Sequence[msgspec.Struct], key: str = "user_id") -> None:
        with BlockingProducer(self.environment.kafka.bootstrap) as producer:
            records = [(getattr(event, key), to_json(event)) for event in events]
            producer.send(self.environment.topics.topic_name(kind), records)

    def click(self, *items: str, user: str | None = None, guest: str | None = None) -> None:
        """Clicks on items, one second after another; without a user those of a guest."""
        records = []
        for item in items:
            self._sent, self.latest_ms = self._sent + 1, self.latest_ms + STEP_MS
            document = {"event_id": f"c{self._sent}", "ts_ms": self.latest_ms, "item_id": item}
            document |= {"user_id": user, "guest_id": guest}
            records.append((user or guest or "", msgspec.json.encode(document)))
        with BlockingProducer(self.environment.kafka.bootstrap) as producer:
            producer.send(self.environment.topics.clicks, records)

    def find_list(self, user_id: str) -> Recommendations | None:
        (value,) = self._client.pipeline([("GET", f"{self.environment.redis_prefix}rec:{escape_user_id(user_id)}")])
        return read_recommendations(value) if value else None

    def recent_items(self, user_id: str) -> set[str]:
        """The items of a user's own history on the list."""
        answer = self.find_list(user_id)
        return {item.item_id for item in answer.items if item.why == "recent"} if answer else set()

    def has_list_of(self, user_id: str, ts_ms: int) -> bool:
        """Whether the list reflects the event of this time."""
        answer = self.find_list(user_id)
        return answer is not None and answer.source_ms >= ts_ms

    def read_history(self, user_id: str) -> list[int]:
        profiles = open_profile_store(self._client, self.environment.redis_prefix)
        profiles.refresh_generation()
        return [item for item in UserHistories(profiles).read([user_id]).latest.items[0].tolist() if item]

    def find_mismatches(self) -> list[str]:
        audit = StateAudit(self.environment, KINDS)
        try:
            return audit.find_mismatches()
        finally:
            audit.close()

    def is_merged(self) -> bool:
        audit = StateAudit(self.environment, KINDS)
        try:
            return not audit.find_unmerged()
        finally:
            audit.close()


@pytest.fixture
def shop(run_environment: RunEnvironment, redis_client: RedisClient) -> ListShop:
    return ListShop(run_environment, redis_client)


@pytest.fixture
def worker(shop: ListShop) -> Iterator[WorkerProcess]:
    worker = WorkerProcess(shop.environment, lane="browsing", variables=NO_DELAY)
    worker.start()
    yield worker
    worker.kill()


def test_a_guest_has_lists_and_the_user_who_logs_in_goes_on_with_them(shop: ListShop, worker: WorkerProcess) -> None:
    # given a guest with a list
    shop.click("i3", "i4", guest="g:1")
    worker.wait_for(lambda: shop.recent_items("guest:g:1") == {"i3", "i4"})
    # when a user logs in on the device, and another person goes on there
    shop.click("i5", user="anna", guest="g:1")
    worker.wait_for(lambda: shop.recent_items("anna") == {"i3", "i4", "i5"})
    shop.click("i6", guest="g:1")
    worker.wait_for(lambda: shop.recent_items("guest:g:1") == {"i6"})
    # then the user's next list has nothing of that
    shop.click("i7", user="anna")
    worker.wait_for(lambda: shop.has_list_of("anna", shop.latest_ms))
    assert shop.recent_items("anna") == {"i3", "i4", "i5", "i7"}
    # and so it is after another worker has taken over
    worker.kill()
    worker.start()
    shop.click("i8", user="anna")
    worker.wait_for(lambda: shop.has_list_of("anna", shop.latest_ms))
    assert shop.recent_items("anna") == {"i3", "i4", "i5", "i7", "i8"}


def test_guests_and_logins_of_one_batch_go_over_at_once(shop: ListShop) -> None:
    # given events that wait for a worker
    shop.click("i3", guest="g1")
    shop.click("i4", user="anna", guest="g1")
    shop.click("i5", guest="g1")
    shop.click("i6", user="bert", guest="g1")
    shop.click("i7", guest="unknown")
    # when
    worker = WorkerProcess(shop.environment, lane="browsing", variables=NO_DELAY)
    worker.start()
    try:
        worker.wait_for(lambda: shop.find_list("bert") is not None and shop.is_merged())
    finally:
        worker.kill()
    # then
    assert shop.recent_items("anna") == {"i3", "i4"}
    assert shop.recent_items("bert") == {"i5", "i6"}
    assert shop.find_list("guest:unknown") is None
    assert shop.find_mismatches() == []


def test_odd_histories_give_a_list(shop: ListShop, worker: WorkerProcess) -> None:
    # given other people's clicks, so that there are popular items
    shop.click(*(f"i{n % ITEMS}" for n in range(60)), user="crowd")
    # when users have one item, 10,000 within three hours, only items that no longer exist, and one item 500 times
    shop.click("i1", user="one")
    shop.click(*(f"i{n % ITEMS}" for n in range(10_000)), user="many")
    shop.click("gone-1", "gone-2", "gone-1", user="gone")
    shop.click(*["i2"] * 500, user="same")
    worker.wait_for(shop.is_merged)
    shop.click("gone-3", user="gone")
    gone_ms = shop.latest_ms
    shop.click("i2", user="same")
    worker.wait_for(lambda: shop.has_list_of("gone", gone_ms) and shop.has_list_of("same", shop.latest_ms))
    worker.wait_for(lambda: shop.find_list("many") is not None and shop.find_list("one") is not None)
    # then each has a list of items that exist, each once
    for user in ("one", "many", "gone", "same"):
        answer = shop.find_list(user)
        assert answer is not None
        items = [item.item_id for item in answer.items]
        assert items, user
        assert len(items) == len(set(items)), user
        assert set(items) <= {f"i{n}" for n in range(ITEMS)}, user
    assert shop.recent_items("one") == {"i1"}
    assert shop.recent_items("same") == {"i2"}
    assert shop.recent_items("gone") == set()
    # and its latest items, which are exact
    worker.wait_for(shop.is_merged)
    assert shop.read_history("many") == [item_hash(f"i{n % ITEMS}") for n in range(9_999, 9_935, -1)]
    assert shop.read_history("same") == [item_hash("i2")] * 64
    assert shop.read_history("gone") == [item_hash(item) for item in ("gone-3", "gone-1", "gone-2", "gone-1")]
    assert shop.find_mismatches() == []


def test_an_order_of_events_that_is_late_gives_the_same(shop: ListShop, worker: WorkerProcess) -> None:
    # given a login that comes before what the guest did before it, twice
    shop.send(
        "clicks",
        [
            Click(event_id="c1", ts_ms=shop.began_ms + 2_000, user_id="anna", guest_id="g1", item_id="i1"),
            Click(event_id="c1", ts_ms=shop.began_ms + 2_000, user_id="anna", guest_id="g1", item_id="i1"),
            Click(event_id="c2", ts_ms=shop.began_ms + 1_000, user_id="guest:g1", item_id="i2"),
        ],
    )
    worker.wait_for(lambda: shop.find_list("guest:g1") is not None or shop.is_merged())
    # when
    shop.send("clicks", [Click(event_id="c3", ts_ms=shop.began_ms + 3_000, user_id="anna", item_id="i3")])
    worker.wait_for(lambda: shop.has_list_of("anna", shop.began_ms + 3_000))
    # then
    assert shop.recent_items("anna") == {"i1", "i2", "i3"}
