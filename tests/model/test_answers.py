import math

import pytest
import torch
from msgspec.structs import replace
from torch import Tensor

from model.answers import losses, probabilities, vote
from tests.model.small import (
    CATEGORY,
    CLASSES,
    DEMAND,
    FRAUD,
    PURCHASE,
    SHAPE,
    TASKS,
    as_inputs,
    draw_blocks,
    draw_labels,
    make_network,
)
from training.learner import Batch, task_losses

NAN = float("nan")
SCALE = {"demand": (100.0, 20.0)}


def as_labels(seed: int, rows: int) -> dict[str, Tensor]:
    return {task: torch.from_numpy(label) for task, label in draw_labels(rows, seed).items()}


def without(labels: dict[str, Tensor], *tasks: str) -> dict[str, Tensor]:
    gone = {task: torch.full_like(label, -1 if task in CLASSES else NAN) for task, label in labels.items()}
    return {task: gone[task] if task in tasks else label for task, label in labels.items()}


def test_a_loss_is_taken_over_the_rows_that_have_the_label_alone() -> None:
    logits = {"click": torch.tensor([0.0, 5.0, -5.0])}
    labels = {"click": torch.tensor([1.0, NAN, NAN])}

    found = losses(TASKS[:1], logits, labels, {})

    assert found["click"].item() == pytest.approx(math.log(2))


def test_weights_multiply_the_losses_of_rows_and_the_mean_stays_one_over_rows() -> None:
    logits = {"click": torch.tensor([0.0, 0.0, 5.0])}
    labels = {"click": torch.tensor([1.0, 0.0, NAN])}

    found = losses(TASKS[:1], logits, labels, {}, {"click": torch.tensor([3.0, 0.0, 7.0])})

    assert found["click"].item() == pytest.approx(1.5 * math.log(2))


def test_a_batch_without_any_label_gives_exactly_zero_and_gradients_of_zero(seed: int) -> None:
    network = make_network(seed=seed)
    labels = without(as_labels(seed, 6), *(task.name for task in TASKS))
    inputs = as_inputs(draw_blocks(6, seed))

    found: dict[str, Tensor] = {}
    for view in network.views:
        found |= losses(view.tasks, network.logits(view, network.parts(view, inputs)), labels, {})
    torch.autograd.backward(torch.stack(list(found.values())).sum())

    assert [loss.item() for loss in found.values()] == [0.0] * len(TASKS)
    assert all(weight.grad is None or not weight.grad.any() for weight in network.parameters())


def test_a_row_without_a_label_has_a_gradient_of_exactly_zero(seed: int) -> None:
    logits = {task.name: torch.randn(4, 3) if task == CATEGORY else torch.randn(4) for task in TASKS}
    for logit in logits.values():
        logit.requires_grad_()
    labels = as_labels(seed, 4)
    for task, label in labels.items():
        label[1] = -1 if task in CLASSES else NAN

    torch.autograd.backward(torch.stack(list(losses(TASKS, logits, labels, {}).values())).sum())

    for logit in logits.values():
        assert logit.grad is not None
        assert not logit.grad[1].any()
        assert logit.grad[0].any()


def test_tasks_without_a_label_in_a_batch_do_not_change_the_losses_of_others(seed: int) -> None:
    network, inputs, labels = make_network(seed=seed), as_inputs(draw_blocks(9, seed)), as_labels(seed, 9)

    everything = task_losses(network, Batch(inputs, labels))
    some = task_losses(network, Batch(inputs, without(labels, "fraud", "purchase")))

    assert some.keys() == {"click", "relevance", "category"}
    torch.testing.assert_close(some["click"], everything["click"])
    torch.testing.assert_close(some["category"], everything["category"])


def test_a_purchase_is_learned_through_the_click_it_needs() -> None:
    logits = {"click": torch.tensor([0.3, -1.0]), "purchase": torch.tensor([-2.0, 1.5])}
    chance = logits["click"].sigmoid() * logits["purchase"].sigmoid()
    label = torch.tensor([1.0, 0.0])

    found = losses(TASKS[:2], logits, {"click": torch.full((2,), NAN), "purchase": label}, {})

    expected = torch.nn.functional.binary_cross_entropy(chance, label)
    torch.testing.assert_close(found["purchase"], expected)
    assert found["click"].item() == 0


def test_losses_stay_finite_for_logits_of_any_size() -> None:
    logits = {"click": torch.tensor([90.0, -90.0, 90.0]), "purchase": torch.tensor([-90.0, 90.0, 90.0])}
    labels = {"click": torch.tensor([0.0, 1.0, 0.0]), "purchase": torch.tensor([1.0, 1.0, 0.0])}

    found = losses(TASKS[:2], logits, labels, {})

    assert all(loss.isfinite() for loss in found.values())


def test_the_order_in_which_tasks_are_declared_does_not_matter() -> None:
    logits = {"click": torch.tensor([0.5]), "purchase": torch.tensor([0.1])}

    found = probabilities((PURCHASE, TASKS[0]), logits, {})

    assert list(found) == ["purchase", "click"]
    torch.testing.assert_close(found["purchase"], logits["click"].sigmoid() * logits["purchase"].sigmoid())


def test_a_regression_answers_in_the_units_of_its_labels() -> None:
    logits, labels = {"demand": torch.tensor([0.0, 1.0])}, {"demand": torch.tensor([100.0, 160.0])}

    assert probabilities((DEMAND,), logits, SCALE)["demand"].tolist() == [100.0, 120.0]
    assert losses((DEMAND,), logits, labels, SCALE)["demand"].item() == pytest.approx((0 + 2**2) / 2)


@pytest.mark.parametrize("members", [1, 3])
def test_each_member_is_judged_by_itself_and_a_row_without_a_label_moves_none(members: int, seed: int) -> None:
    shape = replace(SHAPE, members=members)
    network, labels = make_network(seed=seed, shape=shape).train(), as_labels(seed, 6)
    for task, label in labels.items():
        label[2] = -1 if task in CLASSES else NAN
    inputs = as_inputs(draw_blocks(6, seed))
    logits: dict[str, Tensor] = {}
    for view in network.views:
        logits |= network.logits(view, network.parts(view, inputs))
    for logit in logits.values():
        logit.retain_grad()

    found = losses(TASKS, logits, labels, {})
    torch.autograd.backward(torch.stack(list(found.values())).sum())

    for logit in logits.values():
        assert logit.grad is not None
        assert not logit.grad[2].any()
        assert logit.grad[0].any()
    if members > 1:
        alone = [losses(TASKS, {n: x[:, k] for n, x in logits.items()}, labels, {}) for k in range(members)]
        for name, loss in found.items():
            torch.testing.assert_close(loss, torch.stack([one[name] for one in alone]).mean())


def test_what_members_say_together_is_the_mean_of_their_probabilities(seed: int) -> None:
    torch.manual_seed(seed)
    binary, classes, values = torch.randn(5, 4) * 30, torch.randn(5, 4, 3) * 30, torch.randn(5, 4)

    torch.testing.assert_close(vote(FRAUD, binary).sigmoid(), binary.sigmoid().mean(1))
    torch.testing.assert_close(vote(CATEGORY, classes).softmax(1), classes.softmax(2).mean(1))
    torch.testing.assert_close(vote(DEMAND, values), values.mean(1))
