import numpy as np
import pytest

from bench.quality.calibration import AIM, estimate_chance_error, evaluate_tasks, find_missed_aims
from contract.tasks import Task
from tests.model.small import CATEGORY, CLICK, DEMAND, FRAUD
from tests.training.examples import make_examples
from training.data.examples import Examples

ROWS = 4_000


def make_labelled(task: Task, y: np.ndarray) -> Examples:
    """Examples with these labels of one task."""
    examples = make_examples(1, 1).take(np.zeros(len(y), np.int64))
    examples.labels[task.name][:] = y
    return examples


def test_a_perfect_model_has_only_the_expected_error(seed: int) -> None:
    rng = np.random.default_rng(seed)
    p = rng.random(ROWS) * 0.4
    y = (rng.random(ROWS) < p).astype(np.float32)

    row = evaluate_tasks([CLICK], make_labelled(CLICK, y), {"click": p})["click"]

    assert row.rows == ROWS
    assert row.calibration_error == pytest.approx(row.of_chance, abs=0.012)


def test_a_model_that_predicts_twice_the_rate_misses_the_aim(seed: int) -> None:
    rng = np.random.default_rng(seed)
    p = rng.random(ROWS) * 0.4
    y = (rng.random(ROWS) < p / 2).astype(np.float32)

    rows = evaluate_tasks([FRAUD], make_labelled(FRAUD, y), {"fraud": p})

    assert rows["fraud"].calibration_error == pytest.approx(0.1, abs=0.03)
    assert list(find_missed_aims(rows)) == [
        f"The calibration error of `fraud` should be at most {AIM}. Found {rows['fraud'].calibration_error}, "
        f"where perfect probabilities have {rows['fraud'].of_chance} on {ROWS} rows."
    ]


def test_the_expected_error_falls_with_rows_and_is_zero_for_certainty(seed: int) -> None:
    p = np.random.default_rng(seed).random(16 * ROWS)

    assert estimate_chance_error(p) < estimate_chance_error(p[:ROWS]) / 2
    assert estimate_chance_error(np.ones(100)) == 0


def test_classes_are_evaluated_by_the_predicted_class_and_regressions_are_not() -> None:
    y = np.array([0, 1, 1, 1])
    p = np.tile([0.25, 0.75, 0.0], (4, 1))

    rows = evaluate_tasks([CATEGORY, DEMAND], make_labelled(CATEGORY, y), {"category": p, "demand": p[:, 0]})

    assert list(rows) == ["category"]
    assert rows["category"].calibration_error == 0
