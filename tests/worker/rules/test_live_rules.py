"""A worker on Apache Kafka and Redis that is given list rules while it runs."""

import json
import subprocess
import sys
import time
from typing import Any

import pytest

from contract.messages import read_recommendations, to_json
from testkit.environment.run_environment import RunEnvironment
from tests.kafka import BlockingProducer
from tests.worker.events import make_click, make_product
from tests.worker.probes.worker_process import WorkerProcess
from worker.redis.client import RedisClient

pytestmark = pytest.mark.apache_kafka

EXCLUDE = '[[rules]]\nname = "no north"\naction = "exclude"\nbrands = ["north"]\n'
PIN = '[[rules]]\nname = "spring"\naction = "pin"\nitems = ["p4"]\n'


class RuledShop:
    """Products of two brands, clicks on them, and the lists in Redis."""

    def __init__(self, environment: RunEnvironment, client: RedisClient) -> None:
        self.environment, self._client, self._clicks = environment, client, 0
        now_ms = time.time_ns() // 1_000_000
        products = [make_product(f"p{n}", brand="north" if n % 2 else "south", ts_ms=now_ms) for n in range(6)]
        self._send("products", [(product.item_id, to_json(product)) for product in products])
        self.rules = environment.folder / "list-rules.toml"
        self.rules.write_text("rules = []")

    def start_worker(self) -> WorkerProcess:
        worker = WorkerProcess(
            self.environment,
            lane="browsing",
            variables={"SHOPSTREAM_LISTS__RULES": str(self.rules), "SHOPSTREAM_LISTS__REFRESH_MS": "0"},
        )
        worker.start()
        return worker

    def click_all(self) -> None:
        """A click of user u on every item."""
        now_ms = time.time_ns() // 1_000_000
        self._clicks += 1
        clicks = [make_click(f"c{self._clicks}-{n}", f"p{n}", ts_ms=now_ms) for n in range(6)]
        self._send("clicks", [(click.user_id, to_json(click)) for click in clicks])

    def read_list(self) -> dict[str, str]:
        """The items of the user's list with the rules that acted; empty without a list."""
        value = self._read("rec:u")
        return {item.item_id: item.rule for item in read_recommendations(value).items} if value else {}

    def read_popular(self) -> dict[str, Any]:
        return json.loads(self._read("rec:popular") or b'{"items": []}')  # type: ignore[no-any-return]

    def wait_for_list(self, worker: WorkerProcess, expected: dict[str, str]) -> None:
        """Click until the list has these items, in this order where a rule acted."""

        def has_list() -> bool:
            self.click_all()
            return self.read_list() == expected

        worker.wait_for(has_list)

    def _read(self, key: str) -> bytes | None:
        (value,) = self._client.pipeline([("GET", f"{self.environment.redis_prefix}{key}")])
        return value if isinstance(value, bytes) else None

    def _send(self, kind: str, records: list[tuple[str, bytes]]) -> None:
        with BlockingProducer(self.environment.kafka.bootstrap) as producer:
            producer.send(self.environment.topics.topic_name(kind), records)


@pytest.fixture
def shop(run_environment: RunEnvironment, redis_client: RedisClient) -> RuledShop:
    return RuledShop(run_environment, redis_client)


def test_a_running_worker_obeys_new_rules_and_keeps_them_when_the_file_is_wrong(shop: RuledShop) -> None:
    worker = shop.start_worker()
    try:
        # given lists of all items
        shop.wait_for_list(worker, dict.fromkeys((f"p{n}" for n in range(6)), ""))
        # when a brand is excluded and an item is pinned
        shop.rules.write_text(EXCLUDE + PIN)
        # then the next lists obey, and so do the popular ones
        shop.wait_for_list(worker, {"p0": "", "p2": "", "p4": "spring"})
        assert next(iter(shop.read_list())) == "p4"
        worker.wait_for(lambda: set(shop.read_popular()["items"]) == {"p0", "p2", "p4"})
        assert shop.read_popular()["rules"] == {"p4": "spring"}
        # when the file is wrong, then the former rules stay, and log, metric and doctor tell it
        shop.rules.write_text(EXCLUDE.replace("exclude", "exlude"))
        worker.wait_for(lambda: "shopstream_list_rules_refused 1.0" in worker.fetch("/metrics")[1])
        shop.wait_for_list(worker, {"p0": "", "p2": "", "p4": "spring"})
        assert worker.has_logged("former list rules stay in force", "the nearest is `exclude`")
        worker.wait_for(lambda: count_errors(shop) == 2)  # of the file, and of the worker
        # when rules exclude everything, then lists have popular items and name them
        shop.rules.write_text('[[rules]]\nname = "all"\naction = "exclude"\nprice = {min = 0}\n')
        shop.wait_for_list(worker, dict.fromkeys((f"p{n}" for n in range(6)), "all"))
        # when they end
        shop.rules.write_text("rules = []")
        shop.wait_for_list(worker, dict.fromkeys((f"p{n}" for n in range(6)), ""))
    finally:
        worker.kill()


def count_errors(shop: RuledShop) -> int:
    """The doctor's errors about list rules."""
    command = [sys.executable, "-m", "worker", "doctor", "--json"]
    variables = {**shop.environment.env_variables(), "SHOPSTREAM_LISTS__RULES": str(shop.rules)}
    findings = json.loads(subprocess.run(command, env=variables, capture_output=True, check=False).stdout)
    rules = [finding for finding in findings if finding["subject"].startswith("list rules")]
    return sum(finding["severity"] == "error" for finding in rules)


def test_a_worker_does_not_start_with_a_wrong_file(shop: RuledShop) -> None:
    shop.rules.write_text(EXCLUDE + "factor = 2")
    worker = shop.start_worker()
    try:
        worker.wait_for(lambda: worker.has_logged("Configuration:", "rule `no north`", "only in a `boost`"))
    finally:
        worker.kill()
