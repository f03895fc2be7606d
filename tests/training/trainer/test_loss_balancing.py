"""Loss balancing: the direction of a step by each method, and task priorities that follow the gain."""

import pytest
import torch
from msgspec.structs import replace
from torch import Tensor

from contract.errors import BadConfig, BadData
from contract.settings.training import TrainingConfig
from contract.tasks import Task
from model.checkpoint import hash_weights
from model.network import Network
from tests.model.small import CATEGORY, CLICK, FRAUD, SHAPE, TASKS, make_network
from tests.training.examples import PLAN, make_examples
from training.data.examples import Examples
from training.trainer.batching import Batch, to_batch
from training.trainer.config import check_balance
from training.trainer.fit import Epoch, fit
from training.trainer.learner import Learner, compute_task_losses
from training.trainer.loss_balancing import ALIASES, create_method, prioritize_tasks
from training.trainer.shared_parameters import SharedParameters

OTHER_BALANCERS = ("Mean", "MGDA", "DWA(temperature=1.0)", "Constant(weights=[1.0, 2.0, 1.0, 1.0, 1.0])", "FAMO")


def make_learner(balance: str, seed: int, **changes: object) -> Learner:
    network = make_network(seed=seed, shape=SHAPE.model_copy(update=changes))
    return Learner(network=network.train(), config=PLAN.model_copy(update={"balance": balance}))


def find_direction(learner: Learner, batch: Batch) -> dict[str, Tensor]:
    """The gradient that balancing gives each parameter, before clipping; zero without a gradient."""
    learner.optimizer.zero_grad()
    learner.balancer.backward(compute_task_losses(learner.network, batch))
    named = learner.network.named_parameters()
    return {name: torch.zeros_like(p) if p.grad is None else p.grad.clone() for name, p in named}


def test_static_follows_the_gradient_of_the_summed_losses(seed: int) -> None:
    batch, learner = to_batch(make_examples(60, seed)), make_learner("static", seed)

    actual = find_direction(learner, batch)

    learner.optimizer.zero_grad()
    torch.autograd.backward(torch.stack(list(compute_task_losses(learner.network, batch).values())).sum())
    for name, parameter in learner.network.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(actual[name], parameter.grad)


@pytest.mark.parametrize("balance", ["pcgrad", "upgrad"])
def test_parameters_of_one_task_follow_its_own_gradient(balance: str, seed: int) -> None:
    batch = to_batch(make_examples(60, seed))
    static, other = make_learner("static", seed), make_learner(balance, seed)

    expected, actual = find_direction(static, batch), find_direction(other, batch)

    towers = [name for name in expected if name.startswith("towers.") and "fraud" in name]
    assert towers
    for name in towers:
        torch.testing.assert_close(actual[name], expected[name])
    assert any(not torch.allclose(actual[name], expected[name]) for name in expected)


def test_upgrad_harms_no_task_where_the_plain_sum_does(seed: int) -> None:
    batch = to_batch(make_examples(120, seed))
    alignment = dict[str, Tensor]()

    for balance in ("static", "upgrad"):
        learner = make_learner(balance, seed)
        actual = compute_task_losses(learner.network, batch)
        losses = {"click": 3 * actual["click"], "fraud": actual["fraud"] - actual["click"]}  # they conflict
        rows = torch.stack([SharedParameters(learner.network).compute_gradients(loss)[0] for loss in losses.values()])
        learner.balancer.backward(losses)
        shared = SharedParameters(learner.network).shared
        direction = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).reshape(-1) for p in shared])
        alignment[balance] = rows @ direction / rows.norm(dim=1) / rows.norm(dim=1).max()

    assert alignment["static"].min() < -0.1
    assert alignment["upgrad"].min() > -0.01


def make_task_network(tasks: tuple[Task, ...]) -> Network:
    return make_network(tasks=tasks, seed=2).train()


@pytest.mark.parametrize("balance", [*ALIASES, *OTHER_BALANCERS])
def test_a_task_without_labels_in_a_batch_leaves_its_own_parameters_unchanged(balance: str, seed: int) -> None:
    examples = make_examples(80, seed)
    without_fraud = to_batch(examples.take(~examples.has_label(FRAUD)))
    no_purchases = torch.full_like(without_fraud.labels["purchase"], torch.nan)
    batch = Batch(without_fraud.inputs, {**without_fraud.labels, "purchase": no_purchases})
    learner = make_learner(balance, seed)

    actual = find_direction(learner, batch)
    losses = learner.train_step(batch)

    assert losses.keys() == {"click", "relevance", "category"}
    assert all(value.isfinite().all() for value in actual.values())
    for task in ("fraud", "purchase"):
        assert not any(value.any() for name, value in actual.items() if name.startswith("towers.") and task in name)
    assert any(value.any() for name, value in actual.items() if name.startswith("towers.") and "click" in name)


