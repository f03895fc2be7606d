import math

import pytest
import torch
from msgspec.structs import replace
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
    gone = {task: torch.full_like(label, -1 if task in CLASSES else NAN) for task, label in labels.items()}
    return {task: gone[task] if task in tasks else label for task, label in labels.items()}


def test_a_loss_is_taken_over_the_rows_that_have_the_label_alone() -> None:
    logits = {"click": torch.tensor([0.0, 5.0, -5.0])}
    labels = {"click": torch.tensor([1.0, NAN, NAN])}

    actual = compute_losses(TASKS[:1], logits, labels, {})

    assert actual["click"].item() == pytest.approx(math.log(2))


def test_weights_multiply_the_losses_of_rows_and_the_mean_stays_one_over_rows() -> None:
    logits = {"click": torch.tensor([0.0, 0.0, 5.0])}
    labels = {"click": torch.tensor([1.0, 0.0, NAN])}

    actual = compute_losses(TASKS[:1], logits, labels, {}, {"click": torch.tensor([3.0, 0.0, 7.0])})

    assert actual["click"].item() == pytest.approx(1.5 * math.log(2))


def test_a_batch_without_any_label_gives_exactly_zero_and_gradients_of_zero(seed: int) -> None:
    network = make_network(seed=seed)
    labels = mask_tasks(make_labels(seed, 6), *(task.name for task in TASKS))
    inputs = to_inputs(draw_blocks(6, seed))

    actual: dict[str, Tensor] = {}
    for view in network.views:
        actual |= compute_losses(view.tasks, network.logits(view, network.group_parts(view, inputs)), labels, {})
    torch.autograd.backward(torch.stack(list(actual.values())).sum())

    assert [loss.item() for loss in actual.values()] == [0.0] * len(TASKS)
    assert all(weight.grad is None or not weight.grad.any() for weight in network.parameters())


def test_a_row_without_a_label_has_a_gradient_of_exactly_zero(seed: int) -> None:
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


def test_tasks_without_a_label_in_a_batch_do_not_change_the_losses_of_others(seed: int) -> None:
    network, inputs, labels = make_network(seed=seed), to_inputs(draw_blocks(9, seed)), make_labels(seed, 9)

    everything = compute_task_losses(network, Batch(inputs, labels))
    some = compute_task_losses(network, Batch(inputs, mask_tasks(labels, "fraud", "purchase")))

    assert some.keys() == {"click", "relevance", "category"}
    torch.testing.assert_close(some["click"], everything["click"])
    torch.testing.assert_close(some["category"], everything["category"])


def test_a_purchase_is_learned_through_the_click_it_needs() -> None:
    logits = {"click": torch.tensor([0.3, -1.0]), "purchase": torch.tensor([-2.0, 1.5])}
    rng = logits["click"].sigmoid() * logits["purchase"].sigmoid()
    label = torch.tensor([1.0, 0.0])

    actual = compute_losses(TASKS[:2], logits, {"click": torch.full((2,), NAN), "purchase": label}, {})

    expected = torch.nn.functional.binary_cross_entropy(rng, label)
    torch.testing.assert_close(actual["purchase"], expected)
    assert actual["click"].item() == 0


def test_losses_stay_finite_for_logits_of_any_size() -> None:
    logits = {"click": torch.tensor([90.0, -90.0, 90.0]), "purchase": torch.tensor([-90.0, 90.0, 90.0])}
    labels = {"click": torch.tensor([0.0, 1.0, 0.0]), "purchase": torch.tensor([1.0, 1.0, 0.0])}

    actual = compute_losses(TASKS[:2], logits, labels, {})

    assert all(loss.isfinite() for loss in actual.values())


def test_the_order_in_which_tasks_are_declared_does_not_matter() -> None:
    logits = {"click": torch.tensor([0.5]), "purchase": torch.tensor([0.1])}

    actual = compute_probabilities((PURCHASE, TASKS[0]), logits, {})

    assert list(actual) == ["purchase", "click"]
    torch.testing.assert_close(actual["purchase"], logits["click"].sigmoid() * logits["purchase"].sigmoid())


def test_a_regression_answers_in_the_units_of_its_labels() -> None:
    logits, labels = {"demand": torch.tensor([0.0, 1.0])}, {"demand": torch.tensor([100.0, 160.0])}

    assert compute_probabilities((DEMAND,), logits, SCALE)["demand"].tolist() == [100.0, 120.0]
    assert compute_losses((DEMAND,), logits, labels, SCALE)["demand"].item() == pytest.approx((0 + 2**2) / 2)


@pytest.mark.parametrize("members", [1, 3])
def test_each_member_is_judged_by_itself_and_a_row_without_a_label_moves_none(members: int, seed: int) -> None:
    shape = replace(SHAPE, members=members)
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
        alone = [compute_losses(TASKS, {n: x[:, k] for n, x in logits.items()}, labels, {}) for k in range(members)]
        for name, loss in actual.items():
            torch.testing.assert_close(loss, torch.stack([one[name] for one in alone]).mean())


def test_what_members_say_together_is_the_mean_of_their_probabilities(seed: int) -> None:
    torch.manual_seed(seed)
    binary, classes, values = torch.randn(5, 4) * 30, torch.randn(5, 4, 3) * 30, torch.randn(5, 4)

    torch.testing.assert_close(average_members(FRAUD, binary).sigmoid(), binary.sigmoid().mean(1))
    torch.testing.assert_close(average_members(CATEGORY, classes).softmax(1), classes.softmax(2).mean(1))
    torch.testing.assert_close(average_members(DEMAND, values), values.mean(1))
