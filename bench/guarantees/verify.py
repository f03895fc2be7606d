"""`python -m bench verify`: `worker verify` looks at the state again and again while events flow.

On Apache Kafka and Redis, with a worker for each lane. In each round some looks should find nothing; then errors of
eight kinds are written into random slices and histories, and the next look should find each of them and nothing else. A
worker that has read a slice before an error was written overwrites it: such an error stood at no look and is written
again.
"""

import argparse
import os
import random
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import count, cycle
from pathlib import Path
from typing import Final

import msgspec

from bench.results.report import print_progress, print_result
from bench.results.statistics import min_median_max
from contract.mapping.event_topics import EventTopics
from contract.profiles.record import FAMILIES
from devservers.apache_kafka import ApacheKafka
from devservers.redis_server import RedisServer
from testkit.audits.injected_errors import ERROR_KINDS, HISTORY_OF, ErrorInjector, InjectedError, SliceName
from testkit.environment.run_environment import RunEnvironment
from testkit.kills.score_worker_kills import KillPlan, KillRun
from transport.log_reader import LogReader
from transport.record_reader import RecordReader
from worker.kafka.admin import KafkaAdmin
from worker.maintenance.comparison import VerificationResult
from worker.maintenance.verification import EntitySample, Verification, run_repeatedly
from worker.redis.client import RedisClient
from worker.state.profile_store import open_profile_store

# The log of a round grows while looks are taken, and each look reads all of it: on a busy machine they would not end.
ROUND_LOOKS: Final = 50
ROUND_EVENTS: Final = 15_000
PARTS: Final = 10  # of all entities; a look verifies one of them, as `worker verify` does by default
DIFFERENCES_MAX: Final = 1_000_000  # all of them
TICK_S: Final = 0.05
START_TIMEOUT_S: Final = 120.0


class VerifyOutcome(msgspec.Struct, kw_only=True):
    """Counts over all rounds. `false`: mismatches that no injected error explains. `unchecked`: slices by reason."""

    looks: int = 0
    events: int = 0
    events_per_s: float = 0.0
    slices: int = 0
    false: int = 0
    injected: dict[str, int] = msgspec.field(default_factory=lambda: dict.fromkeys(ERROR_KINDS, 0))
    errors_found: int = msgspec.field(default=0, name="found")
    overwritten: int = 0
    unchecked: dict[str, int] = msgspec.field(default_factory=dict)
    look_s: tuple[float, float, float] = (0.0, 0.0, 0.0)  # minimum, median, maximum
    load_at_start: float = 0.0
    seconds: float = 0.0

    @property
    def passed(self) -> bool:
        """Whether nothing false was found, and every injected error was."""
        return self.false == 0 and self.errors_found == sum(self.injected.values()) > 0


