"""`python -m bench lists`: lists that one core makes in a second, and how old lists are under a steady load.

First lists are made in this process, by the number of candidates and of users at once. Then workers of both lanes run
with default settings on Apache Kafka and Redis, while clicks arrive at a steady rate, each of another user, and orders
in parallel. A list's age is the time from its click until Redis reports that it is set; a decision's is taken when a
read-committed consumer has it. `share` is that of the users who clicked and have a list that reflects the click.
`load` is the machine's load average when the measured time began, of which one producer, both workers, the observers
and the servers are a part.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import msgspec
import redis
from confluent_kafka import Producer

from bench.performance.latency import READY_TIMEOUT_S, WARMUP_S, LatencyBench
from bench.performance.load.workload import LoadGenerator, LoadRecord, publish_bundle
from bench.performance.measure.latency_probe import AnswerTime
from bench.performance.measure.list_speed import ListSpeed
from bench.results.report import print_missed, print_progress, print_result
from bench.results.statistics import percentiles
from contract.messages import read_recommendations, to_json
from devservers.apache_kafka import ApacheKafka
from devservers.redis_server import RedisServer

CANDIDATES: Final = (100, 500)
USERS_AT_ONCE: Final = (1, 8, 32, 128)
CLICKS_PER_S, ORDERS_PER_S = 2_000, 100
MEASURED_S: Final = 60.0
LAST_LISTS_S: Final = 30.0  # for the lists that are not made when the last click is sent
POLL_S: Final = 0.2
LINGER_MS: Final = 5  # default of producers since Kafka 4.0; else the broker spends most of a core on single records
PAGE: Final = 5_000  # lists that are read at once
BUYERS_FROM, BUYERS = 10_000_000, 10_000  # users who order, apart from those who click
SHARE_MIN, P50_MAX_MS, P99_MAX_MS = 1.0, 250.0, 1_000.0


class SteadyResult(msgspec.Struct, frozen=True, kw_only=True):
    """Under the steady load; ages in milliseconds, rates per second as they were reached."""

    share: float
    list_ms: dict[str, float]
    decision_ms: dict[str, float]
    users: int
    clicks_per_second: float
    orders_per_second: float
    load: float


class ListFigures(msgspec.Struct, frozen=True, kw_only=True):
    """`lists_per_second` of one core, by candidates and by users at once."""

    lists_per_second: dict[str, dict[str, float]]
    steady: SteadyResult

    @property
    def missed_aims(self) -> Iterator[str]:
        steady = self.steady
        if steady.share < SHARE_MIN:
            yield f"a list for every user who clicked: {steady.share:.4f} of them"
        for percentile, limit_ms in (("p50", P50_MAX_MS), ("p99", P99_MAX_MS)):
            if steady.list_ms[percentile] > limit_ms:
                yield f"lists in {limit_ms:g} ms ({percentile}): {steady.list_ms[percentile]:g} ms"


class DistinctUsers(LoadGenerator):
    """Events of now: each click is of another user, and orders are of users who do not click."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed, None)
        self.clicked_ms: dict[str, int] = {}  # by user

    def draw_record(self, kind: str) -> LoadRecord:
        """A record of kind `clicks` or `orders`."""
        if kind == "orders":
            order = self.draw_order(BUYERS_FROM + self.rng.randrange(BUYERS), lines=1, sellers=False)
            return LoadRecord(kind, order.user_id, to_json(order))
        click = self.draw_click(len(self.clicked_ms))
        self.clicked_ms[click.user_id] = click.ts_ms
        return LoadRecord(kind, click.user_id, to_json(click))


