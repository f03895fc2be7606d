"""The small-data bench: features that only earlier rows reach, and how methods are compared."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from bench.quality.small_data.command import (
    OURS,
    TREES,
    SmallDataTrial,
    find_missed_aims,
    main,
    split_latest,
    summarize,
)
from bench.quality.small_data.datasets import build_examples, count_earlier, mean_of_earlier


def make_trial(auc: float) -> SmallDataTrial:
    return SmallDataTrial(auc=auc, average_precision=0.5, gain=0.1, seconds=1.0)


def test_counts_and_means_are_those_of_earlier_rows_of_the_same_entity(seed: int) -> None:
    rng = np.random.default_rng(seed)
    entity, values = rng.integers(0, 9, 300), rng.random(300)
    times = np.cumsum(rng.integers(1, 99, 300))

    count, gap = count_earlier(entity, times)
    mean = mean_of_earlier(entity, values)

    for row in range(300):
        earlier = np.flatnonzero(entity[:row] == entity[row])
        assert count[row] == len(earlier)
        assert np.isnan(gap[row]) if not len(earlier) else gap[row] == times[row] - times[earlier[-1]]
        np.testing.assert_allclose(mean[row], values[earlier].mean() if len(earlier) else np.nan)


def test_later_rows_and_labels_change_no_feature_of_earlier_rows() -> None:
    rng = np.random.default_rng(1)
    table = pa.table({"who": rng.integers(0, 5, 100), "paid": rng.random(100), "bad": rng.integers(0, 2, 100)})
    times = np.arange(1, 101) * 1_000
    changed = table.set_column(2, "bad", pa.array(1 - table["bad"].to_numpy()))

    whole, flipped, first = (
        build_examples(rows, label="bad", keys=("who",), numbers=("paid",), times=times[: len(rows)])
        for rows in (table, changed, table.slice(0, 60))
    )

    numbers = whole.blocks["user"].numbers
    np.testing.assert_array_equal(numbers, flipped.blocks["user"].numbers)
    np.testing.assert_array_equal(numbers[:60], first.blocks["user"].numbers)
    assert len(split_latest(whole)[1]) == 20


@pytest.mark.parametrize(("ours", "missed"), [([0.6, 0.7], 1), ([0.71, 0.7], 0), ([0.8, 0.9], 0)])
def test_a_table_is_missed_only_beyond_the_noise_of_the_seeds(ours: list[float], missed: int) -> None:
    trials = {OURS: [make_trial(auc) for auc in ours], TREES: [make_trial(0.705), make_trial(0.71)]}

    rows = summarize(trials)

    assert len(list(find_missed_aims({"orders": rows}))) == missed


def test_missing_data_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--data", str(tmp_path)]) == 1

    captured = capsys.readouterr()
    assert "test_full42.parquet" in captured.out + captured.err
