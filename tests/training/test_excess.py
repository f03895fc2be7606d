from pathlib import Path

import msgspec
import numpy as np
import pytest

from contract.tasks import Task
from tests.model.small import CLICK, DEMAND, PURCHASE
from training.excess import CELLS_MIN, Pairs, constant_loss, excess, losses_of, pairs_of
from training.looks import Look, Looks, Watched
from training.metrics import row_log_loss

ONE = {"click": 1.0}


def pairs(rows: int, people: int, seed: int, worse: float = 0.0, task: Task = CLICK) -> Pairs:
    """Two models that err by as much as each other, the first one's answers moved towards a half besides."""
    chance = np.random.default_rng(seed)
    truth = chance.random(rows) * 0.8 + 0.1
    y = (chance.random(rows) < truth).astype(np.float64)
    said, says = (np.clip(truth + chance.normal(0, 0.05, rows), 0.01, 0.99) for _ in range(2))
    users = [f"u{n % people}" for n in range(rows)]
    found = pairs_of(task, y, np.ones(rows), users, said + worse * (0.5 - said), says)
    assert found is not None
    return found


def test_the_gain_lost_is_the_difference_of_losses_in_those_of_the_best_constant(seed: int) -> None:
    chance = np.random.default_rng(seed)
    y, said, says = (chance.random((3, 500)) * 0.98 + 0.01).round(2)
    y = (y > 0.5).astype(np.float64)
    w = chance.integers(1, 4, 500).astype(np.float64)
    found = pairs_of(CLICK, y, w, [f"u{n}" for n in range(500)], said, says)

    assert found is not None
    one = excess({"click": found}, ONE, 0.0)

    assert one is not None
    mean = np.average(y, weights=w)
    constant = np.average(row_log_loss(y, np.full(500, mean)), weights=w)
    wanted = np.average(row_log_loss(y, said) - row_log_loss(y, says), weights=w) / constant
    assert one.lost == pytest.approx(wanted)
    assert one.rows == 500


def test_a_model_that_is_worse_is_told_from_one_that_is_not(seed: int) -> None:
    sound, worse = (excess({"click": pairs(3_000, 200, seed, by)}, ONE, 0.02) for by in (0.0, 0.9))

    assert sound is not None
    assert worse is not None
    assert sound.p > 0.5
    assert worse.p < 1e-6
    assert worse.lost > 0.05 > abs(sound.lost)


def test_rows_of_few_people_prove_less_than_rows_of_many(seed: int) -> None:
    # Given losses that are alike within a person
    chance = np.random.default_rng(seed)
    more = np.repeat(chance.normal(0.02, 0.2, 50), 40)
    one = Pairs(more, np.ones(2_000), np.repeat(np.arange(50), 40), 1.0)
    independent = Pairs(more, np.ones(2_000), np.arange(2_000) % 1_000, 1.0)

    few, many = (excess({"click": of}, ONE, 0.0) for of in (one, independent))

    assert few is not None
    assert many is not None
    assert few.lost == pytest.approx(many.lost)
    assert abs(few.p - 0.5) < abs(many.p - 0.5)


def test_several_tasks_are_weighed_by_their_weights(seed: int) -> None:
    parts = {"click": pairs(1_000, 100, seed, 0.9), "purchase": pairs(1_000, 100, seed + 1, 0.0, PURCHASE)}
    alone = {name: excess({name: of}, {name: 1.0}, 0.0) for name, of in parts.items()}

    both = excess(parts, {"click": 3.0, "purchase": 1.0}, 0.0)

    assert both is not None
    lost = [one.lost for one in alone.values() if one]
    assert both.lost == pytest.approx((3 * lost[0] + lost[1]) / 4)


def test_too_few_people_and_labels_of_one_kind_say_nothing() -> None:
    assert excess({"click": pairs(1_000, CELLS_MIN - 1, 1)}, ONE, 0.0) is None
    assert excess({"click": pairs(1_000, 100, 1)}, {"click": 0.0}, 0.0) is None
    assert pairs_of(CLICK, np.zeros(9), np.ones(9), ["u"] * 9, np.full(9, 0.1), np.full(9, 0.2)) is None


def test_an_answer_that_is_no_number_loses_as_much_as_one_can() -> None:
    worst = losses_of(CLICK, np.array([1.0, 1.0]), np.array([np.nan, 0.0]))

    assert worst[0] == worst[1]


def test_amounts_lose_their_squares() -> None:
    y = np.array([1.0, 3.0])

    assert losses_of(DEMAND, y, np.array([2.0, 3.0])).tolist() == [1.0, 0.0]
    assert constant_loss(DEMAND, y, np.ones(2)) == 1.0


def test_all_looks_together_use_no_more_than_the_risk(tmp_path: Path) -> None:
    looks = Looks(bundles=tmp_path, version="v", rows_min=100)

    parts = [looks.take("click", np.arange(n + 1)) for n in range(50)]

    assert parts[:3] == [1 / 2, 1 / 6, 1 / 12]
    assert sum(parts) < 1


def test_a_look_takes_place_when_half_as_many_rows_have_come_since(tmp_path: Path) -> None:
    looks = Looks(bundles=tmp_path, version="v", rows_min=100)
    assert not looks.is_due("click", np.arange(1, 100))
    assert looks.is_due("click", np.arange(1, 101))

    looks.take("click", np.arange(1, 101))

    assert not looks.is_due("click", np.arange(1, 150))
    assert looks.is_due("click", np.arange(1, 151))
    assert looks.is_due("click", np.arange(51, 151))  # the oldest have left the window
    assert looks.is_due("fraud", np.arange(1, 101))  # another question has looks of its own


def test_a_watcher_that_starts_again_counts_its_looks_on(tmp_path: Path) -> None:
    Looks(bundles=tmp_path, version="v", rows_min=100).take("click", np.arange(1, 101))

    again = Looks(bundles=tmp_path, version="v", rows_min=100)

    assert not again.is_due("click", np.arange(1, 101))
    assert again.take("click", np.arange(1, 151)) == 1 / 6
    assert Looks(bundles=tmp_path, version="another", rows_min=100).take("click", np.arange(1, 101)) == 1 / 2


def test_looks_that_cannot_be_read_begin_anew(tmp_path: Path) -> None:
    (tmp_path / "watched.json").write_bytes(b"junk")

    assert Looks(bundles=tmp_path, version="v", rows_min=1).take("click", np.arange(1, 3)) == 1 / 2
    found = msgspec.json.decode((tmp_path / "watched.json").read_bytes(), type=Watched)
    assert found == Watched("v", {"click": Look(1, 2, 2)})
