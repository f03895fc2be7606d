"""The services of docker-compose.yml, started as processes with the same commands and environment."""

import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from contract.events.model import Click, Line, Order
from contract.messages import read_decision, to_json
from devservers.apache_kafka import ApacheKafka, unavailable_reason
from devservers.process import ChildProcess, find_free_ports
from devservers.redis_server import RedisServer
from testkit.environment.kafka_log import KafkaLog
from tests.checkout import ROOT
from tests.deploy.compose import Service, read_services
from tests.kafka import BlockingProducer
from tests.polling import wait_until
from worker.redis.client import RedisClient

TIMEOUT_S = 60.0
pytestmark = pytest.mark.apache_kafka


@dataclass
class ComposeStack:
    """Both lanes and the joiner as compose runs them, on servers of this machine."""

    kafka: ApacheKafka
    redis: RedisServer
    processes: dict[str, ChildProcess]
    ports: dict[str, int]

    def has_answer(self, name: str, path: str) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.ports[name]}{path}", timeout=5) as reply:
                return bool(reply.status == 200)
        except (urllib.error.URLError, ConnectionError):
            return False


def make_process(service: Service, folder: Path, port: int) -> ChildProcess:
    """The service's command with this environment's interpreter and a free port."""
    environment = {**service.environment, "SHOPSTREAM_WORKER__HTTP_PORT": str(port), "PYTHONPATH": str(ROOT)}
    environment |= {"SHOPSTREAM_CONFIG": str(ROOT / "shop.toml"), "SHOPSTREAM_FEATURES": str(ROOT / "features.toml")}
    return ChildProcess(
        command=[sys.executable, *service.command[1:]], output=folder / f"{service.name}.log", environment=environment
    )


@contextmanager
def start_stack(kafka: ApacheKafka, redis: RedisServer, folder: Path) -> Iterator[ComposeStack]:
    services = {
        name: service.with_addresses(kafka=kafka.bootstrap, redis=redis.url, bundles=folder / "bundles")
        for name, service in read_services().items()
    }
    names = ["orders", "browsing", "joiner"]
    ports = dict(zip(names, find_free_ports(3), strict=True))
    creating = make_process(services["topics"], folder, 0)
    creating.start()
    wait_until(lambda: not creating.is_running)
    assert creating.stop() == 0, creating.tail()
    with ExitStack() as stack:
        children = {name: make_process(services[name], folder, ports[name]) for name in names}
        for child in children.values():
            stack.callback(child.kill)
            child.start()
        running = ComposeStack(kafka, redis, children, ports)
        for name, child in children.items():
            child.wait_until(lambda name=name: running.has_answer(name, "/readyz"), timeout_s=TIMEOUT_S)  # type: ignore[misc]
        yield running


def test_the_services_answer_an_order_and_a_click_and_stop_cleanly(tmp_path: Path) -> None:
    # given separate servers, because the services use the real topic names
    if reason := unavailable_reason():
        pytest.skip(reason)
    with ApacheKafka() as kafka, RedisServer() as redis, start_stack(kafka, redis, tmp_path) as running:
        # when an order and a click arrive
        now_ms = time.time_ns() // 1_000_000
        line = Line(item_id="tent", quantity=1, unit_price=99.0)
        order = Order(
            event_id="o1", ts_ms=now_ms, user_id="ada", lines=(line,), amount=99, currency="EUR", payment_method="card"
        )
        click = Click(event_id="c1", ts_ms=now_ms, user_id="ada", item_id="tent")
        with BlockingProducer(kafka.bootstrap) as producer:
            producer.send("shop.orders", [("ada", to_json(order))])
            producer.send("shop.clicks", [("ada", to_json(click))])

        # then the order is decided on its topic and in Redis, and both are logged as scored
        log, client = KafkaLog(bootstrap=kafka.bootstrap), RedisClient(url=redis.url, timeout_s=5)
        wait_until(lambda: len(list(log.read("shop.scored"))) >= 2)
        decisions = [read_decision(logged.value or b"") for logged in log.read("shop.decisions")]
        assert [decision.event_id for decision in decisions] == ["o1"]
        assert read_decision(client.pipeline([("GET", "shop:decision:o1")])[0]) == decisions[0]
        assert all(
            running.has_answer(name, "/metrics") and running.has_answer(name, "/livez") for name in running.processes
        )
        client.close()

        # and every process stops with status 0
        assert {name: child.stop() for name, child in running.processes.items()} == dict.fromkeys(running.processes, 0)
