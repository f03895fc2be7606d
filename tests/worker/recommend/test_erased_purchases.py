"""A browsing worker on Apache Kafka and Redis: what an erased user bought leaves its memory, not only Redis."""

import pytest

from contract.events.model import Click, Erasure
from testkit.environment.run_environment import RunEnvironment
from tests.worker.events import make_order
from tests.worker.probes.worker_process import WorkerProcess
from tests.worker.recommend.test_guest_lists import ITEMS, NO_DELAY, STEP_MS, ListShop
from worker.redis.client import RedisClient

pytestmark = pytest.mark.apache_kafka

HIDE_BOUGHT = '[[rules]]\nname = "bought"\naction = "hide"\nafter = "bought"\ndays = 30\n'
USERS = ("anna", "guest:g1")


class RememberedPurchases:
    """Purchases that a browsing worker has in its memory alone, since no worker of the orders lane runs."""

    def __init__(self, shop: ListShop, worker: WorkerProcess) -> None:
        self._shop, self._worker, self._clicks = shop, worker, 0

    def buy(self, item: str) -> None:
        shop = self._shop
        shop.latest_ms += STEP_MS
        shop.send("orders", [make_order(f"o-{user}", item, user=user, ts_ms=shop.latest_ms) for user in USERS])

    def erase(self, user: str) -> None:
        """Erase a user up to now, and wait until the worker has deleted the user's list."""
        shop = self._shop
        shop.send("erasures", [Erasure(event_id=f"e-{user}", ts_ms=shop.latest_ms, user_id=user)])
        self._worker.wait_for(lambda: shop.find_list(user) is None)

    def list_items(self, user: str, count: int) -> set[str]:
        """The items of a list that reflects a new click, after as many lists of it as are needed for `count` items."""
        items = set[str]()

        def has_list() -> bool:
            nonlocal items
            shop = self._shop
            self._clicks += 1
            shop.latest_ms += STEP_MS
            click_ms = shop.latest_ms
            click = Click(event_id=f"l{self._clicks}", ts_ms=click_ms, user_id=user, item_id="i0")
            shop.send("clicks", [click])
            self._worker.wait_for(lambda: shop.has_list_of(user, click_ms))
            answer = shop.find_list(user)
            items = {item.item_id for item in answer.items} if answer else set()
            return len(items) == count

        self._worker.wait_for(has_list)
        return items


def test_what_an_erased_user_or_guest_bought_is_on_lists_again(
    run_environment: RunEnvironment, redis_client: RedisClient
) -> None:
    # given lists of all items, and users who have bought one that a rule leaves out for long
    shop = ListShop(run_environment, redis_client)
    (rules := run_environment.folder / "list-rules.toml").write_text(HIDE_BOUGHT)
    variables = {**NO_DELAY, "SHOPSTREAM_LISTS__RULES": str(rules)}
    worker = WorkerProcess(run_environment, lane="browsing", variables=variables)
    worker.start()
    try:
        shop.click(*[f"i{n}" for n in range(ITEMS)], user="someone")
        purchases = RememberedPurchases(shop, worker)
        for user in USERS:
            purchases.list_items(user, ITEMS)
        purchases.buy("i3")
        for user in USERS:
            assert "i3" not in purchases.list_items(user, ITEMS - 1)
        # when
        purchases.erase("anna")
        # then the other one's lists still leave it out
        assert "i3" in purchases.list_items("anna", ITEMS)
        assert "i3" not in purchases.list_items("guest:g1", ITEMS - 1)
        # and so it is for a guest
        purchases.erase("guest:g1")
        assert "i3" in purchases.list_items("guest:g1", ITEMS)
    finally:
        worker.kill()
