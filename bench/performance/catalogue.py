"""`python -m bench catalogue`: a worker with a large catalogue: time until it is ready, and its memory.

A worker of the browsing lane starts with a products topic of a thousand items, then of a million: it reads and encodes
all of them and computes their item embeddings before it is ready. Then another bundle is published while clicks arrive,
and all embeddings are computed again next to those that serve. Memory is what the kernel counts as resident.
"""

import argparse
import re
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import Final

import msgspec

from bench.performance.load.workload import LoadGenerator, LoadRecord, produce, publish_bundle
from bench.performance.measure.drain import read_cpu_s
from bench.performance.measure.environment import LARGE_BATCHES, BenchEnvironment
from bench.results.report import print_missed, print_progress, print_result
from contract.events.model import Product
from contract.messages import to_json
from devservers.apache_kafka import ApacheKafka
from devservers.process import ChildProcess
from devservers.redis_server import RedisServer

ITEMS_FEW, ITEMS_MANY = 1_000, 1_000_000
CATEGORIES, SELLERS, BRANDS = 2_000, 50_000, 5_000
ANSWER_TIMEOUT_S: Final = 5.0
TIMEOUT_S: Final = 600.0
CLICKS_S: Final = 0.2  # interval between portions of clicks during a swap
CLICKS: Final = 100
READY_MAX_S, ITEMS_MAX_GB = 60.0, 1.5


class CatalogueRow(msgspec.Struct, frozen=True, kw_only=True):
    """A catalogue of `items` items: wall and CPU seconds until ready, seconds of a swap, and resident MB."""

    items: int
    ready_s: float
    ready_cpu_s: float
    ready_mb: float
    ready_peak_mb: float
    swap_s: float
    swap_mb: float
    swap_peak_mb: float


class CatalogueFigures(msgspec.Struct, frozen=True, kw_only=True):
    """`items_gb`: memory of the many items in excess of the few. `swap_peak_gb`: the same at a swap's peak."""

    rows: list[CatalogueRow]
    items_gb: float
    swap_peak_gb: float

    @property
    def missed_aims(self) -> Iterator[str]:
        """The missed aims."""
        if self.rows[-1].ready_s > READY_MAX_S:
            yield f"ready in {READY_MAX_S:g} s"
        if self.items_gb > ITEMS_MAX_GB:
            yield f"the items in {ITEMS_MAX_GB:g} GB"


class CatalogueBench:
    """Measures workers with products topics of several sizes."""

    def __init__(self, *, kafka: ApacheKafka, server: RedisServer, folder: Path, seed: int) -> None:
        self._kafka = kafka
        self._server = server
        self._folder = folder
        self._seed = seed

    def measure_row(self, items: int, report: Callable[[str], None]) -> CatalogueRow:
        """Start a worker, wait until it is ready, swap its bundle, stop it."""
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
        return CatalogueRow(
            items=items,
            ready_s=round(ready_s, 1),
            ready_cpu_s=round(ready_cpu_s, 1),
            ready_mb=round(ready_mb, 1),
            ready_peak_mb=round(ready_peak_mb, 1),
            swap_s=round(swap_s, 1),
            swap_mb=round(swap_mb, 1),
            swap_peak_mb=round(swap_peak_mb, 1),
        )

    def _measure_swap(self, child: ChildProcess, environment: BenchEnvironment) -> float:
        """Seconds until another bundle serves, while clicks arrive."""
        version = publish_bundle(self._folder / "bundles", self._seed + 1)
        clicks = LoadGenerator(self._seed, None).generate(sys.maxsize, 0)
        started_s = time.monotonic()
        while f'version="{version}"' not in fetch(child, "metrics"):
            produce(self._kafka.bootstrap, {"clicks": environment.topics.clicks}, islice(clicks, CLICKS))
            time.sleep(CLICKS_S)
            if time.monotonic() - started_s > TIMEOUT_S or not child.is_running:
                raise RuntimeError(
                    f"A bundle should serve in {TIMEOUT_S:g} s. "
                    f"Found that its worker {child.describe_end()}:\n{child.tail()}"
                )
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
    """Product records of a large shop."""
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
    """Whether a worker answers with success; False before it has logged its port or is ready."""
    try:
        return bool(fetch(child, path))
    except (OSError, LookupError):
        return False


def fetch(child: ChildProcess, path: str) -> str:
    """A worker's answer on the port in its log; raises `LookupError` without a port, `OSError` on an HTTP error."""
    if (port := re.search(r"metrics on port (\d+)", child.output.read_text(errors="replace"))) is None:
        raise LookupError(f"The log should name the port. Found none in {child.output}.")
    with urllib.request.urlopen(f"http://127.0.0.1:{port[1]}/{path}", timeout=ANSWER_TIMEOUT_S) as response:
        return str(response.read().decode())


def read_resident_mb(child: ChildProcess) -> float:
    return read_status_mb(child, "VmRSS")


def read_peak_mb(child: ChildProcess) -> float:
    """The peak of resident memory since the start, or since `reset_peak`."""
    return read_status_mb(child, "VmHWM")


def read_status_mb(child: ChildProcess, name: str) -> float:
    line = re.search(rf"{name}:\s+(\d+) kB", Path(f"/proc/{child.pid}/status").read_text())
    assert line is not None
    return int(line[1]) * 1024 / 1e6


def reset_peak(child: ChildProcess) -> None:
    """Reset the kernel's count of a process's peak memory."""
    Path(f"/proc/{child.pid}/clear_refs").write_text("5")


def build_figures(rows: list[CatalogueRow]) -> CatalogueFigures:
    few, many = rows[0], rows[-1]
    return CatalogueFigures(
        rows=rows,
        items_gb=round((many.ready_mb - few.ready_mb) / 1000, 2),
        swap_peak_gb=round((many.swap_peak_mb - few.swap_peak_mb) / 1000, 2),
    )


def main(argv: Sequence[str]) -> int:
    """Measure on its own servers; always 0."""
    arguments = parse(argv)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="shopstream-catalogue-")))
        kafka, server = stack.enter_context(ApacheKafka()), stack.enter_context(RedisServer())
        bench = CatalogueBench(kafka=kafka, server=server, folder=folder, seed=arguments.seed)
        figures = build_figures([bench.measure_row(items, print_progress) for items in (ITEMS_FEW, arguments.items)])
    print_missed(figures.missed_aims)
    print_result(figures, as_json=arguments.json)
    return 0


def parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench catalogue", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print the figures as one line of JSON, the last one")
    parser.add_argument("--items", type=int, default=ITEMS_MANY, help="items of the large catalogue")
    parser.add_argument("--seed", type=int, default=20111209)
    return parser.parse_args(argv)
