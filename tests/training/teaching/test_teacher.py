"""Trees as a teacher: whose labels they replace, by what, and which network is kept."""

from dataclasses import replace

import numpy as np
import pytest

from contract.tasks import Task
from tests.model.small import CLICK, FRAUD, SHAPE
from tests.training.examples import PLAN, make_examples
from training.data.examples import Examples
from training.teaching import taught_fit, teacher
from training.teaching.taught_fit import fit_taught
from training.teaching.teacher import can_be_taught, predict_by_trees, teach


@pytest.fixture
def examples(monkeypatch: pytest.MonkeyPatch) -> Examples:
    monkeypatch.setattr(teacher, "POSITIVES_MIN", 10)
    return make_examples(1_500, 3)


def flip_labels_of_user(examples: Examples, user: str) -> Examples:
    labels = examples.labels[FRAUD.name].copy()
    own = examples.user_id == user
    labels[own] = 1 - labels[own]
    return examples.with_labels({**examples.labels, FRAUD.name: labels})


def test_the_labels_of_a_task_become_probabilities_and_nothing_else_changes(examples: Examples) -> None:
    taught = teach(FRAUD, examples, 1, 7)

    rows = examples.has_label(FRAUD)
    p, y = taught.labels[FRAUD.name][rows], examples.labels[FRAUD.name][rows]
    assert np.isnan(taught.labels[FRAUD.name][~rows]).all()
    assert ((p > 0) & (p < 1)).all()
    assert p[y == 1].mean() > p[y == 0].mean() + 0.2
    np.testing.assert_array_equal(taught.labels[CLICK.name], examples.labels[CLICK.name])


def test_no_row_is_taught_by_a_label_of_its_user(examples: Examples) -> None:
    flipped = flip_labels_of_user(examples, "u3")

    before, after = (teach(FRAUD, part, 1, 7).labels[FRAUD.name] for part in (examples, flipped))

    own = (examples.user_id == "u3") & examples.has_label(FRAUD)
    np.testing.assert_array_equal(before[own], after[own])
    assert (before[~own & examples.has_label(FRAUD)] != after[~own & examples.has_label(FRAUD)]).any()


def test_trees_predict_rows_that_they_were_not_fitted_on(examples: Examples) -> None:
    first, others = examples.take(np.arange(1_000)), examples.take(np.arange(1_000, 1_500))
    others = others.take(others.has_label(FRAUD))

    p = predict_by_trees(FRAUD, first, others, 1, 7)

    y = others.labels[FRAUD.name]
    assert p[y == 1].mean() > p[y == 0].mean() + 0.2


def test_only_judging_tasks_with_enough_of_both_outcomes_can_be_taught(
    examples: Examples, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert [task.name for task in examples.tasks if can_be_taught(task, examples)] == [FRAUD.name]
    monkeypatch.setattr(teacher, "POSITIVES_MIN", 1_000)
    assert not can_be_taught(FRAUD, examples)


def fit_with(examples: Examples, **changes: object) -> tuple[list[str], float]:
    """The tasks that were taught, and the score."""
    taught = list[str]()

    def note(tasks: tuple[Task, ...]) -> None:
        taught.extend(task.name for task in tasks)

    config = PLAN.model_copy(update={"epochs": 2, "teacher": "trees", **changes})
    return taught, fit_taught(examples, SHAPE, config, lambda epoch: None, on_taught=note).score


def test_the_network_is_taught_where_trees_are_ahead_and_the_better_one_is_kept(examples: Examples) -> None:
    taught, score = fit_with(examples)
    untaught, plain_score = fit_with(examples, teacher="none")

    assert (taught, untaught) == ([FRAUD.name], [])
    assert score > plain_score


def test_the_network_is_fitted_once_where_trees_are_behind(examples: Examples, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(taught_fit, "predict_by_trees", lambda task, training, rows, *_: np.full(len(rows), 0.01))

    taught, score = fit_with(examples)

    assert taught == []
    assert score == fit_with(examples, teacher="none")[1]


def test_the_first_network_stays_where_the_taught_one_is_worse(
    examples: Examples, monkeypatch: pytest.MonkeyPatch
) -> None:
    def mislead(task: Task, part: Examples, *_: object) -> Examples:
        return replace(part, labels={**part.labels, task.name: 1 - part.labels[task.name]})

    monkeypatch.setattr(taught_fit, "teach", mislead)
    monkeypatch.setattr(taught_fit, "EPOCHS_TIMES", 1)

    taught, score = fit_with(examples)

    assert taught == [FRAUD.name]
    assert score == fit_with(examples, teacher="none")[1]
