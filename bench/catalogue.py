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

from bench.drain import cpu_s
from bench.load import Load, Recorded, produce, publish_bundle
from bench.track import Track
from bench.ways import TOLD
from contract.events import Product
from contract.messages import to_json
from devservers.apache_kafka import ApacheKafka
from devservers.process import ChildProcess
from devservers.redis_server import RedisServer

FEW, MANY = 1_000, 1_000_000
CATEGORIES, SELLERS, BRANDS = 2_000, 50_000, 5_000
ANSWER_S: Final = 5.0
WITHIN_S: Final = 600.0
CLICKS_S: Final = 0.2  # between two portions of clicks during a swap
CLICKS: Final = 100
READY_MAX_S, ITEMS_MAX_GB = 60.0, 1.5


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One size of catalogue. Seconds of wall and CPU from the start until it is ready, and of a swap; MB resident."""

    items: int
    ready_s: float
    ready_cpu_s: float
    ready_mb: float
    ready_peak_mb: float
    swap_s: float
    swap_mb: float
    swap_peak_mb: float


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """`items_gb`: what the many items take, besides a worker of few. `swap_peak_gb`: the same at a swap's peak."""

    rows: list[Row]
    items_gb: float
    swap_peak_gb: float

    @property
    def missed(self) -> Iterator[str]:
        """The aims that were not reached, in words."""
        if self.rows[-1].ready_s > READY_MAX_S:
            yield f"ready in {READY_MAX_S:g} s"
        if self.items_gb > ITEMS_MAX_GB:
            yield f"the items in {ITEMS_MAX_GB:g} GB"


class CatalogueBench:
    """Workers over products topics of several sizes, on servers that run."""

    def __init__(self, *, kafka: ApacheKafka, server: RedisServer, folder: Path, seed: int) -> None:
        self._kafka, self._server, self._folder, self._seed = kafka, server, folder, seed

    def row(self, items: int, told: Callable[[str], None]) -> Row:
        """Start a worker, wait until it is ready, give it another bundle, end it."""
        track = self._track(f"of{items}.")
        track.create_topics()
        produce(self._kafka.bootstrap, {"products": track.topics.products}, many_products(items))
        publish_bundle(self._folder / "bundles", self._seed)
        log = self._folder / f"{items}.log"
        child = ChildProcess(command=track.command("browsing"), output=log, environment=track.environment())
        began_s = time.monotonic()
        child.start()
        child.wait_until(lambda: asked(child, "readyz"), timeout_s=WITHIN_S)
        ready_s, ready_cpu_s = time.monotonic() - began_s, cpu_s(child)
        ready_mb, ready_peak_mb = resident_mb(child), peak_mb(child)
        told(f"{items:,} items: ready in {ready_s:.1f} s, {ready_mb:.0f} MB")
        forget_peak(child)
        swap_s = self._swap(child, track)
        swap_mb, swap_peak_mb = resident_mb(child), peak_mb(child)
        told(f"{items:,} items: swapped in {swap_s:.1f} s, {swap_peak_mb:.0f} MB at most")
        child.stop(timeout_s=60)
        rounded = functools.partial(round, ndigits=1)
        return Row(
            items=items,
            ready_s=rounded(ready_s),
            ready_cpu_s=rounded(ready_cpu_s),
            ready_mb=rounded(ready_mb),
            ready_peak_mb=rounded(ready_peak_mb),
            swap_s=rounded(swap_s),
            swap_mb=rounded(swap_mb),
            swap_peak_mb=rounded(swap_peak_mb),
        )

    def _swap(self, child: ChildProcess, track: Track) -> float:
        """Seconds until another bundle serves, while clicks come."""
        version = publish_bundle(self._folder / "bundles", self._seed + 1)
        clicks = Load(self._seed, None).records(sys.maxsize, 0)
        began_s = time.monotonic()
        while f'version="{version}"' not in answer(child, "metrics"):
            produce(self._kafka.bootstrap, {"clicks": track.topics.clicks}, islice(clicks, CLICKS))
            time.sleep(CLICKS_S)
            if time.monotonic() - began_s > WITHIN_S or not child.is_running:
                raise RuntimeError(f"A bundle should serve in {WITHIN_S:g} s. Found:\n{child.tail()}")
        return time.monotonic() - began_s

    def _track(self, prefix: str) -> Track:
        return Track(
            kafka=self._kafka,
            redis=self._server,
            folder=self._folder,
            prefix=prefix,
            load=prefix,
            shared=("clicks", "products"),
            told=TOLD,
        )


def many_products(items: int) -> Iterator[Recorded]:
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
        yield Recorded("products", product.item_id, to_json(product))


def asked(child: ChildProcess, path: str) -> bool:
    """Whether a worker answers well; False as long as it says no port or is not ready."""
    try:
        return bool(answer(child, path))
    except (OSError, LookupError):
        return False


def answer(child: ChildProcess, path: str) -> str:
    """What a worker says on the port that its log names; raises `LookupError` before that, `OSError` if not well."""
    if (port := re.search(r"metrics on port (\d+)", child.output.read_text(errors="replace"))) is None:
        raise LookupError("its port")
    with urllib.request.urlopen(f"http://127.0.0.1:{port[1]}/{path}", timeout=ANSWER_S) as response:
        return str(response.read().decode())


def resident_mb(child: ChildProcess) -> float:
    return status_mb(child, "VmRSS")


def peak_mb(child: ChildProcess) -> float:
    """The most that was resident since the start, or since `forget_peak`."""
    return status_mb(child, "VmHWM")


def status_mb(child: ChildProcess, name: str) -> float:
    line = re.search(rf"{name}:\s+(\d+) kB", Path(f"/proc/{child.pid}/status").read_text())
    assert line is not None
    return int(line[1]) * 1024 / 1e6


def forget_peak(child: ChildProcess) -> None:
    """Let the kernel count a process's peak from now on."""
    Path(f"/proc/{child.pid}/clear_refs").write_text("5")


def figures_of(rows: list[Row]) -> Figures:
    few, many = rows[0], rows[-1]
    return Figures(
        rows=rows,
        items_gb=round((many.ready_mb - few.ready_mb) / 1000, 2),
        swap_peak_gb=round((many.swap_peak_mb - few.swap_peak_mb) / 1000, 2),
    )


def main(words: Sequence[str]) -> int:
    """Measure on servers of its own; 0 whatever was found."""
    arguments = parse(words)
    told: Callable[[str], None] = functools.partial(print, file=sys.stderr, flush=True)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="shopstream-catalogue-")))
        kafka, server = stack.enter_context(ApacheKafka()), stack.enter_context(RedisServer())
        bench = CatalogueBench(kafka=kafka, server=server, folder=folder, seed=arguments.seed)
        figures = figures_of([bench.row(items, told) for items in (FEW, arguments.items)])
    for aim in figures.missed:
        told(f"Missed: {aim}.")
    print(msgspec.json.encode(figures).decode() if arguments.json else figures)
    return 0


def parse(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench catalogue", description=__doc__)
    parser.add_argument("--json", action="store_true", help="one line of JSON, the last one")
    parser.add_argument("--items", type=int, default=MANY, help="of the large catalogue")
    parser.add_argument("--seed", type=int, default=20111209)
    return parser.parse_args(words)
