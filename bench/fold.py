"""`python -m bench fold`: what remembering costs: microseconds of client CPU an event, beside a plain loop.

A batch of orders or clicks is turned into columns, its profiles are read from a real Redis, folded, encoded as features
and written back, as a worker does; the plain loop does the same over dictionaries with the same Redis commands. CPU is
that of this process, waiting excluded; Redis' own is shown beside it. Rows take turns, so that noise meets all alike.
"""

import argparse
import gc
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import msgspec
import redis

from bench.batches import Shop
from bench.plain import PlainEncoder, plain_batch
from contract.events import decode
from contract.features.encoder import Encoder
from contract.hashing import bucket_of
from contract.messages import to_json
from contract.profiles.entity_updates import Arrival, extract_updates, to_updates
from contract.profiles.slices import Slices, SliceWrites
from contract.profiles.store import MergedOffsets, fold
from contract.settings import read_settings
from devservers.redis_server import RedisServer
from worker.recommend import list_builder
from worker.redis.client import RedisClient
from worker.scoring import orders
from worker.state.profile_store import RedisProfileStore

WARM_BATCHES: Final = 20  # of each kind: then most entities have a history, as in a shop that has run for a while
ORDERS_MAX_US, CLICKS_MAX_US, HOT_MAX, FASTER_MIN = 60.0, 30.0, 2.0, 5.0  # the aims


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """Medians; `spread` has minimum, median and maximum of the repetitions of each row. Times are CPU an event.

    `orders_us`: five entities (user, device, address, card, one item). `orders_with_items_us`: four lines, with
    sellers. `clicks_us`: three entities. `hot_ratio`: half of a batch on one device, against `orders_us`.
    """

    orders_us: float
    orders_with_items_us: float
    clicks_us: float
    hot_ratio: float
    plain_orders_us: float
    plain_clicks_us: float
    times_less: float
    redis_us_per_event: float
    decode_us: float
    slices_per_profile: float
    batch: int
    repetitions: int
    spread: dict[str, tuple[float, float, float]]

    @property
    def missed(self) -> list[str]:
        """The aims that were not reached, in words; a machine that others use, too, misses them easily."""
        reached = {
            f"orders in {ORDERS_MAX_US:g} us": self.orders_us <= ORDERS_MAX_US,
            f"clicks in {CLICKS_MAX_US:g} us": self.clicks_us <= CLICKS_MAX_US,
            f"a hot entity for {HOT_MAX:g} times a cold one": self.hot_ratio <= HOT_MAX,
            f"{FASTER_MIN:g} times less than the plain loop": self.times_less >= FASTER_MIN,
        }
        return [aim for aim, is_reached in reached.items() if not is_reached]


class Remembering:
    """One way through a store of its own: reads, folds, encodes and writes batches that follow one another."""

    def __init__(self, *, client: RedisClient, prefix: str) -> None:
        _, self.features = read_settings()
        self.encoder = Encoder(self.features)
        self.store = RedisProfileStore(client=client, prefix=prefix)
        self.merged: MergedOffsets = {}

    def batch(self, arrivals: Sequence[Arrival], groups: Sequence[str], *, plainly: bool = False) -> None:
        """Everything that a batch costs between its decoding and the model."""
        writes: Mapping[str, Slices]
        if plainly:
            writes = self._plainly(arrivals, groups)
            buckets = {bucket_of(entity) for entity in writes}
        else:
            writes = written = self._folded(arrivals, groups)
            buckets = written.buckets()
        ends = {arrival.source: arrival.offset + 1 for arrival in arrivals}
        after = {bucket: dict(ends) for bucket in buckets}
        self.store.merge(writes, self.merged, after)
        for bucket, positions in after.items():
            self.merged.setdefault(bucket, {}).update(positions)

    def _folded(self, arrivals: Sequence[Arrival], groups: Sequence[str]) -> SliceWrites:
        touches = to_updates(arrivals)
        memory = fold(self.store.read(touches.entities), touches)
        self.encoder.encode_before(memory, range(len(arrivals)), groups)
        return memory.slice_writes()

    def _plainly(self, arrivals: Sequence[Arrival], groups: Sequence[str]) -> Mapping[str, Mapping[str, bytes]]:
        touched = (entity for arrival in arrivals for entity, _ in extract_updates(arrival.event))
        entities = list(dict.fromkeys(touched))
        encoder = PlainEncoder(self.features, groups)
        profiles = dict(zip(entities, self.store.read(entities), strict=True))
        writes = plain_batch(profiles, arrivals, encoder)
        encoder.blocks()
        return writes


