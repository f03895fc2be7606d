"""Soft targets of a teacher, and their effect on the network."""

import numpy as np
import pytest
import torch

from model.heads import compute_probabilities, compute_soft_losses
from model.network import Network
from tests.model.small import CATEGORY, CLICK, DEMAND, FRAUD, PURCHASE, TASKS, make_network
from tests.training.examples import PLAN, make_examples
from training.online.distillation import add_teacher_targets
from training.trainer.batching import to_batch
from training.trainer.learner import Learner, predict

BATCH = to_batch(make_examples(300, 3))


def test_soft_targets_are_set_on_replayed_rows_and_for_missing_labels() -> None:
    batch = add_teacher_targets(make_network(), BATCH, labelled=100)

    for task in ("click", "purchase"):
        has_target, label = ~batch.soft_targets[task].isnan(), batch.labels[task]
        shown = ~batch.labels["click"].isnan()
        assert not has_target[:100][~label[:100].isnan()].any()
        assert has_target[100:][shown[100:]].all()
    missing = ~batch.labels["click"].isnan() & batch.labels["purchase"].isnan()
    assert (~batch.soft_targets["purchase"].isnan())[missing].all()
    assert batch.soft_targets["category"].shape == (300, 3)


def test_predictions_equal_to_the_teachers_have_no_gradient() -> None:
    network = make_network(tasks=TASKS)
    view = network.views[0]
    rows = BATCH.find_labelled_rows(view)
    logits = {
        task: logit.detach().requires_grad_()
        for task, logit in network.logits(view, network.group_parts(view, BATCH.take(rows, view.groups).inputs)).items()
    }
    targets = compute_probabilities(view.tasks, {task: logit.detach() for task, logit in logits.items()}, {})

    loss = torch.stack(list(compute_soft_losses(view.tasks, logits, targets, {}).values())).sum()
    grads = torch.autograd.grad(loss, list(logits.values()))

    assert max(float(grad.abs().max()) for grad in grads) < 1e-6


@pytest.mark.parametrize(
    ("task", "target", "minimum"),
    [
        (CLICK, torch.tensor([0.3, torch.nan]), -(0.3 * np.log(0.3) + 0.7 * np.log(0.7))),
        (CATEGORY, torch.tensor([[0.2, 0.3, 0.5], [torch.nan] * 3]), -sum(p * np.log(p) for p in (0.2, 0.3, 0.5))),
        (DEMAND, torch.tensor([130.0, torch.nan]), 0.0),
    ],
    ids=["binary", "multiclass", "regression"],
)
def test_each_loss_is_least_at_the_target_and_skips_missing_ones(
    task: object, target: torch.Tensor, minimum: float
) -> None:
    logits = {
        "click": torch.tensor([np.log(0.3 / 0.7), 5.0]),
        "category": torch.log(torch.tensor([[0.2, 0.3, 0.5], [0.9, 0.05, 0.05]])),
        "demand": torch.tensor([1.5, 9.0]),
    }
    scale = {"demand": (100.0, 20.0)}

    def loss(push: float) -> float:
        pushed = {name: logit + push * torch.arange(1, logit.shape[-1] + 1) for name, logit in logits.items()}
        return float(compute_soft_losses([task], pushed, {task.name: target}, scale)[task.name])  # type: ignore[attr-defined,list-item]

    assert loss(0.0) == pytest.approx(minimum, abs=1e-6)
    assert min(loss(0.3), loss(-0.3)) > loss(0.0)


def test_a_higher_distillation_weight_keeps_the_network_nearer_to_its_teacher() -> None:
    teacher, examples = make_network(), make_examples(300, 3)
    wrong = examples.with_labels({**examples.labels, "click": 1 - examples.labels["click"]})
    before = predict(teacher, examples)["click"]

    def prediction_change(distillation: float) -> float:
        network: Network = make_network()
        learner = Learner(network=network, config=PLAN.model_copy(update={"distillation": distillation}))
        for _ in range(20):
            learner.train_step(add_teacher_targets(teacher, to_batch(wrong), labelled=0))
        return float(np.nanmean(np.abs(predict(network, examples)["click"] - before)))

    assert prediction_change(4.0) < prediction_change(1.0) < prediction_change(0.0)


def test_a_task_without_labels_learns_from_the_teacher_alone() -> None:
    network = make_network(tasks=(CLICK, PURCHASE, FRAUD))
    examples = make_examples(100, 3, (CLICK, PURCHASE, FRAUD))
    unlabelled = examples.with_labels({**examples.labels, "purchase": np.full(len(examples), np.nan, np.float32)})

    losses = Learner(network=network, config=PLAN).train_step(
        add_teacher_targets(network.eval(), to_batch(unlabelled), len(unlabelled))
    )

    assert set(losses) == {"click", "purchase", "fraud"}
