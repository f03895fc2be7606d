"""`python -m bench catalogue`: a worker whose catalogue is large: how long until it is ready, and in how much memory.

A worker of the browsing lane starts beside a products topic of a thousand items, then of a million: they are read
whole, encoded, and the model's part of each is made before it says that it is ready. Then another bundle comes while
clicks arrive, and every part is made anew beside the one that serves. Memory is what the kernel counts as resident.
"""

import argparse
import functools
import re
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import Final

import msgspec

from bench.performance.baselines.contenders import LARGE_BATCHES
from bench.performance.load.workload import LoadGenerator, LoadRecord, produce, publish_bundle
from bench.performance.measure.drain import read_cpu_s
from bench.performance.measure.environment import BenchEnvironment
from contract.events import Product
from contract.messages import to_json
from devservers.apache_kafka import ApacheKafka
from devservers.process import ChildProcess
from devservers.redis_server import RedisServer

ITEMS_FEW, ITEMS_MANY = 1_000, 1_000_000
CATEGORIES, SELLERS, BRANDS = 2_000, 50_000, 5_000
ANSWER_TIMEOUT_S: Final = 5.0
TIMEOUT_S: Final = 600.0
CLICKS_S: Final = 0.2  # between two portions of clicks during a swap
CLICKS: Final = 100
READY_MAX_S, ITEMS_MAX_GB = 60.0, 1.5


class CatalogueRow(msgspec.Struct, frozen=True, kw_only=True):
    """One size of catalogue. Seconds of wall and CPU from the start until it is ready, and of a swap; MB resident."""

    items: int
    ready_s: float
    ready_cpu_s: float
    ready_mb: float
    ready_peak_mb: float
    swap_s: float
    swap_mb: float
    swap_peak_mb: float


class CatalogueFigures(msgspec.Struct, frozen=True, kw_only=True):
    """`items_gb`: what the many items take, besides a worker of few. `swap_peak_gb`: the same at a swap's peak."""

    rows: list[CatalogueRow]
    items_gb: float
    swap_peak_gb: float

    @property
    def missed_aims(self) -> Iterator[str]:
        """The aims that were not reached, in words."""
        if self.rows[-1].ready_s > READY_MAX_S:
            yield f"ready in {READY_MAX_S:g} s"
        if self.items_gb > ITEMS_MAX_GB:
            yield f"the items in {ITEMS_MAX_GB:g} GB"


class CatalogueBench:
    """Workers over products topics of several sizes, on servers that run."""

    def __init__(self, *, kafka: ApacheKafka, server: RedisServer, folder: Path, seed: int) -> None:
        self._kafka, self._server, self._folder, self._seed = kafka, server, folder, seed

    def measure_row(self, items: int, report: Callable[[str], None]) -> CatalogueRow:
        """Start a worker, wait until it is ready, give it another bundle, end it."""
        environment = self._create_environment(f"of{items}.")
        environment.create_topics()
        produce(self._kafka.bootstrap, {"products": environment.topics.products}, generate_products(items))
        publish_bundle(self._folder / "bundles", self._seed)
        log = self._folder / f"{items}.log"
        child = ChildProcess(
            command=environment.worker_command("browsing"), output=log, environment=environment.env_variables()
        )
        started_s = time.monotonic()
        child.start()
        child.wait_until(lambda: is_ok(child, "readyz"), timeout_s=TIMEOUT_S)
        ready_s, ready_cpu_s = time.monotonic() - started_s, read_cpu_s(child)
        ready_mb, ready_peak_mb = read_resident_mb(child), read_peak_mb(child)
        report(f"{items:,} items: ready in {ready_s:.1f} s, {ready_mb:.0f} MB")
        reset_peak(child)
        swap_s = self._measure_swap(child, environment)
        swap_mb, swap_peak_mb = read_resident_mb(child), read_peak_mb(child)
        report(f"{items:,} items: swapped in {swap_s:.1f} s, {swap_peak_mb:.0f} MB at most")
        child.stop(timeout_s=60)
        round_1 = functools.partial(round, ndigits=1)
        return CatalogueRow(
            items=items,
            ready_s=round_1(ready_s),
            ready_cpu_s=round_1(ready_cpu_s),
            ready_mb=round_1(ready_mb),
            ready_peak_mb=round_1(ready_peak_mb),
            swap_s=round_1(swap_s),
            swap_mb=round_1(swap_mb),
            swap_peak_mb=round_1(swap_peak_mb),
        )

    def _measure_swap(self, child: ChildProcess, environment: BenchEnvironment) -> float:
        """Seconds until another bundle serves, while clicks come."""
        version = publish_bundle(self._folder / "bundles", self._seed + 1)
        clicks = LoadGenerator(self._seed, None).generate(sys.maxsize, 0)
        started_s = time.monotonic()
        while f'version="{version}"' not in fetch(child, "metrics"):
            produce(self._kafka.bootstrap, {"clicks": environment.topics.clicks}, islice(clicks, CLICKS))
            time.sleep(CLICKS_S)
            if time.monotonic() - started_s > TIMEOUT_S or not child.is_running:
                raise RuntimeError(f"A bundle should serve in {TIMEOUT_S:g} s. Found:\n{child.tail()}")
        return time.monotonic() - started_s

    def _create_environment(self, prefix: str) -> BenchEnvironment:
        return BenchEnvironment(
            kafka=self._kafka,
            redis=self._server,
            folder=self._folder,
            prefix=prefix,
            load_prefix=prefix,
            shared_kinds=("clicks", "products"),
            overrides=LARGE_BATCHES,
        )