@pytest.mark.parametrize("balance", list(ALIASES))
def test_a_row_without_a_label_changes_nothing_of_that_task(balance: str, seed: int) -> None:
    batch, learner = to_batch(make_examples(80, seed)), make_learner(balance, seed)
    is_unlabelled = torch.arange(80) % 2 == 1
    without_purchase = {**batch.labels, "purchase": batch.labels["purchase"].masked_fill(is_unlabelled, torch.nan)}
    without_labels = {
        task: label.masked_fill(is_unlabelled, torch.nan if label.is_floating_point() else -1)
        for task, label in without_purchase.items()
    }
    other_inputs = {group: (numbers.clone(), ids) for group, (numbers, ids) in batch.inputs.items()}
    for numbers, _ in other_inputs.values():
        numbers[is_unlabelled] = 1e6

    def find_affected(labels: dict[str, Tensor]) -> list[str]:
        """The parameters whose gradient depends on the inputs of those rows."""
        directions = []
        for inputs in (batch.inputs, other_inputs):
            torch.manual_seed(seed)
            directions.append(find_direction(learner, Batch(inputs, labels)))
        return [name for name in directions[0] if not torch.equal(directions[0][name], directions[1][name])]

    assert find_affected(without_labels) == []
    affected = find_affected(without_purchase)
    assert affected
    assert not [name for name in affected if name.startswith("towers.") and "purchase" in name]


@pytest.mark.parametrize("balance", list(ALIASES))
def test_every_method_learns_and_equal_seeds_give_equal_weights(balance: str, seed: int) -> None:
    batch = to_batch(make_examples(80, seed))

    digests = []
    for _ in range(2):
        torch.manual_seed(seed)
        learner = make_learner(balance, seed)
        losses = [sum(learner.train_step(batch).values()) for _ in range(5)]
        digests.append(hash_weights(learner.network.state_dict()))

    assert losses[-1] < losses[0]
    assert digests[0] == digests[1]


def test_a_priority_scales_the_gradient_of_its_task() -> None:
    batch = to_batch(make_examples(60, 3))
    doubled = tuple(replace(task, weight=2.0) if task.name == "fraud" else task for task in TASKS)
    config = PLAN.model_copy(update={"learning_rate": 1e-9})
    learners = [Learner(network=make_task_network(tasks), config=config) for tasks in (TASKS, doubled)]

    norms = []
    for learner in learners:
        learner.optimizer.zero_grad()
        learner.balancer.backward(learner._weigh_losses(compute_task_losses(learner.network, batch)))
        named = learner.network.named_parameters()
        norms.append({name: p.grad.norm().item() for name, p in named if "towers." in name and p.grad is not None})

    for name in norms[0]:
        assert norms[1][name] == pytest.approx(norms[0][name] * (2 if "fraud" in name else 1), rel=1e-4)


def test_dwa_changes_weights_from_the_third_epoch_on() -> None:
    examples = make_examples(120, 3)

    losses = {
        balance: [
            epoch.losses
            for epoch in fit_epochs(examples, PLAN.model_copy(update={"balance": balance, "epochs": 3, "patience": 9}))
        ]
        for balance in ("static", "dwa")
    }

    assert losses["dwa"][:2] == losses["static"][:2]
    assert losses["dwa"][2] != losses["static"][2]


def fit_epochs(examples: Examples, config: TrainingConfig) -> list[Epoch]:
    epochs = list[Epoch]()
    fit(examples, SHAPE, config, epochs.append)
    return epochs


def test_uncertainty_learns_its_own_weights(seed: int) -> None:
    batch, learner = to_batch(make_examples(80, seed)), make_learner("uncertainty", seed)
    static = Learner(network=learner.network, config=PLAN)
    name = next(
        name for name, _ in learner.network.named_parameters() if name.startswith("towers.") and "click" in name
    )

    def share() -> float:
        return float(find_direction(learner, batch)[name].norm() / find_direction(static, batch)[name].norm())

    before = share()
    for _ in range(5):
        learner.train_step(batch)

    assert before == pytest.approx(0.5, rel=1e-4)
    assert share() != pytest.approx(0.5, rel=1e-3)


