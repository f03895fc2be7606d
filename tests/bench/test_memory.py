"""The memory bench: it counts bytes in Redis and reports rows that differ from the documented formula."""

import json
from collections.abc import Iterator

import pytest

from bench.performance.load.growth_streams import generate_new_ids, list_sources, mix_case
from bench.performance.memory import MemoryBench, main
from contract.profiles.entity_updates import extract_updates
from devservers.redis_server import RedisServer


@pytest.fixture
def bench(seed: int, redis_server: RedisServer) -> Iterator[MemoryBench]:
    opened = MemoryBench(server=redis_server, seed=seed, batch=100)
    yield opened
    opened.close()


def test_the_flood_contains_only_new_ids() -> None:
    # given
    arrivals = list(generate_new_ids(60))
    # when
    ids = {entity for arrival in arrivals for entity, _ in extract_updates(arrival.event)}
    # then
    assert (len(arrivals), len(ids)) == (10, 60)


def test_entities_slices_and_keys_are_counted(bench: MemoryBench) -> None:
    # given an order and a copy of it in upper case
    (order,) = generate_new_ids(6)
    # when
    row = bench.measure_row("two", mix_case([order, order._replace(offset=order.offset + 1)]))
    # then the device and the card count twice
    assert (row.events, row.entities, row.slices) == (2, 8, 8)
    keys = sum(len(bench.redis.keys(f"shop:profile:*:{kind}:*")) for kind in ("device", "card"))
    assert keys == 4


def test_a_profile_larger_than_its_formula_is_detected(bench: MemoryBench, monkeypatch: pytest.MonkeyPatch) -> None:
    # given a profile within its formula
    assert bench.measure_row("good", generate_new_ids(6)).largest < 1
    # when the formula gives less for a slice
    monkeypatch.setattr("bench.performance.memory.SLICE_BYTES", 300)
    # then
    assert bench.measure_row("bad", generate_new_ids(6)).largest > 1


@pytest.mark.parametrize(("kind", "slices"), [("user", 6), ("item", 16), ("seller", 12), ("card", 8)])
def test_an_entity_has_a_slice_of_each_partition_that_may_update_it(kind: str, slices: int) -> None:
    assert len(list_sources(kind)) == slices


def test_every_row_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    # when
    main(["--json", "--ids", "600", "--kept", "60"])
    # then
    printed = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert {row["name"].partition(",")[0] for row in printed["rows"]} >= {
        "user",
        "device",
        "ip",
        "card",
        "item",
        "seller",
    }
    assert {row["name"]: row["entities"] for row in printed["rows"]}["flood of new ids"] == 600
    assert abs(printed["worst_off"]) == max(abs(row["off"]) for row in printed["rows"])
