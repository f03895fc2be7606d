import math

import pytest
import torch
from torch import Tensor

from model.heads import average_members, compute_losses, compute_probabilities
from tests.model.small import (
    CATEGORY,
    CLASSES,
    DEMAND,
    FRAUD,
    PURCHASE,
    SHAPE,
    TASKS,
    draw_blocks,
    draw_labels,
    make_network,
    to_inputs,
)
from training.trainer.batching import Batch
from training.trainer.learner import compute_task_losses

NAN = float("nan")
SCALE = {"demand": (100.0, 20.0)}


def make_labels(seed: int, rows: int) -> dict[str, Tensor]:
    return {task: torch.from_numpy(label) for task, label in draw_labels(rows, seed).items()}


def mask_tasks(labels: dict[str, Tensor], *tasks: str) -> dict[str, Tensor]:
    unlabelled = {task: torch.full_like(label, -1 if task in CLASSES else NAN) for task, label in labels.items()}
    return {task: unlabelled[task] if task in tasks else label for task, label in labels.items()}


def test_rows_without_a_label_do_not_count() -> None:
    logits = {"click": torch.tensor([0.0, 5.0, -5.0])}
    labels = {"click": torch.tensor([1.0, NAN, NAN])}

    actual = compute_losses(TASKS[:1], logits, labels, {})

    assert actual["click"].item() == pytest.approx(math.log(2))


def test_weights_multiply_row_losses_before_the_mean_over_rows() -> None:
    logits = {"click": torch.tensor([0.0, 0.0, 5.0])}
    labels = {"click": torch.tensor([1.0, 0.0, NAN])}

    actual = compute_losses(TASKS[:1], logits, labels, {}, {"click": torch.tensor([3.0, 0.0, 7.0])})

    assert actual["click"].item() == pytest.approx(1.5 * math.log(2))


def test_a_batch_without_labels_has_zero_loss_and_gradient(seed: int) -> None:
    network = make_network(seed=seed)
    labels = mask_tasks(make_labels(seed, 6), *(task.name for task in TASKS))
    inputs = to_inputs(draw_blocks(6, seed))

    actual: dict[str, Tensor] = {}
    for view in network.views:
        actual |= compute_losses(view.tasks, network.logits(view, network.group_parts(view, inputs)), labels, {})
    torch.autograd.backward(torch.stack(list(actual.values())).sum())

    assert [loss.item() for loss in actual.values()] == [0.0] * len(TASKS)
    assert all(weight.grad is None or not weight.grad.any() for weight in network.parameters())


def test_a_row_without_a_label_has_zero_gradient(seed: int) -> None:
    logits = {task.name: torch.randn(4, 3) if task == CATEGORY else torch.randn(4) for task in TASKS}
    for logit in logits.values():
        logit.requires_grad_()
    labels = make_labels(seed, 4)
    for task, label in labels.items():
        label[1] = -1 if task in CLASSES else NAN

    torch.autograd.backward(torch.stack(list(compute_losses(TASKS, logits, labels, {}).values())).sum())

    for logit in logits.values():
        assert logit.grad is not None
        assert not logit.grad[1].any()
        assert logit.grad[0].any()


def test_tasks_without_labels_do_not_change_other_losses(seed: int) -> None:
    network, inputs, labels = make_network(seed=seed), to_inputs(draw_blocks(9, seed)), make_labels(seed, 9)

    all_losses = compute_task_losses(network, Batch(inputs, labels))
    losses = compute_task_losses(network, Batch(inputs, mask_tasks(labels, "fraud", "purchase")))

    assert losses.keys() == {"click", "relevance", "category"}
    torch.testing.assert_close(losses["click"], all_losses["click"])
    torch.testing.assert_close(losses["category"], all_losses["category"])


def test_a_purchase_loss_is_that_of_the_product_with_its_click() -> None:
    logits = {"click": torch.tensor([0.3, -1.0]), "purchase": torch.tensor([-2.0, 1.5])}
    p_purchase = logits["click"].sigmoid() * logits["purchase"].sigmoid()
    label = torch.tensor([1.0, 0.0])

    actual = compute_losses(TASKS[:2], logits, {"click": torch.full((2,), NAN), "purchase": label}, {})

    expected = torch.nn.functional.binary_cross_entropy(p_purchase, label)
    torch.testing.assert_close(actual["purchase"], expected)
    assert actual["click"].item() == 0


def test_losses_are_finite_for_large_logits() -> None:
    logits = {"click": torch.tensor([90.0, -90.0, 90.0]), "purchase": torch.tensor([-90.0, 90.0, 90.0])}
    labels = {"click": torch.tensor([0.0, 1.0, 0.0]), "purchase": torch.tensor([1.0, 1.0, 0.0])}

    actual = compute_losses(TASKS[:2], logits, labels, {})

    assert all(loss.isfinite() for loss in actual.values())


def test_tasks_may_be_declared_in_any_order() -> None:
    logits = {"click": torch.tensor([0.5]), "purchase": torch.tensor([0.1])}

    actual = compute_probabilities((PURCHASE, TASKS[0]), logits, {})

    assert list(actual) == ["purchase", "click"]
    torch.testing.assert_close(actual["purchase"], logits["click"].sigmoid() * logits["purchase"].sigmoid())


def test_a_regression_predicts_in_the_units_of_its_labels() -> None:
    logits, labels = {"demand": torch.tensor([0.0, 1.0])}, {"demand": torch.tensor([100.0, 160.0])}

    assert compute_probabilities((DEMAND,), logits, SCALE)["demand"].tolist() == [100.0, 120.0]
    assert compute_losses((DEMAND,), logits, labels, SCALE)["demand"].item() == pytest.approx((0 + 2**2) / 2)


@pytest.mark.parametrize("members", [1, 3])
def test_each_member_has_its_own_loss(members: int, seed: int) -> None:
    shape = SHAPE.model_copy(update={"members": members})
    network, labels = make_network(seed=seed, shape=shape).train(), make_labels(seed, 6)
    for task, label in labels.items():
        label[2] = -1 if task in CLASSES else NAN
    inputs = to_inputs(draw_blocks(6, seed))
    logits: dict[str, Tensor] = {}
    for view in network.views:
        logits |= network.logits(view, network.group_parts(view, inputs))
    for logit in logits.values():
        logit.retain_grad()

    actual = compute_losses(TASKS, logits, labels, {})
    torch.autograd.backward(torch.stack(list(actual.values())).sum())

    for logit in logits.values():
        assert logit.grad is not None
        assert not logit.grad[2].any()
        assert logit.grad[0].any()
    if members > 1:
        by_member = [compute_losses(TASKS, {n: x[:, k] for n, x in logits.items()}, labels, {}) for k in range(members)]
        for name, loss in actual.items():
            torch.testing.assert_close(loss, torch.stack([member[name] for member in by_member]).mean())


def test_members_are_averaged_as_probabilities(seed: int) -> None:
    torch.manual_seed(seed)
    binary, classes, values = torch.randn(5, 4) * 30, torch.randn(5, 4, 3) * 30, torch.randn(5, 4)

    torch.testing.assert_close(average_members(FRAUD, binary).sigmoid(), binary.sigmoid().mean(1))
    torch.testing.assert_close(average_members(CATEGORY, classes).softmax(1), classes.softmax(2).mean(1))
    torch.testing.assert_close(average_members(DEMAND, values), values.mean(1))