def test_towers_belong_to_one_task_and_experts_are_shared() -> None:
    network = make_network()
    names = {id(p): name for name, p in network.named_parameters()}

    parameters = SharedParameters(network)

    own, shared = ({names[id(p)] for p in part} for part in (parameters.own, parameters.shared))
    assert any("fraud" in name for name in own if name.startswith("towers."))
    assert any(name.startswith("levels.") for name in shared)
    assert own.isdisjoint(shared)


@pytest.mark.parametrize("balance", ["pcgrad", "upgrad"])
def test_tasks_without_shared_parameters_need_no_balancing(balance: str, seed: int) -> None:
    batch = to_batch(make_examples(60, seed))
    actual = find_direction(make_learner(balance, seed, architecture="single"), batch)
    expected = find_direction(make_learner("static", seed, architecture="single"), batch)

    assert all(torch.allclose(actual[name], expected[name], atol=1e-6) for name in expected if "fraud" in name)


def test_finding_shared_parameters_leaves_the_random_state_unchanged() -> None:
    network = make_network(shape=SHAPE.model_copy(update={"dropout": 0.5})).train()
    before = torch.get_rng_state()

    SharedParameters(network)

    assert torch.equal(torch.get_rng_state(), before)
    assert network.training


@pytest.mark.parametrize("balance", ["nonsense", "Aggregator", "TrimmedMean", "DWA(cold=1)", "Sum()()", ""])
def test_an_unknown_balance_is_rejected_when_settings_are_read(balance: str) -> None:
    with pytest.raises(BadConfig, match="`balance` should"):
        check_balance(TrainingConfig(balance=balance))


@pytest.mark.parametrize("balance", [*ALIASES, *OTHER_BALANCERS])
def test_other_torchjd_methods_go_by_their_class_names(balance: str) -> None:
    method, _ = create_method(balance, 5)

    assert type(method).__module__.startswith("torchjd.")


def test_a_loss_that_is_not_finite_raises_with_the_task_name(seed: int) -> None:
    learner = make_learner("static", seed)
    with torch.no_grad():
        next(p for n, p in learner.network.named_parameters() if n.startswith("towers.") and "fraud" in n).fill_(
            torch.nan
        )

    with pytest.raises(BadData, match="The loss of `fraud` should be finite"):
        learner.train_step(to_batch(make_examples(60, seed)))


FOCUS_TASKS = (CLICK, FRAUD, replace(CATEGORY, weight=2.0))


def test_hard_tasks_get_more_weight_and_the_sum_of_weights_stays() -> None:
    evaluation = {"click": {"gain": 0.5}, "fraud": {"gain": 0.0}, "category": {"gain": 0.9}}

    actual = prioritize_tasks(FOCUS_TASKS, evaluation, 1.0)

    assert sum(actual.values()) == pytest.approx(4)
    assert actual["fraud"] == pytest.approx(2 * actual["click"])
    assert actual["category"] == pytest.approx(2 * actual["click"] * 0.1 / 0.5)


def test_a_task_without_a_gain_keeps_its_weight() -> None:
    evaluation = {"click": {"gain": 0.5}, "fraud": {"gain": 0.2}, "category": {"rows": 3.0}}

    actual = prioritize_tasks(FOCUS_TASKS, evaluation, 2.0)

    assert actual["category"] == 2
    assert actual["click"] + actual["fraud"] == pytest.approx(2)


@pytest.mark.parametrize("gains", [(-3.0, 0.4, 0.8), (1.0, 1.0, 1.0), (1.5, 0.0, 0.5)])
def test_gains_outside_0_to_1_give_valid_weights(gains: tuple[float, ...]) -> None:
    evaluation = {task.name: {"gain": gain} for task, gain in zip(FOCUS_TASKS, gains, strict=True)}

    actual = prioritize_tasks(FOCUS_TASKS, evaluation, 1.0)

    assert sum(actual.values()) == pytest.approx(4)
    assert min(actual.values()) >= 0


def test_focus_0_keeps_the_declared_weights() -> None:
    evaluation = {"click": {"gain": 0.3}, "fraud": {"gain": 0.7}, "category": {"gain": -1.0}}

    assert prioritize_tasks(FOCUS_TASKS, evaluation, 0.0) == {"click": 1.0, "fraud": 1.0, "category": 2.0}


def test_focus_changes_training_from_the_second_epoch_on(seed: int) -> None:
    config = PLAN.model_copy(update={"epochs": 2, "batch": 16})

    first, second = fit_epochs(make_examples(600, seed), config)
    focused_first, focused_second = fit_epochs(make_examples(600, seed), config.model_copy(update={"focus": 4.0}))

    assert first.losses == focused_first.losses
    assert second.losses != focused_second.losses
    assert first.weights == {}
    assert len(set(focused_first.weights.values())) > 1
