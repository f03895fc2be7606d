"""`python -m bench bootstrap`: a shop's files to history, profiles, examples, fit, bundle, workers and its first list.

Two shops: Online Retail, where a cancelled order also stands for fraud so that the stock tasks have labels, and a
simulated one with `--events` events. Each step is the command of a user, measured as a process: its seconds and the
most memory that it had. Then the same events go to topics, in the partitions that the history has them in; workers fold
them, and each slice has to equal that of the history, but for offsets.
"""

import argparse
import itertools
import os
import re
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
from confluent_kafka import Producer

from bench.performance.measure.worker_processes import start_process
from bench.results.report import print_missing_data, print_progress, print_result
from contract.events.model import Click, Label
from contract.history.format import read_events, read_manifest
from contract.history.sources import MARK, partition_of
from contract.messages import to_json
from contract.profiles.record import FAMILIES, RECORD, entity_from_key, source_family
from demo.online_retail.events import OnlineRetail
from demo.simulator.shop import ShopSimulator
from devservers.apache_kafka import ApacheKafka
from devservers.redis_server import RedisServer
from testkit.environment.batch_producer import OutgoingRecord, produce_all
from testkit.environment.kafka_log import KafkaLog
from testkit.environment.run_environment import RunEnvironment
from worker.records.lanes import LANES
from worker.redis.client import RedisClient
from worker.state.profile_scan import ProfileScan
from worker.state.profile_store import RedisProfileStore, open_profile_store

FIT_EVENTS: Final = 200_000
LIST_TIMEOUT_S: Final = 120.0
DRAIN_TIMEOUT_S: Final = 7_200.0
POLL_S: Final = 0.02
COMPARED: Final = tuple(family for family in FAMILIES if family != "judgements")  # no joiner runs here
SIMULATED_DAYS: Final = 10_000.0
Line = tuple[str, bytes]  # kind and event


class Step(msgspec.Struct, frozen=True):
    """A command's time, the most memory that it had, and its events per second where it reads all of them."""

    seconds: float
    memory_mib: float


class ShopOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """One shop: `minutes` from its files to its first list, producing and comparing not included."""

    events: int
    steps: dict[str, Step]
    first_list_s: float | None
    minutes: float
    memory_mib: float
    slices: int
    slices_differing: int

    @property
    def passed(self) -> bool:
        return self.slices > 0 and self.slices_differing == 0 and self.first_list_s is not None


class ShopBench:
    """The steps of one shop, in a folder of its own."""

    def __init__(self, *, folder: Path, variables: Mapping[str, str], fit_events: int = FIT_EVENTS) -> None:
        """`variables`: of the environment of all commands, added to this process's."""
        self.folder, self.history = folder, folder / "history"
        self._variables, self._fit_events = dict(variables), fit_events
        self.steps: dict[str, Step] = {}

    def write_files(self, lines: Iterable[Line]) -> int:
        """Write the shop's files, one for each kind; returns the number of events."""
        count, source = 0, self.folder / "source"
        source.mkdir()
        with ExitStack() as stack:
            files = {}
            for kind, event in lines:
                if kind not in files:
                    files[kind] = stack.enter_context((source / f"{kind}.jsonl").open("wb"))
                files[kind].write(event + b"\n")
                count += 1
        return count

    def prepare(self) -> None:
        """Files to history, examples, checkpoint and bundle; examples come from the latest events."""
        inputs = [f"{path.stem}={path}" for path in sorted((self.folder / "source").iterdir())]
        self.run_step("history", "training", "history", *inputs, "--out", str(self.history))
        latest, examples = self.folder / "latest.jsonl", self.folder / "examples.parquet"
        self._write_latest(latest)
        self.run_step("replay", "training", "replay", str(latest), "--out", str(examples), "--without-erasures")
        self.run_step("fit", "training", "fit", str(examples), "--epochs", "1", "--without-erasures")
        self.run_step("export", "export", "--latest")

    def bootstrap(self) -> None:
        self.run_step("bootstrap", "worker", "bootstrap", str(self.history))

    def run_step(self, name: str, *words: str) -> None:
        """Run a command and measure it; raises RuntimeError if it fails."""
        started_s, output = time.monotonic(), self.folder / f"{name}.log"
        with output.open("wb") as log:
            pid = os.posix_spawn(
                sys.executable,
                [sys.executable, "-m", *words],
                {**os.environ, **self._variables},
                file_actions=[(os.POSIX_SPAWN_DUP2, log.fileno(), 1), (os.POSIX_SPAWN_DUP2, log.fileno(), 2)],
            )
            status, memory_mib = wait_measuring(pid)
        if code := os.waitstatus_to_exitcode(status):
            raise RuntimeError(f"`{name}` should end with 0. Found {code}:\n{output.read_text()[-2_000:]}")
        self.steps[name] = Step(round(time.monotonic() - started_s, 1), memory_mib)
        print_progress(f"{name}: {self.steps[name]}")

    def _write_latest(self, path: Path) -> None:
        """The products and the latest events of the history."""
        first = max(0, read_manifest(self.history).records - self._fit_events)
        with path.open("wb") as file:
            for number, (kind, event) in enumerate(read_events(self.history)):
                if kind == "products" or number >= first:
                    file.write(to_json({"kind": kind, "event": event}) + b"\n")


