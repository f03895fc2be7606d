"""The fold bench: the plain loop does the same work as the compiled fold."""

import json

import numpy as np
import pytest

from bench.performance.baselines.dict_fold import PlainEncoder, process_batch
from bench.performance.fold import FoldBench, main
from bench.performance.load.synthetic_shop import SyntheticShop
from bench.performance.measure.fold_runner import FoldRunner
from contract.graphs import DECIDE
from contract.profiles.entity_updates import to_updates
from contract.profiles.store import InMemoryProfileStore, fold
from devservers.redis_server import RedisServer


def test_the_plain_loop_gives_the_same_bytes_and_features(seed: int, redis_server: RedisServer) -> None:
    # given profiles with a history
    shop, store = SyntheticShop(seed), InMemoryProfileStore()
    for arrivals in (shop.draw_orders(150, lines=3, sellers=True), shop.draw_clicks(150), shop.draw_hot_orders(80)):
        touches = to_updates(arrivals)
        store.merge(fold(store.read(touches.entities), touches).slice_writes(), {}, {})
    orders = shop.draw_orders(60, lines=2, sellers=True)
    touches = to_updates(orders)
    profiles = dict(zip(touches.entities, store.read(touches.entities), strict=True))
    remembering = FoldRunner(client=None, prefix="")  # type: ignore[arg-type]
    plain = PlainEncoder(remembering.features, DECIDE.event_groups)
    # when
    memory = fold(list(profiles.values()), touches)
    written = process_batch(profiles, orders, plain)
    # then
    assert written == memory.slice_writes().to_mapping()
    ours = remembering.encoder.encode_before(memory, range(len(orders)), DECIDE.event_groups)
    for group, block in plain.to_blocks().items():
        np.testing.assert_array_equal(block.ids, ours[group].ids)
        np.testing.assert_allclose(block.numbers, ours[group].numbers, rtol=1e-6)


def test_a_difference_between_the_two_is_detected(seed: int, redis_server: RedisServer) -> None:
    # given
    redis_server.flush()
    bench = FoldBench(server=redis_server, seed=seed, batch=20)
    bench.run_rows()
    assert bench.count_differing() == 0
    # when
    bench.redis.hset(next(bench.redis.scan_iter("plain:profile:*")), "orders/9", b"x")
    # then
    assert bench.count_differing() == 1
    bench.redis.close()


def test_every_figure_is_printed(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    # given
    monkeypatch.setattr("bench.performance.fold.WARM_BATCHES", 1)
    # when
    main(["--json", "--repetitions", "2", "--batch", "40"])
    # then
    printed = json.loads(capsys.readouterr().out)
    rows = ("orders_us", "orders_with_items_us", "clicks_us", "plain_orders_us", "redis_us_per_event")
    for row in rows:
        least, median, most = printed["spread"][row]
        assert 0 < least <= printed[row] == median <= most
    assert printed["hot_ratio"] > 0
    assert (printed["batch"], printed["repetitions"]) == (40, 2)