class FoldBench:
    """Rows of batches that take turns, each timed in both ways."""

    def __init__(self, *, server: RedisServer, seed: int, batch: int) -> None:
        client = RedisClient(url=server.url, timeout_s=60)
        self.shop, self.size = Shop(seed), batch
        self.ours = Remembering(client=client, prefix="ours:")
        self.plain = Remembering(client=client, prefix="plain:")
        self.redis = redis.Redis.from_url(server.url)
        self.measured: dict[str, list[float]] = {}

    def warm(self) -> None:
        """Give the entities a history, and leave to the collector what a running worker does."""
        for _ in range(WARM_BATCHES):
            for arrivals in (self.shop.orders(self.size, lines=3, sellers=True), self.shop.clicks(self.size)):
                self.ours.batch(arrivals, ())
                self.plain.batch(arrivals, ())
        gc.collect()
        gc.freeze()

    def repeat(self) -> None:
        """One batch of every row."""
        shop, n = self.shop, self.size
        self._row("orders_us", shop.orders(n), orders.GROUPS, plain="plain_orders_us")
        self._row("orders_with_items_us", shop.orders(n, lines=4, sellers=True), orders.GROUPS)
        self._row("hot_us", shop.hot_orders(n), orders.GROUPS)
        self._row("clicks_us", shop.clicks(n), list_builder.GROUPS, plain="plain_clicks_us")
        records = [to_json(arrival.event) for arrival in shop.orders(n)]
        self._note("decode_us", lambda: [decode("orders", record) for record in records])

    def figures(self) -> Figures:
        spread = {name: spread_of(times) for name, times in self.measured.items()}
        median = {name: middle for name, (_, middle, _) in spread.items()}
        return Figures(
            hot_ratio=round(median["hot_us"] / median["orders_us"], 2),
            times_less=round(median["plain_orders_us"] / median["orders_us"], 1),
            slices_per_profile=round(self._slices_per_profile(), 2),
            batch=self.size,
            repetitions=len(self.measured["orders_us"]),
            spread=spread,
            **{name: median[name] for name in Figures.__struct_fields__ if name in median},
        )

    def differing(self) -> int:
        """In how many profiles the two ways have left other bytes."""
        ours, plain = (self._held(remembering.store.prefix) for remembering in (self.ours, self.plain))
        return sum(ours.get(key) != plain.get(key) for key in {*ours, *plain})

    def _held(self, prefix: str) -> dict[bytes, object]:
        keys = self.redis.scan_iter(f"{prefix}profile:*", 1_000)
        return {key.removeprefix(prefix.encode()): self.redis.hgetall(key) for key in keys}

    def _row(self, name: str, arrivals: list[Arrival], groups: Sequence[str], plain: str = "") -> None:
        before = self._redis_us()
        self._note(name, lambda: self.ours.batch(arrivals, groups))
        if name == "orders_us":
            self.measured.setdefault("redis_us_per_event", []).append((self._redis_us() - before) / self.size)
        if plain:
            self._note(plain, lambda: self.plain.batch(arrivals, groups, plainly=True))
        else:
            self.plain.batch(arrivals, groups)

    def _note(self, name: str, work: Callable[[], object]) -> None:
        began = time.process_time_ns()
        work()
        self.measured.setdefault(name, []).append((time.process_time_ns() - began) / 1_000 / self.size)

    def _redis_us(self) -> float:
        used: Any = self.redis.info("cpu")
        return 1e6 * float(used["used_cpu_user"] + used["used_cpu_sys"])

    def _slices_per_profile(self) -> float:
        found = self.ours.store.read(self.entities())
        return len(found.entity) / len(found)

    def entities(self) -> list[str]:
        """Those of a batch of orders, as a measure of how much history they have."""
        return to_updates(self.shop.orders(self.size)).entities


def spread_of(times: Sequence[float]) -> tuple[float, float, float]:
    """Minimum, median and maximum, in hundredths."""
    return round(min(times), 2), round(statistics.median(times), 2), round(max(times), 2)


def main(words: Sequence[str]) -> int:
    """Run it on a Redis of its own; 0 if both ways left the same bytes, however fast they were."""
    arguments = parse(words)
    with RedisServer() as server:
        bench = FoldBench(server=server, seed=arguments.seed, batch=arguments.batch)
        bench.warm()
        for _ in range(arguments.repetitions):
            bench.repeat()
        figures, differing = bench.figures(), bench.differing()
    if differing:
        print(f"The plain loop should leave the same bytes. Found {differing} profiles that differ.", file=sys.stderr)
    for aim in figures.missed:
        print(f"Missed: {aim}.", file=sys.stderr)
    show(figures, as_json=arguments.json)
    return 1 if differing else 0


def show(figures: Figures, *, as_json: bool) -> None:
    if as_json:
        print(msgspec.json.encode(figures).decode())
        return
    for name, (least, middle, most) in figures.spread.items():
        print(f"{name:22} {middle:8.2f}   ({least:.2f} to {most:.2f})")
    print(f"{'hot_ratio':22} {figures.hot_ratio:8.2f}\n{'times_less':22} {figures.times_less:8.1f}")
    print(f"{'slices_per_profile':22} {figures.slices_per_profile:8.2f}")


def parse(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench fold", description=__doc__)
    parser.add_argument("--json", action="store_true", help="one line of JSON")
    parser.add_argument("--repetitions", type=int, default=15, help="batches of each row")
    parser.add_argument("--batch", type=int, default=500, help="events in a batch")
    parser.add_argument("--seed", type=int, default=20111209)
    return parser.parse_args(words)
