"""Balancing: what each name does to the direction of a step, and what it never does."""

import pytest
import torch
from msgspec.structs import replace
from torch import Tensor

from contract.errors import BadConfig, BadData
from contract.settings import TrainingConfig
from contract.tasks import Task
from model.checkpoint import hash_weights
from model.network import Network
from tests.model.small import SHAPE, TASKS, make_network
from tests.training.examples import PLAN, make_examples
from training.data.examples import Examples
from training.trainer.config import check_balance
from training.trainer.fit import Epoch, fit
from training.trainer.learner import Batch, Learner, compute_task_losses, to_batch
from training.trainer.loss_balancing import ALIASES, create_method
from training.trainer.shared_parameters import SharedParameters

OTHER_BALANCERS = ("Mean", "MGDA", "DWA(temperature=1.0)", "Constant(weights=[1.0, 2.0, 1.0, 1.0, 1.0])", "FAMO")


def make_learner(balance: str, seed: int, **shape: object) -> Learner:
    network = make_network(seed=seed, shape=SHAPE.model_copy(update=shape))
    return Learner(network=network.train(), plan=PLAN.model_copy(update={"balance": balance}))


def find_direction(learner: Learner, batch: Batch) -> dict[str, Tensor]:
    """The direction that balancing gives each parameter, before a step is shortened; zero where it gives none."""
    learner.optimizer.zero_grad()
    learner.balancer.backward(compute_task_losses(learner.network, batch))
    named = learner.network.named_parameters()
    return {name: torch.zeros_like(p) if p.grad is None else p.grad.clone() for name, p in named}


def test_static_goes_down_the_sum_of_the_losses(seed: int) -> None:
    batch, learner = to_batch(make_examples(60, seed)), make_learner("static", seed)

    actual = find_direction(learner, batch)

    learner.optimizer.zero_grad()
    torch.autograd.backward(torch.stack(list(compute_task_losses(learner.network, batch).values())).sum())
    for name, parameter in learner.network.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(actual[name], parameter.grad)


@pytest.mark.parametrize("balance", ["pcgrad", "upgrad"])
def test_what_one_task_alone_reaches_follows_its_own_gradient(balance: str, seed: int) -> None:
    batch = to_batch(make_examples(60, seed))
    static, other = make_learner("static", seed), make_learner(balance, seed)

    expected, actual = find_direction(static, batch), find_direction(other, batch)

    towers = [name for name in expected if name.startswith("towers.") and "fraud" in name]
    assert towers
    for name in towers:
        torch.testing.assert_close(actual[name], expected[name])
    assert any(not torch.allclose(actual[name], expected[name]) for name in expected)


def test_upgrad_makes_no_task_worse_where_the_mere_sum_does(seed: int) -> None:
    batch = to_batch(make_examples(120, seed))
    rises = dict[str, Tensor]()

    for balance in ("static", "upgrad"):
        learner = make_learner(balance, seed)
        actual = compute_task_losses(learner.network, batch)
        losses = {"click": 3 * actual["click"], "fraud": actual["fraud"] - actual["click"]}  # the one harms the other
        rows = torch.stack([SharedParameters(learner.network).compute_gradients(loss)[0] for loss in losses.values()])
        learner.balancer.backward(losses)
        shared = SharedParameters(learner.network).shared
        direction = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).reshape(-1) for p in shared])
        rises[balance] = rows @ direction / rows.norm(dim=1) / rows.norm(dim=1).max()

    assert rises["static"].min() < -0.1
    assert rises["upgrad"].min() > -0.01


def make_task_network(tasks: tuple[Task, ...]) -> Network:
    return make_network(tasks=tasks, seed=2).train()


@pytest.mark.parametrize("balance", [*ALIASES, *OTHER_BALANCERS])
def test_a_task_without_labels_in_a_batch_moves_nothing_of_its_own_and_breaks_nothing(balance: str, seed: int) -> None:
    examples = make_examples(80, seed)
    rows = to_batch(
        examples.take(~examples.has_label(TASKS[2]))
    )  # nobody's rows are left for fraud, clicks' for purchases
    batch = Batch(rows.inputs, {**rows.labels, "purchase": torch.full_like(rows.labels["purchase"], torch.nan)})
    learner = make_learner(balance, seed)

    actual = find_direction(learner, batch)
    told = learner.train_step(batch)

    assert told.keys() == {"click", "relevance", "category"}
    assert all(value.isfinite().all() for value in actual.values())
    for task in ("fraud", "purchase"):
        assert not any(value.any() for name, value in actual.items() if name.startswith("towers.") and task in name)
    assert any(value.any() for name, value in actual.items() if name.startswith("towers.") and "click" in name)


