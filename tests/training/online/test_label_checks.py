"""Plausibility checks of labels: sound ones pass, implausible base rates and rankings are rejected."""

import numpy as np
import pytest

from contract.tasks import Task
from contract.units import MINUTE_MS
from tests.model.small import CATEGORY, CLICK, FRAUD
from tests.training.examples import make_examples
from training.data.examples import Examples
from training.metrics.ranking import auc
from training.online.label_checks import LabelledRows, auc_influence, check_labels, measure_skill
from training.online.promotion_gate import ROWS_MIN

JUMP = 1.5


def make_labelled(task: Task, rows: int, labels: np.ndarray) -> Examples:
    """Rows of many users with these labels of one task."""
    drawn = make_examples(200, 3)
    examples = drawn.take(np.resize(np.flatnonzero(drawn.has_label(task)), rows))
    examples.labels[task.name][:] = labels
    examples.known_ms[task.name][:] = examples.ts_ms
    examples.user_id[:] = [f"u{n // 2}" for n in range(rows)]
    return examples


def draw_labels(task: Task, rows: int, seed: int, *, times: float = 1.0) -> tuple[Examples, dict[str, np.ndarray]]:
    """Labels that are positive `times` as often as predicted, and the predictions."""
    rng = np.random.default_rng(seed)
    p = rng.beta(1, 4, rows).astype(np.float32)
    return make_labelled(task, rows, rng.random(rows) < p * times), {task.name: p}


def reject(task: Task, new: tuple[Examples, dict[str, np.ndarray]], seed: int = 2) -> list[str]:
    return list(check_labels([task], new, draw_labels(task, 300, seed), JUMP))


@pytest.mark.parametrize("times", [0.9, 1.0, 1.1])
def test_labels_that_the_model_expects_are_accepted(times: float) -> None:
    assert reject(CLICK, draw_labels(CLICK, 600, 1, times=times)) == []


@pytest.mark.parametrize(("since", "until"), [(0, 25), (120, 185), (170, 230), (200, 260)])
def test_labels_with_delayed_negatives_are_accepted_at_any_time(since: int, until: int) -> None:
    # given three hours of clicks known after a minute, and of missing clicks known after half an hour
    (new, predictions), buffered = draw_labels(CLICK, 3_600, 1), draw_labels(CLICK, 300, 2)
    new.ts_ms[:] = np.arange(3_600) // 20 * MINUTE_MS
    for examples in (new, buffered[0]):
        wait_ms = np.where(examples.labels["click"] > 0.5, 1, 30) * MINUTE_MS
        examples.known_ms["click"][:] = examples.ts_ms + wait_ms

    # when an update learns what became known within an hour or less, even after traffic has stopped
    rows = (new.known_ms["click"] >= since * MINUTE_MS) & (new.known_ms["click"] < until * MINUTE_MS)
    update = (new.take(rows), {"click": predictions["click"][rows]})

    # then its labels pass
    assert list(check_labels([CLICK], update, buffered, JUMP)) == []


@pytest.mark.parametrize("times", [0.0, 0.3, 2.5])
def test_labels_far_more_or_less_frequent_than_expected_are_rejected(times: float) -> None:
    (sentence,) = (s for s in reject(CLICK, draw_labels(CLICK, 600, 1, times=times)) if "as often" in s)

    assert sentence.startswith("`click` should happen 0.67 to 1.5 times as often as the serving model expects. Found ")


def test_the_base_rate_of_fraud_is_not_checked() -> None:
    assert reject(FRAUD, draw_labels(FRAUD, 600, 1, times=2.5)) == []


@pytest.mark.parametrize("task", [CLICK, FRAUD])
def test_shuffled_labels_are_rejected(task: Task) -> None:
    new, predictions = draw_labels(task, 600, 1)
    shuffled = new.with_labels({**new.labels, task.name: np.random.default_rng(3).permutation(new.labels[task.name])})

    (sentence,) = reject(task, (shuffled, predictions))

    assert sentence.startswith(f"The serving model should rank new `{task.name}` examples at least 40% as well")


def test_classes_are_rejected_when_accuracy_falls_far_below_the_reference() -> None:
    y = np.arange(300) % 3
    right = {"category": np.eye(3)[y] * 0.9 + 0.03}
    wrong = {"category": np.eye(3)[(y + 1) % 3] * 0.9 + 0.03}
    rows = make_labelled(CATEGORY, 300, y)

    assert list(check_labels([CATEGORY], (rows, right), (rows, right), JUMP)) == []
    (sentence,) = check_labels([CATEGORY], (rows, wrong), (rows, right), JUMP)
    assert "should classify new `category`" in sentence


@pytest.mark.parametrize(("rows", "is_rejected"), [(ROWS_MIN - 1, False), (ROWS_MIN, True)])
def test_few_labels_are_left_to_the_gate(rows: int, is_rejected: bool) -> None:
    assert bool(reject(CLICK, draw_labels(CLICK, rows, 1, times=4.0))) == is_rejected


def test_without_replayed_examples_only_the_base_rate_is_checked() -> None:
    new, predictions = draw_labels(CLICK, 600, 1)
    p = predictions["click"]
    opposite = {"click": p.max() + p.min() - p}

    assert not any("should rank" in sentence for sentence in check_labels([CLICK], (new, opposite), None, JUMP))


def test_skill_is_the_gini_coefficient_with_an_interval_that_covers_it(seed: int) -> None:
    rng, covered = np.random.default_rng(seed), 0
    for _ in range(100):
        y = rng.random(200) < 0.3
        p = rng.normal(y * 1.0, 1.0)
        interval = measure_skill(CLICK, LabelledRows(y.astype(np.float32), p, np.arange(200)))
        assert interval.value == pytest.approx(2 * auc(y, p) - 1)
        covered += interval.low <= 2 * 0.7602 - 1 <= interval.high  # of two normals one standard deviation apart

    assert covered >= 88


def test_the_influences_on_an_auc_sum_to_zero() -> None:
    y = np.array([True, False, True, False, False])
    p = np.array([0.9, 0.9, 0.3, 0.1, 0.2])

    influence = auc_influence(y, p, auc(y, p))

    assert influence[y].sum() == pytest.approx(0, abs=1e-12)
    assert influence[~y].sum() == pytest.approx(0, abs=1e-12)


def test_labels_that_are_all_equal_have_no_ranking_to_check() -> None:
    new, predictions = draw_labels(FRAUD, 100, 1)
    new.labels["fraud"][:] = 1

    assert reject(FRAUD, (new, predictions)) == []
