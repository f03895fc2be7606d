"""The live phase of the demo: workers answer the shop's events, and every event sent must be answered."""

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from contract.messages import Recommendations
from demo.console import ShowStatus, StepReporter
from demo.environment import DemoEnvironment
from demo.live.health_probe import HealthProbe
from demo.live.home_pages import assign_origin
from demo.live.sent_counts import SentCounts
from demo.processes import DemoError
from demo.simulator.records import SourceRecord
from demo.simulator.sessions import HomePage
from demo.simulator.shop import ShopSimulator
from demo.simulator.users import User
from devservers.process import find_free_ports

RECORDS_PER_S: Final = 600.0  # slow enough that two cores serve fresh lists
BEHIND_MAX: Final = 100  # events: the shop waits, since an hour of its time passes in a tenth of a second
SLOW_RECORDS_PER_S: Final = 20.0
POLL_EVERY_S: Final = 0.25
IDLE_S: Final = 1.5  # after this long without a new example, the joiner has published all it can
TIMEOUT_S: Final = 90.0
PROCESSES: Final = {
    "orders": ("worker", "score", "--lane", "orders"),
    "browsing": ("worker", "score", "--lane", "browsing"),
    "joiner": ("worker", "feedback"),
}
LANES: Final = ("orders", "browsing")