class SteadyRun:
    """One run of the steady load. `bench`: its servers, topics and observers."""

    def __init__(self, *, bench: LatencyBench, server: RedisServer, seed: int) -> None:
        self._bench, self._load = bench, DistinctUsers(seed)
        self._store: Any = redis.Redis(port=server.port)
        self._load_average = 0.0

    def run(self, seconds: float, clicks_per_s: float = CLICKS_PER_S) -> SteadyResult:
        """Send for a warm-up and `seconds`; the events of the warm-up do not count."""
        with self._bench.run_workers(("orders", "browsing")), self._bench.watch_answers("decisions", "lists") as times:
            begin_ms, end_ms, sent = self._send(seconds, clicks_per_s)
            users = {user: ms for user, ms in self._load.clicked_ms.items() if ms >= begin_ms}
            share = self._wait_for_lists(users)
        took_s = (end_ms - begin_ms) / 1000
        return SteadyResult(
            share=round(share, 5),
            list_ms=summarize(times["lists"], begin_ms),
            decision_ms=summarize(times["decisions"], begin_ms),
            users=len(users),
            clicks_per_second=round(sent["clicks"] / took_s, 1),
            orders_per_second=round(sent["orders"] / took_s, 1),
            load=round(self._load_average, 1),
        )

    def _send(self, seconds: float, clicks_per_s: float) -> tuple[float, float, dict[str, int]]:
        """Send at the two rates; returns when the measured time began and ended, and how much was sent in it."""
        environment = self._bench.environment
        topics = {kind: environment.topics.topic_name(kind) for kind in ("clicks", "orders")}
        producer = Producer({"bootstrap.servers": environment.kafka.bootstrap, "linger.ms": LINGER_MS, "log_level": 3})
        rates, sent, before = {"clicks": clicks_per_s, "orders": ORDERS_PER_S}, dict.fromkeys(topics, 0), {}
        started_s, begin_ms = time.monotonic(), 0.0
        while (elapsed_s := time.monotonic() - started_s) < WARMUP_S + seconds:
            if not begin_ms and elapsed_s >= WARMUP_S:
                begin_ms, before, self._load_average = time.time() * 1000, dict(sent), os.getloadavg()[0]
            for kind, rate in rates.items():
                while sent[kind] < elapsed_s * rate:
                    record = self._load.draw_record(kind)
                    producer.produce(topics[kind], record.value, record.key)
                    sent[kind] += 1
            producer.poll(0)
            time.sleep(0.001)
        end_ms = time.time() * 1000
        if waiting := producer.flush(READY_TIMEOUT_S):
            raise RuntimeError(f"Kafka should take every event. Found {waiting} waiting.")
        return begin_ms, end_ms, {kind: count - before.get(kind, 0) for kind, count in sent.items()}

    def _wait_for_lists(self, clicked_ms: Mapping[str, int]) -> float:
        """The share of these users with a list of their click, once all have one or the time for the last is over."""
        deadline_s, missing = time.monotonic() + LAST_LISTS_S, list(clicked_ms)
        while missing and time.monotonic() < deadline_s:
            time.sleep(POLL_S)
            missing = [user for page in split_pages(missing) for user in self._find_missing(page, clicked_ms)]
        return 1 - len(missing) / len(clicked_ms)

    def _find_missing(self, users: Sequence[str], clicked_ms: Mapping[str, int]) -> list[str]:
        """Those of these users who have no list that reflects their click."""
        values = self._store.mget([f"{self._bench.environment.redis_prefix}rec:{user}" for user in users])
        return [
            user
            for user, value in zip(users, values, strict=True)
            if value is None or read_recommendations(value).source_ms < clicked_ms[user]
        ]


def split_pages(users: Sequence[str]) -> list[Sequence[str]]:
    return [users[start : start + PAGE] for start in range(0, len(users), PAGE)]


def summarize(times: Sequence[AnswerTime], begin_ms: float) -> dict[str, float]:
    """Percentiles of the ages of the answers to events since `begin_ms`."""
    ages_ms = [answer_time.latency_ms for answer_time in times if answer_time.event_ms >= begin_ms]
    if not ages_ms:
        raise RuntimeError("Answers should come out. Found none.")
    return percentiles(ages_ms)


def measure_speed(server: RedisServer, bundles: Path, seed: int) -> dict[str, dict[str, float]]:
    """Lists per second of one core."""
    speed = ListSpeed(redis_url=server.url, bundles=bundles, seed=seed)
    figures = {
        str(candidates): {str(users): speed.measure(candidates, users) for users in USERS_AT_ONCE}
        for candidates in CANDIDATES
    }
    speed.close()
    return figures


def main(argv: Sequence[str]) -> int:
    """Measure on its own servers; always 0, since a machine with other load misses the aims easily."""
    arguments = parse(argv)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="shopstream-lists-")))
        server = stack.enter_context(RedisServer())
        publish_bundle(folder / "bundles", arguments.seed)
        speed = measure_speed(server, folder / "bundles", arguments.seed)
        print_progress(f"lists per second of one core: {speed}")
        server.flush()
        kafka = stack.enter_context(ApacheKafka())
        bench = LatencyBench(kafka=kafka, server=server, folder=folder, seed=arguments.seed)
        steady = SteadyRun(bench=bench, server=server, seed=arguments.seed).run(arguments.seconds, arguments.clicks)
    figures = ListFigures(lists_per_second=speed, steady=steady)
    print_missed(figures.missed_aims)
    print_result(figures, as_json=arguments.json)
    return 0


def parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench lists", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print the figures as one line of JSON, the last one")
    parser.add_argument("--seconds", type=float, default=MEASURED_S, help="measured seconds of the steady load")
    parser.add_argument("--clicks", type=float, default=CLICKS_PER_S, help="clicks per second of the steady load")
    parser.add_argument("--seed", type=int, default=20111209)
    return parser.parse_args(argv)
