"""Transfer learning: a new task starts from trained layers, which stay frozen or change slowly."""

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


def fit_network(examples: Examples, options: FitOptions = DEFAULT_OPTIONS, **changes: int) -> FitResult:
    return fit(examples, SHAPE, PLAN.model_copy(update={"epochs": 4} | changes), lambda epoch: None, options)


def make_checkpoint(fitted: FitResult) -> Checkpoint:
    metadata = make_metadata(fitted.network, parent=None, created_ms=1, evaluation={}, positions={})
    return Checkpoint(metadata=metadata, weights=fitted.network.state_dict())


@pytest.fixture(scope="module")
def former() -> Checkpoint:
    return make_checkpoint(fit_network(EXAMPLES.for_tasks(FORMER_TASKS)))


def transfer_to(former: Checkpoint, carried: Carried, examples: Examples = EXAMPLES, **changes: int) -> FitResult:
    return fit_network(examples, FitOptions(transfer=Transfer(checkpoint=former, carried=carried)), **changes)


def test_a_new_task_on_frozen_layers_leaves_other_predictions_equal_to_the_bit(former: Checkpoint) -> None:
    actual = transfer_to(former, "frozen", epochs=40, batch=16, patience=9)

    before, after = predict(former.build_network(), EXAMPLES.for_tasks(FORMER_TASKS)), predict(actual.network, EXAMPLES)
    rows = np.isin(EXAMPLES.example_id, EXAMPLES.for_tasks(FORMER_TASKS).example_id)
    for task in FORMER_TASKS:
        np.testing.assert_array_equal(after[task.name][rows], before[task.name])
    assert actual.evaluation["fraud"]["gain"] > 0.1
    assert all(parameter.requires_grad for parameter in actual.network.parameters())


def test_tasks_without_labels_in_the_new_examples_stay(former: Checkpoint) -> None:
    fraud = EXAMPLES.take(EXAMPLES.has_label(FRAUD))

    actual = transfer_to(former, "slow", fraud, epochs=1)

    assert {task.name for task in actual.network.tasks} == {task.name for task in TASKS}
    assert set(actual.left_out) == {task.name for task in FORMER_TASKS}
    assert set(actual.evaluation) == {"fraud"}


def weight_distance(former: Checkpoint, fitted: FitResult) -> float:
    """The distance between the carried weights before and after."""
    after: dict[str, Tensor] = fitted.network.state_dict()
    names = [name for name, p in fitted.network.named_parameters() if name in former.weights]
    return float(torch.cat([(after[name] - former.weights[name]).reshape(-1) for name in names]).norm())


def test_slower_carried_layers_move_less(former: Checkpoint) -> None:
    modes: tuple[Carried, ...] = ("frozen", "slow", "free")
    frozen, slow, free = (weight_distance(former, transfer_to(former, carried, epochs=1)) for carried in modes)

    assert frozen == 0
    assert 0 < slow < free / 2


def test_a_warm_start_has_a_lower_loss_in_the_first_epoch(former: Checkpoint) -> None:
    epochs_by_start: dict[bool, list[Epoch]] = {True: [], False: []}
    for transferred, epochs in epochs_by_start.items():
        transfer = Transfer(checkpoint=former, carried="free") if transferred else None
        fit(EXAMPLES, SHAPE, PLAN.model_copy(update={"epochs": 1}), epochs.append, FitOptions(transfer=transfer))

    assert epochs_by_start[True][0].losses["click"] < epochs_by_start[False][0].losses["click"]


def test_another_shape_task_or_no_new_task_is_rejected(former: Checkpoint) -> None:
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
    with pytest.raises(BadConfig, match="`click` should be declared as in"):
        fit_network(make_task_examples(other), FitOptions(transfer=transfer))
    with pytest.raises(BadData, match="Some task should be new"):
        transfer_to(former, "frozen", EXAMPLES.for_tasks(FORMER_TASKS))


def make_task_examples(tasks: tuple[Task, ...]) -> Examples:
    return make_examples(300, 3, tasks)