class LivePhase:
    """Sends the live events of a shop to the workers. `sent`: counts of records; `elapsed_s`: time spent sending."""

    def __init__(self, *, environment: DemoEnvironment, reporter: StepReporter, shop: ShopSimulator) -> None:
        self.sent = SentCounts()
        self.elapsed_s = 0.0
        self.probes: Mapping[str, HealthProbe] = {
            name: HealthProbe(port) for name, port in zip(PROCESSES, find_free_ports(len(PROCESSES)), strict=True)
        }
        self._environment, self._reporter, self._shop = environment, reporter, shop

    def start_workers(self) -> None:
        """Send the catalogue, start every worker process on its own HTTP port, and wait until all are ready."""
        for product in self._shop.product_records():
            self._environment.producer.send(product)
        self._environment.producer.flush()
        with self._reporter.step("Starting the workers of both lanes and the joiner"):
            for name, arguments in PROCESSES.items():
                self._environment.processes.start(
                    name, *arguments, environment={"SHOPSTREAM_WORKER__HTTP_PORT": self.probes[name].port}
                )
            probes = self.probes.values()
            self._environment.processes.wait_until(
                lambda: all(probe.is_ready() for probe in probes), "Workers should be ready", TIMEOUT_S
            )

    def run_days(self, days: float) -> None:
        """Simulate some days, then wait until all of their events are answered and joined."""
        with self._reporter.step(f"Sending {days:g} days of live events") as show_status:
            started_s = time.monotonic()
            records = self._shop.simulate_live(self._read_home_page, days)
            self._send(records, RECORDS_PER_S, show_status, behind_max=BEHIND_MAX)
            self.elapsed_s += time.monotonic() - started_s
            show_status(self._format_progress())
        with self._reporter.step("Waiting for the last answers and examples") as show_status:
            self._environment.processes.wait_until(
                lambda: self._is_all_answered(show_status), "Everything should be answered", TIMEOUT_S
            )
            self._environment.processes.wait_until(self._is_joiner_idle, "The joiner should become idle", TIMEOUT_S)
            show_status(self._format_progress())

    def wait_for_version(self, version: str) -> None:
        """Wait until the running workers serve this version, and check that a decision on a new order carries it."""
        environment = self._environment
        with self._reporter.step("Waiting until the running workers decide with the new model"):
            lanes = [self.probes[lane] for lane in LANES]
            environment.processes.wait_until(
                lambda: all(probe.read_version() == version for probe in lanes),
                "Workers should serve the new model",
                TIMEOUT_S,
            )
            orders_before = len(self.sent.order_ids)
            for record in self._shop.simulate_live(self._read_home_page, 1.0):
                self._send([record], 0.0, ignore_status)
                if len(self.sent.order_ids) > orders_before:
                    break
            environment.processes.wait_until(
                lambda: self._is_all_answered(ignore_status), "The next order should be decided", TIMEOUT_S
            )
        if version not in {decision.model_version for decision in environment.outputs.decisions.values()}:
            raise DemoError(f"A decision on a new order should carry the model {version}. Found none.")

    def send_clicks(self, user_id: str, item_ids: Sequence[str]) -> Recommendations:
        """Send clicks of one person, and wait for the list that follows from the last of them."""
        environment = self._environment
        clicks = self._shop.make_clicks(user_id, item_ids)
        self._send(clicks, 0.0, ignore_status)
        newest = list[Recommendations]()

        def has_list() -> bool:
            recommendations = environment.read_list(user_id)
            newest[:] = [recommendations] if recommendations else []
            return bool(newest) and newest[0].source_ms >= clicks[-1].ts_ms

        environment.processes.wait_until(has_list, f"{user_id} should get a list", TIMEOUT_S)
        return newest[0]

    def run_forever(self) -> None:
        """Send events slowly until interrupted; the embedded Kafka drops its oldest records over time."""
        while True:
            self._send(self._shop.simulate_live(self._read_home_page, 1.0), SLOW_RECORDS_PER_S, ignore_status)

    def _send(
        self,
        records: Iterable[SourceRecord],
        records_per_s: float,
        show_status: ShowStatus,
        *,
        behind_max: float = math.inf,
    ) -> None:
        """Send at a constant rate (0: unlimited), count the records, and poll the outputs.

        Waits while more than `behind_max` of the events sent are not answered.
        """
        environment = self._environment
        started_s = time.monotonic()
        shown_s = 0.0
        for number, record in enumerate(records):
            wait_s = started_s + number / records_per_s - time.monotonic() if records_per_s else 0.0
            if wait_s > 0:
                time.sleep(wait_s)
            environment.producer.send(record)
            self.sent.record(record)
            if (now_s := time.monotonic()) - shown_s > POLL_EVERY_S:
                environment.processes.raise_if_ended()
                environment.processes.wait_until(
                    lambda: self._count_unanswered(show_status) <= behind_max, "Workers should keep up", TIMEOUT_S
                )
                shown_s = time.monotonic()
                started_s += shown_s - now_s  # what was not sent in the meantime is not sent all at once
        environment.producer.flush()

    def _count_unanswered(self, show_status: ShowStatus) -> int:
        """The orders and clicks sent that are not logged yet."""
        outputs, valid = self._environment.outputs, self.sent.valid
        outputs.poll()
        show_status(self._format_progress())
        return valid["orders"] + valid["clicks"] - outputs.scored["order"] - outputs.scored["click"]

    def _is_all_answered(self, show_status: ShowStatus) -> bool:
        """Whether every order is decided, every click logged, and every malformed record a dead letter."""
        outputs, sent = self._environment.outputs, self.sent
        return (
            self._count_unanswered(show_status) <= 0
            and sent.order_ids <= outputs.decisions.keys()
            and outputs.dead_letters.total() >= sent.malformed.total()
        )

    def _is_joiner_idle(self) -> bool:
        """Whether there are examples, and the last one arrived more than `IDLE_S` ago."""
        outputs = self._environment.outputs
        outputs.poll()
        return outputs.last_example_s is not None and time.monotonic() - outputs.last_example_s > IDLE_S

    def _format_progress(self) -> str:
        outputs = self._environment.outputs
        return (
            f"{self.sent.records:,} events, {len(outputs.decisions):,} decisions, "
            f"{outputs.scored.total():,} rows logged, "
            f"{outputs.dead_letters.total()} dead letters, {len(outputs.examples):,} examples"
        )

    def _read_home_page(self, user: User) -> HomePage | None:
        """A page of the user's origin; None for the shop's own, and where Redis has neither list nor popular items."""
        origin, reader = assign_origin(user.user_id), self._environment.recommendation_reader
        if origin == "shop":
            return None
        page = reader.read(user.user_id) if origin == "lists" else reader.read_popular()
        return HomePage(page.recommendation_id or "", page.items) if page.items else None


def ignore_status(text: str) -> None:
    """Discard a status."""