def generate_products(items: int) -> Iterator[LoadRecord]:
    """So many items of a large shop."""
    for item in range(items):
        product = Product(
            event_id=f"p{item}",
            ts_ms=1_700_000_000_000,
            item_id=f"i{item}",
            title=f"Item {item} of kind {item % 97}, made of material {item % 1_009}",
            brand=f"brand {item % BRANDS}",
            category=f"category {item % CATEGORIES}",
            price=item % 97 + 0.99,
            currency="EUR",
            available=True,
            seller_id=f"s{item % SELLERS}",
        )
        yield LoadRecord("products", product.item_id, to_json(product))


def is_ok(child: ChildProcess, path: str) -> bool:
    """Whether a worker answers well; False as long as it says no port or is not ready."""
    try:
        return bool(fetch(child, path))
    except (OSError, LookupError):
        return False


def fetch(child: ChildProcess, path: str) -> str:
    """What a worker says on the port that its log names; raises `LookupError` before that, `OSError` if not well."""
    if (port := re.search(r"metrics on port (\d+)", child.output.read_text(errors="replace"))) is None:
        raise LookupError("its port")
    with urllib.request.urlopen(f"http://127.0.0.1:{port[1]}/{path}", timeout=ANSWER_TIMEOUT_S) as response:
        return str(response.read().decode())


def read_resident_mb(child: ChildProcess) -> float:
    return read_status_mb(child, "VmRSS")


def read_peak_mb(child: ChildProcess) -> float:
    """The most that was resident since the start, or since `forget_peak`."""
    return read_status_mb(child, "VmHWM")


def read_status_mb(child: ChildProcess, name: str) -> float:
    line = re.search(rf"{name}:\s+(\d+) kB", Path(f"/proc/{child.pid}/status").read_text())
    assert line is not None
    return int(line[1]) * 1024 / 1e6


def reset_peak(child: ChildProcess) -> None:
    """Let the kernel count a process's peak from now on."""
    Path(f"/proc/{child.pid}/clear_refs").write_text("5")


def build_figures(rows: list[CatalogueRow]) -> CatalogueFigures:
    few, many = rows[0], rows[-1]
    return CatalogueFigures(
        rows=rows,
        items_gb=round((many.ready_mb - few.ready_mb) / 1000, 2),
        swap_peak_gb=round((many.swap_peak_mb - few.swap_peak_mb) / 1000, 2),
    )


def main(argv: Sequence[str]) -> int:
    """Measure on servers of its own; 0 whatever was found."""
    arguments = parse(argv)
    report: Callable[[str], None] = functools.partial(print, file=sys.stderr, flush=True)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="shopstream-catalogue-")))
        kafka, server = stack.enter_context(ApacheKafka()), stack.enter_context(RedisServer())
        bench = CatalogueBench(kafka=kafka, server=server, folder=folder, seed=arguments.seed)
        figures = build_figures([bench.measure_row(items, report) for items in (ITEMS_FEW, arguments.items)])
    for aim in figures.missed_aims:
        report(f"Missed: {aim}.")
    print(msgspec.json.encode(figures).decode() if arguments.json else figures)
    return 0


def parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench catalogue", description=__doc__)
    parser.add_argument("--json", action="store_true", help="one line of JSON, the last one")
    parser.add_argument("--items", type=int, default=ITEMS_MANY, help="of the large catalogue")
    parser.add_argument("--seed", type=int, default=20111209)
    return parser.parse_args(argv)