@pytest.mark.parametrize("balance", list(ALIASES))
def test_a_row_moves_nothing_of_a_task_whose_label_it_lacks(balance: str, seed: int) -> None:
    batch, learner = to_batch(make_examples(80, seed)), make_learner(balance, seed)
    lacking = torch.arange(80) % 2 == 1
    some = {**batch.labels, "purchase": batch.labels["purchase"].masked_fill(lacking, torch.nan)}
    none = {
        task: label.masked_fill(lacking, torch.nan if label.is_floating_point() else -1) for task, label in some.items()
    }
    other = {group: (numbers.clone(), ids) for group, (numbers, ids) in batch.inputs.items()}
    for numbers, _ in other.values():
        numbers[lacking] = 1e6

    def moved(labels: dict[str, Tensor]) -> list[str]:
        """The parameters whose direction the inputs of those rows change, by whatever little."""
        found = []
        for inputs in (batch.inputs, other):
            torch.manual_seed(seed)
            found.append(find_direction(learner, Batch(inputs, labels)))
        return [name for name in found[0] if not torch.equal(found[0][name], found[1][name])]

    assert moved(none) == []
    of_some = moved(some)
    assert of_some
    assert not [name for name in of_some if name.startswith("towers.") and "purchase" in name]


@pytest.mark.parametrize("balance", list(ALIASES))
def test_every_name_learns_and_equal_seeds_give_equal_weights(balance: str, seed: int) -> None:
    batch = to_batch(make_examples(80, seed))

    ends = []
    for _ in range(2):
        torch.manual_seed(seed)
        learner = make_learner(balance, seed)
        losses = [sum(learner.train_step(batch).values()) for _ in range(5)]
        ends.append(hash_weights(learner.network.state_dict()))

    assert losses[-1] < losses[0]
    assert ends[0] == ends[1]


def test_a_priority_scales_its_task() -> None:
    batch = to_batch(make_examples(60, 3))
    twice = tuple(replace(task, weight=2.0) if task.name == "fraud" else task for task in TASKS)
    learners = [
        Learner(network=make_task_network(tasks), plan=PLAN.model_copy(update={"learning_rate": 1e-9}))
        for tasks in (TASKS, twice)
    ]

    norms = []
    for learner in learners:
        learner.optimizer.zero_grad()
        learner.balancer.backward(learner._weigh_losses(compute_task_losses(learner.network, batch)))
        named = learner.network.named_parameters()
        norms.append({name: p.grad.norm().item() for name, p in named if "towers." in name and p.grad is not None})

    for name in norms[0]:
        assert norms[1][name] == pytest.approx(norms[0][name] * (2 if "fraud" in name else 1), rel=1e-4)


def test_dwa_weighs_anew_from_the_third_epoch_on() -> None:
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


def fit_epochs(examples: Examples, plan: TrainingConfig) -> list[Epoch]:
    epochs = list[Epoch]()
    fit(examples, SHAPE, plan, epochs.append)
    return epochs


def test_uncertainty_learns_its_own_weights(seed: int) -> None:
    batch, learner = to_batch(make_examples(80, seed)), make_learner("uncertainty", seed)
    static = Learner(network=learner.network, plan=PLAN)
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


def test_the_towers_are_tasks_own_and_experts_are_shared() -> None:
    network = make_network()
    names = {id(p): name for name, p in network.named_parameters()}

    reach = SharedParameters(network)

    own, shared = ({names[id(p)] for p in of} for of in (reach.own, reach.shared))
    assert any("fraud" in name for name in own if name.startswith("towers."))
    assert any(name.startswith("levels.") for name in shared)
    assert own.isdisjoint(shared)


@pytest.mark.parametrize("balance", ["pcgrad", "upgrad"])
def test_tasks_that_share_nothing_have_nothing_to_balance(balance: str, seed: int) -> None:
    batch = to_batch(make_examples(60, seed))
    actual = find_direction(make_learner(balance, seed, architecture="single"), batch)
    expected = find_direction(make_learner("static", seed, architecture="single"), batch)

    assert all(torch.allclose(actual[name], expected[name], atol=1e-6) for name in expected if "fraud" in name)


def test_asking_what_is_shared_draws_nothing_by_chance() -> None:
    network = make_network(shape=SHAPE.model_copy(update={"dropout": 0.5})).train()
    before = torch.get_rng_state()

    SharedParameters(network)

    assert torch.equal(torch.get_rng_state(), before)
    assert network.training


@pytest.mark.parametrize("balance", ["nonsense", "Aggregator", "TrimmedMean", "DWA(cold=1)", "Sum()()", ""])
def test_a_balance_that_torchjd_does_not_have_is_told_before_anything_is_read(balance: str) -> None:
    with pytest.raises(BadConfig, match="`balance` should"):
        check_balance(TrainingConfig(balance=balance))


@pytest.mark.parametrize("balance", [*ALIASES, *OTHER_BALANCERS])
def test_other_methods_are_passed_through_by_their_own_names(balance: str) -> None:
    method, _ = create_method(balance, 5)

    assert type(method).__module__.startswith("torchjd.")


def test_a_loss_that_is_not_finite_stops_learning_with_the_task_s_name(seed: int) -> None:
    learner = make_learner("static", seed)
    with torch.no_grad():
        next(p for n, p in learner.network.named_parameters() if n.startswith("towers.") and "fraud" in n).fill_(
            torch.nan
        )

    with pytest.raises(BadData, match="The loss of `fraud` should be finite"):
        learner.train_step(to_batch(make_examples(60, seed)))
