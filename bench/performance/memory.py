"""`python -m bench memory`: bytes in Redis per entity, compared with the formula in docs/keys.md.

Batches are folded and merged as by a worker, into a separate Redis that is flushed before each row. Rows: entities of
each kind with one slice and with the slices of four partitions; then inputs that might make a profile grow: a million
ids that occur once, one device with half of all orders, timestamps far ahead, ids that change their case. Nothing is
extrapolated: bytes are counted in Redis.
"""

import argparse
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final, TypeVar

import msgspec
import psutil
import redis

from bench.performance.load.growth_streams import (
    generate_clicks,
    generate_judgements,
    generate_new_ids,
    list_sources,
    make_warmup,
    mix_case,
    move_to_future,
)
from bench.performance.load.synthetic_shop import SyntheticShop
from bench.performance.measure.fold_runner import FoldRunner
from bench.results.report import print_json, print_missed
from contract.hashing import BUCKETS
from contract.profiles.entity_updates import Arrival
from contract.profiles.histories import ENTRY
from contract.profiles.record import ENTITY_KINDS
from devservers.redis_server import RedisServer, valkey_binary
from worker.redis.client import RedisClient

# The formula of docs/keys.md, in bytes: per entity, in addition to the length of its key, and per slice.
ENTITY_BYTES: Final = 225
SLICE_BYTES: Final = 590
# Per user with a history, in addition to the length of its key, per history of one source, and per entry.
HISTORY_USER_BYTES: Final = 195
HISTORY_BYTES: Final = 105
ENTRY_BYTES: Final = 14
OFF_MAX: Final = 0.1

PAGE: Final = 2_000
PREFIX: Final = "shop:"
T = TypeVar("T")


class MemoryRow(msgspec.Struct, frozen=True, kw_only=True):
    """Memory after one stream of events: `bytes` in Redis and by the `formula`, both without `merged`.

    `off`: their relative difference. `largest`: the largest ratio of a profile's size, by Redis' own count of its key,
    to its size by the formula.
    """

    name: str
    events: int
    entities: int
    slices: int
    bytes: int
    formula: int
    bytes_per_entity: float
    largest: float
    off: float


class MemoryFigures(msgspec.Struct, frozen=True, kw_only=True):
    """All rows; `worst_off`: the `off` of largest absolute value; `client_mb`: growth of this process."""

    server: str
    rows: list[MemoryRow]
    worst_off: float
    client_mb: float
    seconds: float

    @property
    def missed_aims(self) -> list[str]:
        """The rows that differ too much from the formula."""
        off_formula = [f"`{r.name}` is {r.off:+.1%} from its formula" for r in self.rows if abs(r.off) > OFF_MAX]
        return off_formula + [
            f"a profile of `{r.name}` has {r.largest:.2f} of its stated size" for r in self.rows if r.largest > 1
        ]


@dataclass(frozen=True, slots=True)
class ProfileSizes:
    """Counts of the profiles in Redis, and of the histories; `key_bytes` of both."""

    entities: int
    slices: int
    key_bytes: int
    largest: float
    users: int = 0
    histories: int = 0
    entries: int = 0

    @property
    def formula(self) -> int:
        profiles = ENTITY_BYTES * self.entities + self.key_bytes + SLICE_BYTES * self.slices
        return profiles + HISTORY_USER_BYTES * self.users + HISTORY_BYTES * self.histories + ENTRY_BYTES * self.entries


