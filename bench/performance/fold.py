"""`python -m bench fold`: client CPU per event of updating profiles, compared with a plain loop over dictionaries.

A batch of orders or clicks is turned into columns; its profiles are read from a real Redis, folded, encoded as features
and written back, as a worker does. The plain loop does the same with dictionaries and the same Redis commands. The CPU
is this process's own, without waiting; that of Redis is reported separately. Rows take turns, so noise affects all.
"""

import argparse
import gc
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec
import redis

from bench.performance.load.synthetic_shop import SyntheticShop
from bench.performance.measure.fold_runner import FoldRunner
from bench.results.report import print_json, print_missed, print_progress
from bench.results.statistics import min_median_max
from contract.events.reading import decode
from contract.graphs import DECIDE, RECOMMEND
from contract.messages import to_json
from contract.profiles.entity_updates import Arrival, to_updates
from devservers.redis_server import RedisServer
from worker.redis.client import RedisClient

WARM_BATCHES: Final = 20  # of each kind, so that most entities have a history
ORDERS_MAX_US, CLICKS_MAX_US, HOT_MAX, FASTER_MIN = 60.0, 30.0, 2.0, 5.0  # the aims


class FoldFigures(msgspec.Struct, frozen=True, kw_only=True):
    """Medians; `spread` has minimum, median and maximum over the repetitions of each row. Times are CPU per event.

    `orders_us`: five entities (user, device, address, card, one item). `orders_with_items_us`: four lines, with
    sellers. `clicks_us`: three entities. `hot_ratio`: half of the batch on one device, relative to `orders_us`.
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
    def missed_aims(self) -> list[str]:
        """The missed aims; a machine with other load misses them easily."""
        is_reached_by_aim = {
            f"orders in {ORDERS_MAX_US:g} us": self.orders_us <= ORDERS_MAX_US,
            f"clicks in {CLICKS_MAX_US:g} us": self.clicks_us <= CLICKS_MAX_US,
            f"a hot entity for {HOT_MAX:g} times a cold one": self.hot_ratio <= HOT_MAX,
            f"{FASTER_MIN:g} times less than the plain loop": self.times_less >= FASTER_MIN,
        }
        return [aim for aim, is_reached in is_reached_by_aim.items() if not is_reached]


class FoldBench:
    """Times every row with the compiled fold, and some with the plain loop, in turns."""

    def __init__(self, *, server: RedisServer, seed: int, batch: int) -> None:
        client = RedisClient(url=server.url, timeout_s=60)
        self.shop, self.size = SyntheticShop(seed), batch
        self.ours = FoldRunner(client=client, prefix="ours:")
        self.plain = FoldRunner(client=client, prefix="plain:")
        self.redis = redis.Redis.from_url(server.url)
        self.times_by_row: dict[str, list[float]] = {}

    def warm_up(self) -> None:
        """Give the entities a history, and leave to the collector what a running worker does."""
        for _ in range(WARM_BATCHES):
            for arrivals in (self.shop.draw_orders(self.size, lines=3, sellers=True), self.shop.draw_clicks(self.size)):
                self.ours.process_batch(arrivals, ())
                self.plain.process_batch(arrivals, ())
        gc.collect()
        gc.freeze()

    def run_rows(self) -> None:
        """Run one batch of every row."""
        shop, n = self.shop, self.size
        self._run_row("orders_us", shop.draw_orders(n), DECIDE.event_groups, plain_name="plain_orders_us")
        self._run_row("orders_with_items_us", shop.draw_orders(n, lines=4, sellers=True), DECIDE.event_groups)
        self._run_row("hot_us", shop.draw_hot_orders(n), DECIDE.event_groups)
        self._run_row("clicks_us", shop.draw_clicks(n), RECOMMEND.event_groups, plain_name="plain_clicks_us")
        records = [to_json(arrival.event) for arrival in shop.draw_orders(n)]
        self._time("decode_us", lambda: [decode("orders", record) for record in records])

    def summarize(self) -> FoldFigures:
        spread = {name: min_median_max(times, 2) for name, times in self.times_by_row.items()}
        median = {name: middle for name, (_, middle, _) in spread.items()}
        return FoldFigures(
            hot_ratio=round(median["hot_us"] / median["orders_us"], 2),
            times_less=round(median["plain_orders_us"] / median["orders_us"], 1),
            slices_per_profile=round(self._count_slices_per_profile(), 2),
            batch=self.size,
            repetitions=len(self.times_by_row["orders_us"]),
            spread=spread,
            **{name: median[name] for name in FoldFigures.__struct_fields__ if name in median},
        )

    def count_differing(self) -> int:
        """The number of profiles in which the two have left different bytes."""
        ours, plain = (self._read_profiles(runner.store.prefix) for runner in (self.ours, self.plain))
        return sum(ours.get(key) != plain.get(key) for key in {*ours, *plain})

    def _read_profiles(self, prefix: str) -> dict[bytes, object]:
        keys = self.redis.scan_iter(f"{prefix}profile:*", 1_000)
        return {key.removeprefix(prefix.encode()): self.redis.hgetall(key) for key in keys}

    def _run_row(self, name: str, arrivals: list[Arrival], groups: Sequence[str], plain_name: str = "") -> None:
        before = self._read_redis_us()
        self._time(name, lambda: self.ours.process_batch(arrivals, groups))
        if name == "orders_us":
            self.times_by_row.setdefault("redis_us_per_event", []).append((self._read_redis_us() - before) / self.size)
        if plain_name:
            self._time(plain_name, lambda: self.plain.process_batch(arrivals, groups, plain=True))
        else:
            self.plain.process_batch(arrivals, groups)

    def _time(self, name: str, work: Callable[[], object]) -> None:
        started_ns = time.process_time_ns()
        work()
        self.times_by_row.setdefault(name, []).append((time.process_time_ns() - started_ns) / 1_000 / self.size)

    def _read_redis_us(self) -> float:
        cpu: Any = self.redis.info("cpu")
        return 1e6 * float(cpu["used_cpu_user"] + cpu["used_cpu_sys"])

    def _count_slices_per_profile(self) -> float:
        profiles = self.ours.store.read(self.draw_entities())
        return len(profiles.entity) / len(profiles)

    def draw_entities(self) -> list[str]:
        """The entities of a new batch of orders."""
        return to_updates(self.shop.draw_orders(self.size)).entities


def main(argv: Sequence[str]) -> int:
    """Run on its own Redis. 0: both have left the same bytes, however fast they were."""
    arguments = parse(argv)
    with RedisServer() as server:
        bench = FoldBench(server=server, seed=arguments.seed, batch=arguments.batch)
        bench.warm_up()
        for _ in range(arguments.repetitions):
            bench.run_rows()
        figures, differing = bench.summarize(), bench.count_differing()
    if differing:
        print_progress(f"The plain loop should leave the same bytes. Found {differing} profiles that differ.")
    print_missed(figures.missed_aims)
    print_figures(figures, as_json=arguments.json)
    return 1 if differing else 0


def print_figures(figures: FoldFigures, *, as_json: bool) -> None:
    if as_json:
        print_json(figures)
        return
    for name, (least, middle, most) in figures.spread.items():
        print(f"{name:22} {middle:8.2f}   ({least:.2f} to {most:.2f})")
    print(f"{'hot_ratio':22} {figures.hot_ratio:8.2f}\n{'times_less':22} {figures.times_less:8.1f}")
    print(f"{'slices_per_profile':22} {figures.slices_per_profile:8.2f}")


def parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench fold", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print the figures as one line of JSON")
    parser.add_argument("--repetitions", type=int, default=15, help="batches of each row")
    parser.add_argument("--batch", type=int, default=500, help="events per batch")
    parser.add_argument("--seed", type=int, default=20111209)
    return parser.parse_args(argv)
