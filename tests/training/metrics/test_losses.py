import numpy as np
import pytest
from hypothesis import given, settings
from sklearn.metrics import log_loss as sklearn_log_loss
from sklearn.metrics import root_mean_squared_error as sklearn_root_mean_squared_error

from contract.tasks import Task
from tests.model.small import CATEGORY, CLICK, DEMAND
from tests.training.metrics.draws import GroupedRows, draw_class_rows, draw_grouped_rows
from training.metrics.losses import (
    LOSS_MAX,
    constant_loss,
    log_loss,
    root_mean_squared_error,
    row_losses,
)


@settings(max_examples=40)
@given(draw_grouped_rows())
def test_log_loss_of_two_classes_equals_that_of_scikit_learn(rows: GroupedRows) -> None:
    y, p, _ = rows

    assert log_loss(y, p) == pytest.approx(sklearn_log_loss(y, p.astype(np.float64), labels=[0, 1]))


@settings(max_examples=40)
@given(draw_class_rows())
def test_log_loss_of_several_classes_equals_that_of_scikit_learn(rows: tuple[np.ndarray, np.ndarray]) -> None:
    y, p = rows

    assert log_loss(y, p) == pytest.approx(sklearn_log_loss(y, p, labels=[0, 1, 2, 3]))


def test_a_certain_wrong_prediction_costs_much_but_not_infinity() -> None:
    assert 10 < log_loss(np.ones(1), np.zeros(1)) < 20


def test_root_mean_squared_error_is_in_the_units_of_the_labels(seed: int) -> None:
    y, p = np.random.default_rng(seed).normal(100, 20, (2, 50))

    assert root_mean_squared_error(np.array([1.0, 5.0]), np.array([4.0, 1.0])) == pytest.approx(np.sqrt(12.5))
    assert root_mean_squared_error(y, p) == pytest.approx(sklearn_root_mean_squared_error(y, p))


def test_a_prediction_that_is_not_finite_loses_as_much_as_the_worst() -> None:
    losses = row_losses(CLICK, np.array([1.0, 1.0]), np.array([np.nan, 0.0]))

    assert losses[0] == losses[1] == LOSS_MAX
    assert row_losses(CATEGORY, np.array([0]), np.array([[np.nan, 1.0]])).tolist() == [LOSS_MAX]


def test_each_kind_of_task_has_its_row_losses() -> None:
    p = np.array([[0.5, 0.25, 0.25], [0.0, 1.0, 0.0]])

    assert row_losses(CATEGORY, np.array([0, 1]), p) == pytest.approx([np.log(2), 0], abs=1e-6)
    assert row_losses(DEMAND, np.array([3.0, 1.0]), np.array([1.0, 1.0])).tolist() == [4, 0]


@pytest.mark.parametrize(
    ("task", "y"),
    [
        (CLICK, np.array([0, 1, 1, 0, 1.0])),
        (CLICK, np.array([0.2, 0.7, 1.0, 0.0, 0.5])),
        (CATEGORY, np.array([0, 2, 2, 1, 0])),
        (DEMAND, np.array([1.0, 3.0, -2.0, 0.5, 8.0])),
    ],
)
def test_the_constant_loss_is_the_loss_of_the_mean_prediction(task: Task, y: np.ndarray) -> None:
    w = np.array([1, 2, 1, 3, 1.0])
    shares = np.bincount(y, weights=w) / w.sum() if task.kind == "multiclass" else np.average(y, weights=w)
    constant = np.tile(shares, (len(y), 1)) if task.kind == "multiclass" else np.full(len(y), shares)

    assert constant_loss(task, y, w) == pytest.approx(np.average(row_losses(task, y, constant), weights=w))


def test_the_constant_loss_of_equal_labels_is_zero() -> None:
    assert constant_loss(CLICK, np.ones(4)) == 0
    assert constant_loss(DEMAND, np.full(4, 2.5)) == 0
    assert constant_loss(DEMAND, np.array([1.0, 3.0]), np.ones(2)) == 1
