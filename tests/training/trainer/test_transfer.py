"""Transfer: a further task learns on what others have learned, which stays, or follows slowly."""

import numpy as np
import pytest
import torch
from msgspec.structs import replace
from torch import Tensor

from contract.errors import BadConfig, BadData
from contract.tasks import Task
from model.checkpoint import Checkpoint, make_metadata
from tests.model.small import FRAUD, SHAPE, TASKS
from tests.training.examples import PLAN, make_examples
from training.data.examples import Examples
from training.trainer.fit import DEFAULT_OPTIONS, Epoch, FitOptions, FitResult, fit
from training.trainer.learner import predict
from training.trainer.transfer import Carried, Transfer

FORMER_TASKS = tuple(task for task in TASKS if task != FRAUD)
EXAMPLES = make_examples(1_200, 3)


def fit_network(examples: Examples, setting: FitOptions = DEFAULT_OPTIONS, **plan: int) -> FitResult:
    return fit(examples, SHAPE, PLAN.model_copy(update={"epochs": 4} | plan), lambda epoch: None, setting)


def make_checkpoint(fitted: FitResult) -> Checkpoint:
    about = make_metadata(fitted.network, parent=None, created_ms=1, evaluation={}, positions={})
    return Checkpoint(metadata=about, weights=fitted.network.state_dict())


@pytest.fixture(scope="module")
def former() -> Checkpoint:
    return make_checkpoint(fit_network(EXAMPLES.for_tasks(FORMER_TASKS)))


def transfer_to(former: Checkpoint, carried: Carried, examples: Examples = EXAMPLES, **plan: int) -> FitResult:
    return fit_network(examples, FitOptions(transfer=Transfer(checkpoint=former, carried=carried)), **plan)


def test_a_task_is_added_to_frozen_layers_and_the_others_answer_as_before_to_the_bit(former: Checkpoint) -> None:
    actual = transfer_to(former, "frozen", epochs=40, batch=16, patience=9)

    before, after = predict(former.build_network(), EXAMPLES.for_tasks(FORMER_TASKS)), predict(actual.network, EXAMPLES)
    rows = np.isin(EXAMPLES.example_id, EXAMPLES.for_tasks(FORMER_TASKS).example_id)
    for task in FORMER_TASKS:
        np.testing.assert_array_equal(after[task.name][rows], before[task.name])
    assert actual.evaluation["fraud"]["gain"] > 0.1
    assert all(parameter.requires_grad for parameter in actual.network.parameters())


def test_tasks_that_the_new_examples_say_nothing_of_stay(former: Checkpoint) -> None:
    fraud = EXAMPLES.take(EXAMPLES.has_label(FRAUD))

    actual = transfer_to(former, "slow", fraud, epochs=1)

    assert {task.name for task in actual.network.tasks} == {task.name for task in TASKS}
    assert set(actual.left_out) == {task.name for task in FORMER_TASKS}
    assert set(actual.evaluation) == {"fraud"}


def weight_distance(former: Checkpoint, fitted: FitResult) -> float:
    """How far the carried weights went."""
    after: dict[str, Tensor] = fitted.network.state_dict()
    names = [name for name, p in fitted.network.named_parameters() if name in former.weights]
    return float(torch.cat([(after[name] - former.weights[name]).reshape(-1) for name in names]).norm())


def test_what_is_carried_moves_less_the_slower_it_is(former: Checkpoint) -> None:
    ways: tuple[Carried, ...] = ("frozen", "slow", "free")
    frozen, slow, free = (weight_distance(former, transfer_to(former, carried, epochs=1)) for carried in ways)

    assert frozen == 0
    assert 0 < slow < free / 2


def test_a_network_begins_with_what_was_learned(former: Checkpoint) -> None:
    told: dict[bool, list[Epoch]] = {True: [], False: []}
    for transferred, epochs in told.items():
        transfer = Transfer(checkpoint=former, carried="free") if transferred else None
        fit(EXAMPLES, SHAPE, PLAN.model_copy(update={"epochs": 1}), epochs.append, FitOptions(transfer=transfer))

    assert told[True][0].losses["click"] < told[False][0].losses["click"]


def test_what_would_not_fit_is_told(former: Checkpoint) -> None:
    transfer = Transfer(checkpoint=former, carried="slow")
    other = tuple(replace(task, groups=("user", "item")) if task.name == "click" else task for task in TASKS)

    with pytest.raises(BadConfig, match=r"\[model\] should be that of"):
        fit(
            EXAMPLES,
            SHAPE.model_copy(update={"hidden": 2 * SHAPE.hidden}),
            PLAN,
            lambda epoch: None,
            FitOptions(transfer=transfer),
        )
    with pytest.raises(BadConfig, match="`click` should be the task that"):
        fit_network(make_task_examples(other), FitOptions(transfer=transfer))
    with pytest.raises(BadData, match="Some task should be further to"):
        transfer_to(former, "frozen", EXAMPLES.for_tasks(FORMER_TASKS))


def make_task_examples(tasks: tuple[Task, ...]) -> Examples:
    return make_examples(300, 3, tasks)