def wait_measuring(pid: int) -> tuple[int, float]:
    """The status of a child when it has ended, and the most memory that it had in MiB.

    `ru_maxrss` would be at least that of this process, from which the child was copied.
    """
    memory_kib = 0
    while True:
        try:
            status = Path(f"/proc/{pid}/status").read_text()
        except OSError:
            status = ""
        if peak := re.search(r"VmHWM:\s+(\d+)", status):
            memory_kib = int(peak[1])
        ended, code = os.waitpid(pid, os.WNOHANG)
        if ended:
            return code, round(memory_kib / 1024, 1)
        time.sleep(POLL_S)


def list_retail(path: Path) -> Iterator[Line]:
    """The records of Online Retail, refused ones included; a label of a cancellation is one of fraud, too."""
    for record in OnlineRetail(path).records():
        yield record.kind, record.value
        if isinstance(record.event, Label):
            label = msgspec.structs.replace(record.event, event_id=f"{record.event.event_id}~fraud", task="fraud")
            yield record.kind, to_json(label)


def list_simulated(events: int, seed: int, users: int) -> Iterator[Line]:
    shop = ShopSimulator(seed, users=users)
    records = itertools.islice(shop.simulate_history(SIMULATED_DAYS), events)
    return ((record.kind, record.value) for record in records)


