from pathlib import Path

import msgspec
import numpy as np
import pytest

from contract.tasks import Task
from tests.model.small import CLICK, DEMAND, PURCHASE
from training.metrics.metrics import row_log_loss
from training.monitor.alpha_spending import AlphaSpending, Analysis, AnalysisRecord
from training.stats.paired_loss import (
    CELLS_MIN,
    LossDifferences,
    compare_losses,
    constant_loss,
    measure_excess_loss,
    row_losses,
)

CLICK_WEIGHT = {"click": 1.0}


def make_pairs(rows: int, people: int, seed: int, worse: float = 0.0, task: Task = CLICK) -> LossDifferences:
    """Two models that err by as much as each other, the first one's answers moved towards a half besides."""
    rng = np.random.default_rng(seed)
    truth = rng.random(rows) * 0.8 + 0.1
    y = (rng.random(rows) < truth).astype(np.float64)
    probabilities, says = (np.clip(truth + rng.normal(0, 0.05, rows), 0.01, 0.99) for _ in range(2))
    users = [f"u{n % people}" for n in range(rows)]
    found = compare_losses(task, y, np.ones(rows), users, probabilities + worse * (0.5 - probabilities), says)
    assert found is not None
    return found


def test_the_gain_lost_is_the_difference_of_losses_in_those_of_the_best_constant(seed: int) -> None:
    rng = np.random.default_rng(seed)
    y, said, says = (rng.random((3, 500)) * 0.98 + 0.01).round(2)
    y = (y > 0.5).astype(np.float64)
    w = rng.integers(1, 4, 500).astype(np.float64)
    actual = compare_losses(CLICK, y, w, [f"u{n}" for n in range(500)], said, says)

    assert actual is not None
    one = measure_excess_loss({"click": actual}, CLICK_WEIGHT, 0.0)

    assert one is not None
    mean = np.average(y, weights=w)
    constant = np.average(row_log_loss(y, np.full(500, mean)), weights=w)
    wanted = np.average(row_log_loss(y, said) - row_log_loss(y, says), weights=w) / constant
    assert one.gain_lost == pytest.approx(wanted)
    assert one.rows == 500


def test_a_model_that_is_worse_is_told_from_one_that_is_not(seed: int) -> None:
    sound, worse = (
        measure_excess_loss({"click": make_pairs(3_000, 200, seed, by)}, CLICK_WEIGHT, 0.02) for by in (0.0, 0.9)
    )

    assert sound is not None
    assert worse is not None
    assert sound.p > 0.5
    assert worse.p < 1e-6
    assert worse.gain_lost > 0.05 > abs(sound.gain_lost)


def test_rows_of_few_people_prove_less_than_rows_of_many(seed: int) -> None:
    # Given losses that are alike within a person
    rng = np.random.default_rng(seed)
    more = np.repeat(rng.normal(0.02, 0.2, 50), 40)
    one = LossDifferences(more, np.ones(2_000), np.repeat(np.arange(50), 40), 1.0)
    independent = LossDifferences(more, np.ones(2_000), np.arange(2_000) % 1_000, 1.0)

    few, many = (measure_excess_loss({"click": of}, CLICK_WEIGHT, 0.0) for of in (one, independent))

    assert few is not None
    assert many is not None
    assert few.gain_lost == pytest.approx(many.gain_lost)
    assert abs(few.p - 0.5) < abs(many.p - 0.5)


def test_several_tasks_are_weighed_by_their_weights(seed: int) -> None:
    parts = {"click": make_pairs(1_000, 100, seed, 0.9), "purchase": make_pairs(1_000, 100, seed + 1, 0.0, PURCHASE)}
    alone = {name: measure_excess_loss({name: of}, {name: 1.0}, 0.0) for name, of in parts.items()}

    both = measure_excess_loss(parts, {"click": 3.0, "purchase": 1.0}, 0.0)

    assert both is not None
    lost = [one.gain_lost for one in alone.values() if one]
    assert both.gain_lost == pytest.approx((3 * lost[0] + lost[1]) / 4)


def test_too_few_people_and_labels_of_one_kind_say_nothing() -> None:
    assert measure_excess_loss({"click": make_pairs(1_000, CELLS_MIN - 1, 1)}, CLICK_WEIGHT, 0.0) is None
    assert measure_excess_loss({"click": make_pairs(1_000, 100, 1)}, {"click": 0.0}, 0.0) is None
    assert compare_losses(CLICK, np.zeros(9), np.ones(9), ["u"] * 9, np.full(9, 0.1), np.full(9, 0.2)) is None


def test_an_answer_that_is_no_number_loses_as_much_as_one_can() -> None:
    worst = row_losses(CLICK, np.array([1.0, 1.0]), np.array([np.nan, 0.0]))

    assert worst[0] == worst[1]


def test_amounts_lose_their_squares() -> None:
    y = np.array([1.0, 3.0])

    assert row_losses(DEMAND, y, np.array([2.0, 3.0])).tolist() == [1.0, 0.0]
    assert constant_loss(DEMAND, y, np.ones(2)) == 1.0


def test_all_looks_together_use_no_more_than_the_risk(tmp_path: Path) -> None:
    looks = AlphaSpending(bundles=tmp_path, version="v", rows_min=100)

    parts = [looks.spend("click", np.arange(n + 1)) for n in range(50)]

    assert parts[:3] == [1 / 2, 1 / 6, 1 / 12]
    assert sum(parts) < 1


def test_a_look_takes_place_when_half_as_many_rows_have_come_since(tmp_path: Path) -> None:
    looks = AlphaSpending(bundles=tmp_path, version="v", rows_min=100)
    assert not looks.is_due("click", np.arange(1, 100))
    assert looks.is_due("click", np.arange(1, 101))

    looks.spend("click", np.arange(1, 101))

    assert not looks.is_due("click", np.arange(1, 150))
    assert looks.is_due("click", np.arange(1, 151))
    assert looks.is_due("click", np.arange(51, 151))  # the oldest have left the window
    assert looks.is_due("fraud", np.arange(1, 101))  # another question has looks of its own


def test_a_watcher_that_starts_again_counts_its_looks_on(tmp_path: Path) -> None:
    AlphaSpending(bundles=tmp_path, version="v", rows_min=100).spend("click", np.arange(1, 101))

    again = AlphaSpending(bundles=tmp_path, version="v", rows_min=100)

    assert not again.is_due("click", np.arange(1, 101))
    assert again.spend("click", np.arange(1, 151)) == 1 / 6
    assert AlphaSpending(bundles=tmp_path, version="another", rows_min=100).spend("click", np.arange(1, 101)) == 1 / 2


def test_looks_that_cannot_be_read_begin_anew(tmp_path: Path) -> None:
    (tmp_path / "watched.json").write_bytes(b"junk")

    assert AlphaSpending(bundles=tmp_path, version="v", rows_min=1).spend("click", np.arange(1, 3)) == 1 / 2
    actual = msgspec.json.decode((tmp_path / "watched.json").read_bytes(), type=AnalysisRecord)
    assert actual == AnalysisRecord("v", {"click": Analysis(1, 2, 2)})