class MemoryBench:
    """Measures streams of events, each in an empty Redis."""

    def __init__(self, *, server: RedisServer, seed: int, batch: int) -> None:
        self.seed, self.size = seed, batch
        self.redis: Any = redis.Redis.from_url(server.url)
        self.client = RedisClient(url=server.url, timeout_s=60)

    def measure_row(self, name: str, arrivals: Iterable[Arrival]) -> MemoryRow:
        """Fold and merge the arrivals into an empty Redis, and count."""
        self.redis.execute_command("FLUSHALL", "SYNC")  # memory freed later would count in the next row
        runner, events = FoldRunner(client=self.client, prefix=PREFIX), 0
        runner.process_batch(make_warmup(), ())  # creates buffers, scripts and `merged`
        before, sizes_before = self._read_used_bytes(), self._measure_profiles()
        for batch in split_batches(arrivals, self.size):
            runner.process_batch(batch, ())
            events += len(batch)
        used, sizes = self._read_used_bytes() - before, self._measure_profiles()
        entities, formula = sizes.entities - sizes_before.entities, sizes.formula - sizes_before.formula
        return MemoryRow(
            name=name,
            events=events,
            entities=entities,
            slices=sizes.slices - sizes_before.slices,
            bytes=used,
            formula=formula,
            bytes_per_entity=round(used / entities, 1),
            largest=round(sizes.largest, 3),
            off=round(used / formula - 1, 4),
        )

    def read_server_name(self) -> str:
        info: Any = self.redis.info("server")
        return f"{info.get('server_name', 'redis')} {info.get('valkey_version', info['redis_version'])}"

    def close(self) -> None:
        self.redis.close()
        self.client.close()

    def _read_used_bytes(self) -> int:
        """Used bytes without `merged` and client buffers, after the rehashing of the key tables has finished."""
        keys: Any = self.redis.dbsize()
        for _ in range(keys // PAGE + 1):
            self.client.pipeline([("GET", f"{PREFIX}none")] * PAGE)
        info: Any = self.redis.info("memory")
        merged = [("MEMORY", "USAGE", f"{PREFIX}merged:{{{bucket}}}", "SAMPLES", 0) for bucket in range(BUCKETS)]
        return int(info["used_memory"] - info["mem_clients_normal"] - sum(self.client.pipeline(merged)))

    def _measure_profiles(self) -> ProfileSizes:
        entities = 0
        slices = 0
        key_bytes = 0
        largest = 0.0
        for keys in self.client.scan(f"{PREFIX}profile:"):
            lengths = self.client.pipeline([("HLEN", key) for key in keys])
            sizes = self.client.pipeline([("MEMORY", "USAGE", key, "SAMPLES", 0) for key in keys])
            entities += len(keys)
            slices += sum(lengths)
            key_bytes += sum(map(len, keys))
            for key, length, size in zip(keys, lengths, sizes, strict=True):
                largest = max(largest, size / ProfileSizes(1, length, len(key), 0).formula)
        users, histories, entries = 0, 0, 0
        for keys in self.client.scan(f"{PREFIX}history:"):
            records = [record for own in self.client.pipeline([("HVALS", key) for key in keys]) for record in own]
            users += len(keys)
            histories += len(records)
            entries += sum(len(record) // ENTRY.itemsize for record in records)
            key_bytes += sum(map(len, keys))
        return ProfileSizes(entities, slices, key_bytes, largest, users, histories, entries)

    def measure_rows(self, ids: int, count: int) -> Iterator[MemoryRow]:
        """Every row: `ids` new ids in one, `count` entities or orders in each of the others."""
        for kind in ENTITY_KINDS:
            sources = list_sources(kind)
            for row_sources in (sources[:1], sources):
                yield self.measure_row(
                    f"{kind}, slices: {len(row_sources)}", generate_judgements(kind, count, row_sources)
                )
        for entries in (8, 64):
            yield self.measure_row(f"user, clicks: {entries}", generate_clicks(count, entries))
        yield self.measure_row("flood of new ids", generate_new_ids(ids))
        yield self.measure_row("half of the orders on one device", SyntheticShop(self.seed).draw_hot_orders(4 * count))
        yield self.measure_row("timestamps a year ahead", move_to_future(SyntheticShop(self.seed).draw_orders(count)))
        yield self.measure_row(
            "timestamps a year ahead, not clamped",
            move_to_future(SyntheticShop(self.seed).draw_orders(count), clamped=False),
        )
        yield self.measure_row("ids that change their case", mix_case(SyntheticShop(self.seed).draw_orders(count)))


def split_batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    remaining = iter(items)
    while batch := list(islice(remaining, size)):
        yield batch


def main(argv: Sequence[str]) -> int:
    """Measure on its own Redis. 0: every row agrees with the formula."""
    arguments = parse(argv)
    with RedisServer(binary=valkey_binary() if arguments.valkey else None) as server:
        bench = MemoryBench(server=server, seed=arguments.seed, batch=arguments.batch)
        figures = measure(bench, arguments)
        bench.close()
    is_missed = print_missed(figures.missed_aims)
    if arguments.json:
        print_json(figures)
    return 1 if is_missed else 0


def measure(bench: MemoryBench, arguments: argparse.Namespace) -> MemoryFigures:
    """Measure all rows, printing each when it is done."""
    started_s = time.monotonic()
    process = psutil.Process()
    rows = list[MemoryRow]()
    bench.measure_row("", SyntheticShop(arguments.seed).draw_orders(arguments.batch))  # one-time allocations
    resident = process.memory_info().rss
    for row in bench.measure_rows(arguments.ids, arguments.kept):
        print(f"{row.name:40} {row.entities:9,} entities {row.slices:9,} slices {row.bytes:13,} B {row.off:+7.1%}")
        rows.append(row)
    return MemoryFigures(
        server=bench.read_server_name(),
        rows=rows,
        worst_off=max((row.off for row in rows), key=lambda off: abs(off)),
        client_mb=round((process.memory_info().rss - resident) / 2**20, 1),
        seconds=round(time.monotonic() - started_s, 1),
    )


def parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench memory", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print the figures as one line of JSON, after the rows")
    parser.add_argument("--ids", type=int, default=1_000_000, help="number of ids that occur once")
    parser.add_argument("--kept", type=int, default=3_000, help="entities, or orders, of each other row")
    parser.add_argument("--batch", type=int, default=500, help="events per batch")
    parser.add_argument(
        "--valkey", action="store_true", help="use the Valkey of the Python wheel, even if Redis is installed"
    )
    parser.add_argument("--seed", type=int, default=20111209)
    return parser.parse_args(argv)
