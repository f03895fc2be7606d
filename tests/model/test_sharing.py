"""Which parameters tasks share, by architecture, groups and experts, tested through gradients."""

import pytest
import torch
from msgspec.structs import replace
from torch import Tensor

from contract.errors import BadConfig
from contract.settings.model import ModelConfig
from contract.tasks import Task
from model.config import check_tasks
from model.network import Network
from tests.model.small import (
    CATEGORY,
    CLICK,
    DEMAND,
    FEATURES,
    FRAUD,
    PURCHASE,
    RELEVANCE,
    SHAPE,
    SHAPES,
    TASKS,
    draw_blocks,
    make_network,
    to_inputs,
)


def find_reached_parameters(network: Network, *tasks: Task) -> set[str]:
    """The parameters that the logits of these tasks depend on."""
    inputs = to_inputs(draw_blocks(20, 1))
    logits: dict[str, Tensor] = {}
    for view in network.views:
        logits |= network.logits(view, network.group_parts(view, inputs))
    network.zero_grad()
    torch.autograd.backward(torch.stack([logits[task.name].square().sum() for task in tasks]).sum())
    return {n for n, p in network.named_parameters() if p.grad is not None and bool(p.grad.any())}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@torch.no_grad()
def test_every_architecture_predicts_every_kind_of_task(shape: ModelConfig, seed: int) -> None:
    network = make_network(seed=seed, shape=shape, tasks=(*TASKS, DEMAND))

    answers = network(to_inputs(draw_blocks(7, seed)))

    assert {name: tuple(answer.shape) for name, answer in answers.items()} == {
        task.name: (7, 3) if task == CATEGORY else (7,) for task in (*TASKS, DEMAND)
    }
    assert all(answer.isfinite().all() for answer in answers.values())
    assert (answers["purchase"] <= answers["click"]).all()


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@torch.no_grad()
def test_an_item_part_computed_once_gives_the_logits_of_the_whole_network(shape: ModelConfig, seed: int) -> None:
    network, inputs = make_network(seed=seed, shape=shape), to_inputs(draw_blocks(9, seed))

    items = network.item_parts(*inputs["item"])

    for view in (view for view in network.views if view.graph in ("recommend", "search")):
        others = dict(zip(view.groups, network.group_parts(view, inputs), strict=True))
        split = network.logits(view, [*(others[g] for g in view.groups if g != "item"), network.item_part(view, items)])
        whole = network.logits(view, network.group_parts(view, inputs))
        for task in view.tasks:
            torch.testing.assert_close(split[task.name], whole[task.name], rtol=0, atol=1e-5)


def test_the_single_architecture_shares_no_parameters(seed: int) -> None:
    network = make_network(seed=seed, shape=SHAPES["single"])

    actual = {task.name: find_reached_parameters(network, task) for task in (FRAUD, RELEVANCE, CATEGORY, CLICK)}

    names = list(actual)
    assert all(not actual[a] & actual[b] for a in names for b in names if a < b)


def test_mmoe_shares_experts_and_ple_adds_experts_of_each_task(seed: int) -> None:
    mmoe, ple = make_network(seed=seed), make_network(seed=seed, shape=SHAPES["ple"])

    assert "levels.0.shared.weight" in find_reached_parameters(mmoe, FRAUD) & find_reached_parameters(mmoe, CLICK)
    assert "levels.0.shared.weight" in find_reached_parameters(ple, FRAUD) & find_reached_parameters(ple, CLICK)
    assert "levels.0.own.of_fraud.weight" in find_reached_parameters(ple, FRAUD) - find_reached_parameters(ple, CLICK)


def test_a_group_that_a_task_reads_alone_has_its_own_layers(seed: int) -> None:
    alone = replace(FRAUD, alone=("user",))
    network = make_network(seed=seed, tasks=(CLICK, PURCHASE, alone))

    fraud, click = find_reached_parameters(network, alone), find_reached_parameters(network, CLICK)

    assert "first.of_fraud/user.part.weight" in fraud - click
    assert "tables.of_fraud/recent" in fraud
    assert "first.of_context.part.weight" in fraud & click
    assert "first.of_user.part.weight" in click - fraud


def test_a_task_mixes_only_its_allowed_experts(seed: int) -> None:
    limited = replace(FRAUD, experts=(1,))
    network = make_network(seed=seed, tasks=(CLICK, limited))

    find_reached_parameters(network, limited)

    shared = network.levels[0].shared.weight.grad  # type: ignore[union-attr]
    first, second = shared.reshape(SHAPE.experts, SHAPE.expert, -1)  # type: ignore[union-attr, operator]
    assert not first.any()
    assert second.any()


@pytest.mark.parametrize(
    ("experts", "sentence"), [((5,), "should mix experts below 2. Found"), ((), "should have some expert")]
)
def test_a_task_without_any_valid_expert_is_refused(experts: tuple[int, ...], sentence: str) -> None:
    with pytest.raises(BadConfig, match=sentence):
        make_network(tasks=(replace(FRAUD, experts=experts),))


def test_groups_to_read_alone_must_be_read_by_the_task_and_its_chain() -> None:
    with pytest.raises(BadConfig, match="should read alone what it reads"):
        check_tasks([replace(FRAUD, alone=("item",))], FEATURES)
    with pytest.raises(BadConfig, match="should read alone what `click` does"):
        check_tasks([CLICK, replace(PURCHASE, alone=("user",))], FEATURES)


@torch.no_grad()
def test_members_differ_and_their_joint_probability_is_the_mean(seed: int) -> None:
    network, inputs = (
        make_network(seed=seed, shape=SHAPE.model_copy(update={"members": 3})),
        to_inputs(draw_blocks(9, seed)),
    )
    view = network.views[1]

    together = network.logits(view, network.group_parts(view, inputs))["fraud"]
    alone = network.train().logits(view, network.group_parts(view, inputs))["fraud"]

    assert alone.shape == (9, 3)
    assert alone.std(1).max() > 0  # for some rows: for the others a narrow tower may output only its bias
    torch.testing.assert_close(together.sigmoid(), alone.sigmoid().mean(1))


@torch.no_grad()
def test_dropout_is_off_in_evaluation_mode(seed: int) -> None:
    network = make_network(seed=seed, shape=SHAPE.model_copy(update={"dropout": 0.5}))
    inputs = to_inputs(draw_blocks(9, seed))

    torch.testing.assert_close(network(inputs), network(inputs), rtol=0, atol=0)

    network.train()
    assert not torch.equal(network(inputs)["fraud"], network(inputs)["fraud"])