class VerifyRound:
    """Looks at one environment while its workers answer `rate` events a second."""

    def __init__(
        self,
        *,
        environment: RunEnvironment,
        rate: int,
        seed: int,
        kinds: Iterator[str],
        outcome: VerifyOutcome,
    ) -> None:
        """`kinds`: of the next errors."""
        self.environment, self.rate, self.kinds, self.outcome = environment, rate, kinds, outcome
        self.workers = KillRun(
            environment=environment, plan=KillPlan(orders=0, clicks=0, kills=0, seed=seed), report=print_progress
        )
        self.client = RedisClient(url=environment.redis.url, timeout_s=60)
        self.profiles = open_profile_store(self.client, environment.redis_prefix)
        self.injector = ErrorInjector(client=self.client, profiles=self.profiles, rng=random.Random(seed))
        self.reader = LogReader(kafka=environment.kafka_settings)
        self.admin = KafkaAdmin(kafka=environment.kafka_settings)
        self.parts = cycle(range(PARTS))
        self.standing: list[InjectedError] = []
        self.look_s: list[float] = []

    def run(self, looks: int, errors: int, events_max: int) -> tuple[int, int]:
        """Make at most `looks` looks, the last `errors` of them each after an injected error.

        Returns how many of both it made before the log had `events_max` events; at least one of each.
        """
        plain = made_errors = 0
        self.environment.create_topics()
        started_s = time.monotonic()
        try:
            for process in self.workers.processes.values():
                process.start()
            with self._traffic():
                self._wait_for_slices()
                self.profiles.refresh_generation()
                while plain < looks - errors and not (plain and self._count_sent() >= events_max):
                    self._look(next(self.parts))
                    plain += 1
                while made_errors < errors and not (made_errors and self._count_sent() >= events_max):
                    made_errors += self._look_after(self.injector.inject(next(self.kinds)))
        finally:
            for process in self.workers.processes.values():
                process.child.kill()
                process.close()
            self.reader.close()
            self.client.close()
        sent = self._count_sent()
        self.outcome.events += sent
        print_progress(
            f"{self.outcome.looks} looks, {self.outcome.errors_found} errors found, {self.outcome.false} false; "
            f"{sent / (time.monotonic() - started_s):.0f} events/s in this round"
        )
        return plain + made_errors, made_errors

    def _count_sent(self) -> int:
        return sum(producer.event_count for producer in self.workers.producers.values())

    def _look(self, part: int) -> set[SliceName]:
        """Verify one part of all entities; what was found that no standing error explains is false."""
        topics = self.environment.topics
        verification = Verification(
            reader=self.reader,
            admin=self.admin,
            profiles=open_profile_store(self.client, self.environment.redis_prefix),
            record_reader=RecordReader(EventTopics(topics)),
            kinds=FAMILIES,
            sample=EntitySample(1 / PARTS, part),
            differences_max=DIFFERENCES_MAX,
        )
        began_s = time.monotonic()
        result = run_repeatedly(verification)
        self.look_s.append(time.monotonic() - began_s)
        outcome = self.outcome
        outcome.looks += 1
        outcome.slices += result.slices
        for reason, slices in result.unchecked_by_reason.items():
            outcome.unchecked[reason] = outcome.unchecked.get(reason, 0) + slices
        differences = parse_differences(result)
        false = differences.keys() - {name for error in self.standing for name in error.explained}
        outcome.false += len(false)
        for name in sorted(false):
            print_progress(f"False: {differences[name]}")
        return set(differences)

    def _look_after(self, error: InjectedError) -> bool:
        """Look once after an error; whether it stood, so that it counts."""
        self.standing.append(error)
        is_found = error.name in self._look(find_part(error.name[0]))
        has_stood = is_found or error.is_standing()
        if has_stood:
            self.outcome.injected[error.kind] += 1
            self.outcome.errors_found += is_found
            if not is_found:
                print_progress(f"Not found: {error.kind} of {error.name}")
        else:
            self.outcome.overwritten += 1
        if error.repair:
            error.repair()
            self.standing.remove(error)
        return has_stood

    def _wait_for_slices(self) -> None:
        deadline_s = time.monotonic() + START_TIMEOUT_S
        while not any(self.client.scan(f"{self.environment.redis_prefix}profile:")):
            if time.monotonic() > deadline_s:
                tails = "\n".join(process.child.tail() for process in self.workers.processes.values())
                raise RuntimeError(f"Workers should write profiles in {START_TIMEOUT_S:g} s. Found none.\n{tails}")
            time.sleep(TICK_S)

    @contextmanager
    def _traffic(self) -> Iterator[None]:
        """Half of the events go to each lane."""
        stop = threading.Event()
        thread = threading.Thread(target=self._send_until, args=(stop.is_set,))
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()

    def _send_until(self, is_stopped: Callable[[], bool]) -> None:
        began_s, sent = time.monotonic(), 0
        while not is_stopped():
            due = int((time.monotonic() - began_s) * self.rate / 2)
            for producer in self.workers.producers.values():
                producer.send(due - sent)
            sent = due
            time.sleep(TICK_S)


def find_part(name: str) -> int:
    """The part that contains an entity, or the user of a history; every part reports a bucket."""
    entity = name.removeprefix(HISTORY_OF)
    return next(part for part in range(PARTS) if EntitySample(1 / PARTS, part).contains(entity))


def parse_differences(result: VerificationResult) -> dict[SliceName, str]:
    """What a verification found wrong, by the entity or bucket and the source."""
    differences = dict[SliceName, str]()
    for difference in result.differences:
        name, source = difference.split(": ")[0].split(", ")
        differences[name, source] = difference
    return differences


def main(argv: Sequence[str]) -> int:
    """Run on its own servers. 0: no false mismatch, and every injected error was found."""
    arguments = parse(argv)
    outcome, look_s = VerifyOutcome(load_at_start=round(os.getloadavg()[0], 2)), list[float]()
    started_s, kinds = time.monotonic(), cycle(ERROR_KINDS)
    looks, errors = arguments.looks, arguments.errors  # still to be made
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="shopstream-verify-")))
        kafka, redis = stack.enter_context(ApacheKafka()), stack.enter_context(RedisServer())
        for number in count():
            if not looks:
                break
            environment = RunEnvironment(kafka=kafka, redis=redis, folder=folder, prefix=f"r{number}.")
            round_ = VerifyRound(
                environment=environment, rate=arguments.rate, seed=arguments.seed + number, kinds=kinds, outcome=outcome
            )
            round_looks = min(looks, ROUND_LOOKS)
            made_looks, made_errors = round_.run(round_looks, errors * round_looks // looks, ROUND_EVENTS)
            looks, errors = looks - made_looks, errors - made_errors
            look_s += round_.look_s
            redis.flush()
            kafka.delete_topics(environment.prefix)
    outcome.seconds = round(time.monotonic() - started_s, 1)
    outcome.events_per_s = round(outcome.events / outcome.seconds, 1)
    outcome.look_s = min_median_max(look_s, 2)
    print_result(outcome, as_json=arguments.json)
    return 0 if outcome.passed else 1


def parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench verify", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--looks", type=int, default=1_000, help="number of verifications, each of a tenth of all entities"
    )
    parser.add_argument("--errors", type=int, default=200, help="injected errors, each followed by one of the looks")
    parser.add_argument("--rate", type=int, default=500, help="events a second, half of them orders")
    parser.add_argument("--seed", type=int, default=20111209, help="seed of the traffic and of the errors")
    parser.add_argument("--json", action="store_true", help="print the outcome as one line of JSON, the last one")
    return parser.parse_args(argv)
