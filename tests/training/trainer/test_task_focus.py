"""Weights that change while a network learns: what is hard weighs more, and nothing else changes."""

import pytest
from msgspec.structs import replace

from tests.model.small import CATEGORY, CLICK, FRAUD, SHAPE
from tests.training.examples import PLAN, make_examples
from training.trainer.fit import Epoch, fit
from training.trainer.task_focus import prioritize_tasks

TASKS = (CLICK, FRAUD, replace(CATEGORY, weight=2.0))


def test_what_is_hard_weighs_more_and_the_sum_of_the_weights_stays() -> None:
    actual = prioritize_tasks(TASKS, {"click": {"gain": 0.5}, "fraud": {"gain": 0.0}, "category": {"gain": 0.9}}, 1.0)

    assert sum(actual.values()) == pytest.approx(4)
    assert actual["fraud"] == pytest.approx(2 * actual["click"])
    assert actual["category"] == pytest.approx(2 * actual["click"] * 0.1 / 0.5)


def test_a_task_whose_gain_nothing_tells_keeps_its_weight() -> None:
    actual = prioritize_tasks(TASKS, {"click": {"gain": 0.5}, "fraud": {"gain": 0.2}, "category": {"rows": 3.0}}, 2.0)

    assert actual["category"] == 2
    assert actual["click"] + actual["fraud"] == pytest.approx(2)


@pytest.mark.parametrize("gains", [(-3.0, 0.4, 0.8), (1.0, 1.0, 1.0), (1.5, 0.0, 0.5)])
def test_gains_beyond_their_range_give_weights_all_the_same(gains: tuple[float, ...]) -> None:
    evaluation = {task.name: {"gain": gain} for task, gain in zip(TASKS, gains, strict=True)}

    actual = prioritize_tasks(TASKS, evaluation, 1.0)

    assert sum(actual.values()) == pytest.approx(4)
    assert min(actual.values()) >= 0


def test_the_focus_0_leaves_the_weights_as_declared() -> None:
    evaluation = {"click": {"gain": 0.3}, "fraud": {"gain": 0.7}, "category": {"gain": -1.0}}

    assert prioritize_tasks(TASKS, evaluation, 0.0) == {"click": 1.0, "fraud": 1.0, "category": 2.0}


def test_a_focus_changes_what_is_learned_from_the_second_epoch_on(seed: int) -> None:
    told: dict[float, list[Epoch]] = {0.0: [], 4.0: []}
    for focus, epochs in told.items():
        plan = PLAN.model_copy(update={"epochs": 2, "batch": 16, "focus": focus})
        fit(make_examples(600, seed), SHAPE, plan, epochs.append)

    (first, second), (changed, after) = told[0.0], told[4.0]
    assert first.losses == changed.losses
    assert second.losses != after.losses
    assert first.weights == {}
    assert len(set(changed.weights.values())) > 1
