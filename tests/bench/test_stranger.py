"""The stranger bench: its orders and records, its rival, and the steps of the tutorial on a small table."""

from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from bench.quality.stranger.boosting import build_columns, count_by_device, score_by_boosting
from bench.quality.stranger.command import (
    StrangerOutcome,
    StrangerRun,
    collect_scores,
    compare,
    difference_interval,
    find_missed_aims,
    measure_shop,
)
from bench.quality.stranger.live_shop import LiveShop, find_settled
from bench.quality.stranger.orders import BAD_SHARE, LABEL_DELAY_MS, RISKS, OrderTable, count_of_device, simulate_orders
from bench.quality.stranger.records import count_settings
from contract.units import DAY_MS
from devservers.apache_kafka import ApacheKafka

END_MS = 1_790_000_000_000


def make_table(rows: int = 400, seed: int = 0) -> OrderTable:
    return simulate_orders(rows, seed, END_MS)


@pytest.mark.parametrize("seed", range(len(RISKS)))
def test_every_shop_has_sorted_orders_and_the_declared_share_of_bad_ones(seed: int) -> None:
    table = make_table(6_000, seed)

    assert len(table) == 6_000
    assert (np.diff(table.ts_ms) >= 0).all()
    assert (table.since_ms <= table.ts_ms).all()
    assert table.ts_ms[-1] < END_MS
    assert table.bad.mean() == pytest.approx(BAD_SHARE, abs=0.015)
    np.testing.assert_array_equal(table.bad, make_table(6_000, seed).bad)


def test_counts_by_device_are_those_of_earlier_orders_and_of_outcomes_known_by_then() -> None:
    table = make_table()

    counts = count_by_device(table)

    for row in range(len(table)):
        earlier = np.flatnonzero(table.device[:row] == table.device[row])
        known = earlier[table.ts_ms[earlier] + LABEL_DELAY_MS <= table.ts_ms[row]]
        day = earlier[table.ts_ms[earlier] > table.ts_ms[row] - DAY_MS]
        assert counts[row, [0, 1, 5, 6]].tolist() == [len(earlier), len(day), len(known), table.bad[known].sum()]
    np.testing.assert_array_equal(counts[:, 1], count_of_device(table, DAY_MS))


def test_the_rival_reads_no_outcome_that_is_not_known_at_the_cut() -> None:
    table, cut = make_table(1_200), 900
    unknown = table.ts_ms + LABEL_DELAY_MS > table.ts_ms[-1]
    bad = np.where(unknown, 1 - table.bad, table.bad)
    flipped = OrderTable(
        ts_ms=table.ts_ms,
        customer=table.customer,
        device=table.device,
        since_ms=table.since_ms,
        columns=table.columns,
        bad=bad,
    )

    np.testing.assert_array_equal(score_by_boosting(table, cut, 1), score_by_boosting(flipped, cut, 1))
    assert unknown.any()
    assert build_columns(table)[0].shape == (1_200, 14 + 7)


def test_both_aucs_agree_with_scikit_learn_and_undecided_orders_are_missing(seed: int) -> None:
    table, cut = make_table(1_200), 600
    rng = np.random.default_rng(seed)
    p, other = rng.random(600), rng.random(600).round(1)
    probability = {f"P-{row:06}": float(p[row - cut]) for row in range(cut + 10, 1_200)}

    run = compare(table, cut, collect_scores(probability, cut, 1_200), other, seed=1, minutes=2.0)

    y = table.bad[cut + 10 :]
    assert run.ours_auc == pytest.approx(roc_auc_score(y, p[10:]), abs=1e-4)
    assert run.boosting_auc == pytest.approx(roc_auc_score(y, other[10:]), abs=1e-4)
    assert (run.decided, run.missing) == (590, 10)
    low, high = run.difference_ci
    assert low < run.ours_auc - run.boosting_auc < high


def test_the_interval_of_equal_scores_is_zero() -> None:
    table = make_table(1_200)
    p = np.random.default_rng(0).random(1_200)
    assert difference_interval(table.bad, p, p, table.customer, 0) == (0, 0)


def test_the_days_of_outcomes_are_disjoint_and_complete() -> None:
    table, begin = make_table(), int(make_table().ts_ms[0])
    days = [find_settled(table, begin + day * DAY_MS, begin + (day + 1) * DAY_MS) for day in range(200)]
    np.testing.assert_array_equal(np.concatenate(days), np.arange(len(table)))


@pytest.mark.parametrize(("ours", "missing", "missed"), [(0.7, 0, 1), (0.72, 0, 0), (0.8, 3, 1)])
def test_an_aim_is_missed_by_a_lower_mean_or_by_orders_without_a_decision(
    ours: float, missing: int, missed: int
) -> None:
    run = StrangerRun(
        seed=0, ours_auc=ours, boosting_auc=0.71, difference_ci=(0, 0), minutes=1, decided=9, missing=missing
    )
    outcome = StrangerOutcome(rows=12, runs=[run], minutes=1, settings=1, decided=9, missing=missing)
    assert len(list(find_missed_aims(outcome))) == missed


@pytest.mark.apache_kafka
@pytest.mark.timeout(600)
def test_a_small_table_is_mapped_trained_and_served_by_the_steps_of_the_tutorial(
    own_kafka: ApacheKafka, redis_url: str, tmp_path: Path
) -> None:
    shop = LiveShop(folder=tmp_path, bootstrap=own_kafka.bootstrap, redis_url=redis_url)

    run = measure_shop(1_500, 0, shop)

    assert (run.decided, run.missing) == (375, 0)
    assert 0 < run.ours_auc < 1  # so few rows teach little: the full bench compares
    assert count_settings() > 40
