"""What faults act on: servers, processes, traffic; and the count of the faults that happened."""

import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from contract.errors import Unavailable
from devservers.apache_kafka import ApacheKafka, make_admin_client
from testkit.chaos.fleet import Fleet, FleetProcess
from testkit.chaos.shop_traffic import ShopTraffic
from testkit.environment.run_environment import RunEnvironment
from worker.redis.client import RedisClient

REDIS_TIMEOUT_S: Final = 2.0
ATTEMPTS: Final = 20
RETRY_S: Final = 0.1
Course: TypeAlias = Iterator[float]  # a fault's course: each value is a time in seconds until it goes on


@dataclass(slots=True, kw_only=True)
class Scene:
    """One environment of a chaos run."""

    environment: RunEnvironment
    kafka: ApacheKafka
    fleet: Fleet
    traffic: ShopTraffic
    rng: random.Random
    report: Callable[[str], None]
    counts: Counter[str] = field(default_factory=Counter)
    loses_claims: bool = False  # Redis may have lost decisions
    recreated_topics: list[str] = field(default_factory=list)  # since the last audit
    has_recreated_topics: bool = False  # of which profiles are made
    bundle_thresholds: dict[str, float] = field(default_factory=dict)  # by version

    def record(self, fault: str) -> None:
        """A fault of this kind has happened."""
        self.counts[fault] += 1
        self.report(fault)

    @contextmanager
    def borrow(self, *roles: str) -> Iterator[FleetProcess | None]:
        """A running process that no other fault has at this time; of any role unless some are named."""
        free = [
            process
            for process in self.fleet.processes
            if process.is_running and not process.is_borrowed and (not roles or process.role in roles)
        ]
        process = self.rng.choice(free) if free else None
        if process is not None:
            process.is_borrowed = True
        try:
            yield process
        finally:
            if process is not None:
                process.is_borrowed = False

    def run_redis(self, *commands: Sequence[Any], password: str = "") -> list[Any]:
        """Replies of Redis; retries for two seconds."""
        url = self.environment.redis.url
        if password:
            url = url.replace("://", f"://:{password}@")
        for attempt in range(ATTEMPTS):
            with closing(RedisClient(url=url, timeout_s=REDIS_TIMEOUT_S)) as client:
                try:
                    return client.pipeline(commands)
                except Unavailable:
                    if attempt == ATTEMPTS - 1:
                        raise
            time.sleep(RETRY_S)
        raise AssertionError

    def topic(self, kind: str) -> str:
        return self.environment.topics.topic_name(kind)

    def administer(self, request: Callable[[Any], Mapping[Any, "Future[Any]"]]) -> None:
        """Send a request to the broker's administration and wait."""
        admin = make_admin_client(self.kafka.bootstrap)
        for future in request(admin).values():
            future.result(30)


def wait_for(condition: Callable[[], bool], *, within_s: float, step_s: float = 0.0) -> Course:
    """Go on when the condition holds, or after `within_s`."""
    deadline_s = time.monotonic() + within_s
    while not condition() and time.monotonic() < deadline_s:
        yield step_s