def measure_first_list(environment: RunEnvironment, history: Path) -> float:
    """Seconds from the start of the browsing worker until a user of the history has a list, after a click."""
    client = RedisClient(url=environment.redis.url, timeout_s=60)
    event = next(h.event for h in read_events(history) if h.kind in ("orders", "clicks"))
    user = getattr(event, "user_id", "")
    item = event.item_id if isinstance(event, Click) else event.lines[0].item_id  # type: ignore[attr-defined]
    click = Click(event_id="first-click", ts_ms=time.time_ns() // 1_000_000, user_id=user, item_id=item)
    products = [h.event for h in read_events(history) if h.kind == "products"]
    producer = Producer({"bootstrap.servers": environment.kafka.bootstrap})
    topics = environment.topics
    produce_all(producer, (OutgoingRecord(topics.products, p.item_id, to_json(p)) for p in products))  # type: ignore[attr-defined]
    started_s = time.monotonic()
    with ExitStack() as stack:
        start_process(stack, environment, environment.worker_command("browsing"), "first")
        produce_all(producer, [OutgoingRecord(topics.clicks, user, to_json(click))])
        key = f"{environment.redis_prefix}rec:{user}"
        while not client.pipeline([("EXISTS", key)])[0]:
            if time.monotonic() > started_s + LIST_TIMEOUT_S:
                raise RuntimeError(f"{key} should be there within {LIST_TIMEOUT_S:g} s. Found nothing.")
            time.sleep(POLL_S)
    client.close()
    return round(time.monotonic() - started_s, 2)


def fold_by_workers(environment: RunEnvironment, history: Path) -> None:
    """Produce the history to topics, in its partitions, and let workers of both lanes fold it."""
    topics, partitions = environment.topics, environment.topics.partitions
    producer = Producer({"bootstrap.servers": environment.kafka.bootstrap, "linger.ms": 50})
    produce_all(
        producer,
        (
            OutgoingRecord(topics.topic_name(kind), user, to_json(event), partition_of(user, partitions))
            for kind, event in read_events(history)
            if kind in COMPARED and (user := getattr(event, "user_id", ""))
        ),
    )
    log = KafkaLog(bootstrap=environment.kafka.bootstrap)
    no_bundle = str(environment.folder / "no-bundle")
    overrides = {"SHOPSTREAM_WORKER__BATCH_MAX": "2000", "SHOPSTREAM_BUNDLES": no_bundle}
    with ExitStack() as stack:
        for name in LANES:
            start_process(stack, environment, environment.worker_command(name), name, overrides=overrides)
        for lane in LANES.values():
            kinds = [topics.topic_name(kind) for kind in lane.folded_kinds if kind in COMPARED]
            log.wait_until_committed(environment.group_id(lane.name), kinds, DRAIN_TIMEOUT_S)


def count_differences(bootstrapped: RedisProfileStore, folded: RedisProfileStore) -> tuple[int, int]:
    """The number of slices that workers folded or the history gave, and of those that differ but for offsets."""
    slices = differing = 0
    for page in ProfileScan(folded.client, folded.keys).pages(lambda entity: True):
        entities = [entity_from_key(key) for key in page.profiles]
        for entity, own, other in zip(entities, page.profiles.values(), bootstrapped.read(entities), strict=True):
            expected, actual = index_slices(own), index_slices(other, MARK)
            slices += len(expected | actual)
            differing += sum(expected.get(key) != actual.get(key) for key in expected | actual)
            if differing and expected != actual:
                print_progress(f"{entity} differs")
    return slices, differing


def index_slices(slices: Mapping[str, bytes], mark: str = "~") -> dict[tuple[str, str], bytes]:
    """Slices without their offset, by family and partition; only of sources whose name has the mark."""
    indexed = {}
    for source, data in slices.items():
        if mark in source and source_family(source) in COMPARED:
            record = np.frombuffer(data, RECORD).copy()
            record["offset"] = 0
            indexed[source_family(source), source.rpartition("/")[2]] = record.tobytes()
    return indexed


def run_shop(name: str, lines: Iterable[Line], stack: ExitStack, fit_events: int) -> ShopOutcome:
    """All steps of one shop on servers of its own."""
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=f"shopstream-bootstrap-{name}-")))
    kafka, redis = stack.enter_context(ApacheKafka()), stack.enter_context(RedisServer())
    first, second = (RunEnvironment(kafka=kafka, redis=redis, folder=folder, prefix=p) for p in ("a.", "b."))
    first.create_topics()
    second.create_topics()
    bench = ShopBench(folder=folder, variables=first.env_variables(), fit_events=fit_events)
    events = bench.write_files(lines)
    print_progress(f"{name}: {events:,} events in files")
    bench.prepare()
    bench.bootstrap()
    first_list_s = measure_first_list(first, bench.history)
    fold_by_workers(second, bench.history)
    client = RedisClient(url=redis.url, timeout_s=60)
    stores = [open_profile_store(client, environment.redis_prefix) for environment in (first, second)]
    for store in stores:
        store.refresh_generation()
    slices, differing = count_differences(*stores)
    client.close()
    return ShopOutcome(
        events=events,
        steps=bench.steps,
        first_list_s=first_list_s,
        minutes=round((sum(step.seconds for step in bench.steps.values()) + first_list_s) / 60, 2),
        memory_mib=max(step.memory_mib for step in bench.steps.values()),
        slices=slices,
        slices_differing=differing,
    )


def main(argv: Sequence[str]) -> int:
    """0: all slices are equal and both shops had a list; 1: not so; 2: the data is missing."""
    arguments = parse(argv)
    shops: dict[str, Iterable[Line]] = {}
    if arguments.source in ("all", "online_retail"):
        if not (arguments.data / "online_retail.parquet").exists():
            print_missing_data(arguments.data)
            return 2
        shops["online_retail"] = list_retail(arguments.data)
    if arguments.source in ("all", "simulated"):
        shops["simulated"] = list_simulated(arguments.events, arguments.seed, arguments.users)
    outcomes = {}
    for name, lines in shops.items():
        with ExitStack() as stack:
            outcomes[name] = run_shop(name, lines, stack, arguments.fit_events)
    print_result(outcomes, as_json=arguments.json)
    return 0 if all(outcome.passed for outcome in outcomes.values()) else 1


def parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench bootstrap", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    data = Path(os.environ.get("SHOPSTREAM_DATA", "data")) / "online_retail"
    parser.add_argument("--source", choices=["all", "online_retail", "simulated"], default="all")
    parser.add_argument("--data", type=Path, default=data, help="the folder with online_retail.parquet")
    parser.add_argument("--events", type=int, default=10_000_000, help="events of the simulated shop")
    parser.add_argument("--users", type=int, default=50_000, help="users of the simulated shop")
    parser.add_argument("--fit-events", type=int, default=FIT_EVENTS, help="latest events that become examples")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="print the outcome as one line of JSON, the last one")
    return parser.parse_args(argv)
