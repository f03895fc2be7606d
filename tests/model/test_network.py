import numpy as np
import pytest
import torch
from torch import Tensor

from contract.features.declaration import Block
from contract.settings.model import ModelConfig
from contract.tasks import Task
from model.feature_statistics import NumberStatistics
from model.heads import compute_probabilities
from model.network import NumberEncoder, VectorEncoder, mean_pool
from tests.model.small import (
    CATEGORY,
    CLICK,
    DEMAND,
    FEATURES,
    SHAPE,
    TASKS,
    draw_blocks,
    make_network,
    to_inputs,
)

EXTREME_NUMBERS = (np.nan, np.inf, -np.inf, 3.4e38, -3.4e38, 0.0)
EXTREME_IDS = (0, -1, 1, 2**63 - 1, -(2**63))


def fill_blocks(blocks: dict[str, Block], number: float, ident: int) -> dict[str, Block]:
    return {g: Block(np.full_like(b.numbers, number), np.full_like(b.ids, ident)) for g, b in blocks.items()}


@torch.no_grad()
def test_every_task_gives_every_row_a_probability(seed: int) -> None:
    network = make_network(seed=seed)

    answers = network(to_inputs(draw_blocks(7, seed)))

    assert {name: tuple(answer.shape) for name, answer in answers.items()} == {
        "click": (7,),
        "purchase": (7,),
        "fraud": (7,),
        "relevance": (7,),
        "category": (7, 3),
    }
    assert all(((answer >= 0) & (answer <= 1)).all() for answer in answers.values())
    torch.testing.assert_close(answers["category"].sum(1), torch.ones(7))


@pytest.mark.parametrize("number", EXTREME_NUMBERS)
@pytest.mark.parametrize("ident", EXTREME_IDS)
@torch.no_grad()
def test_extreme_inputs_give_finite_outputs(number: float, ident: int, seed: int) -> None:
    network = make_network(seed=seed, tasks=(*TASKS, DEMAND))

    answers = network(to_inputs(fill_blocks(draw_blocks(3, seed), number, ident)))

    assert all(answer.isfinite().all() for answer in answers.values())


@torch.no_grad()
def test_an_extreme_row_does_not_change_other_rows(seed: int) -> None:
    network, blocks = make_network(seed=seed), draw_blocks(4, seed)
    usual = network(to_inputs(blocks))

    for block in blocks.values():
        block.numbers[0], block.ids[0] = np.inf, -(2**63)
    changed = network(to_inputs(blocks))

    for name, answer in usual.items():
        torch.testing.assert_close(changed[name][1:], answer[1:])


@torch.no_grad()
def test_a_purchase_is_never_more_likely_than_its_click(seed: int) -> None:
    network = make_network(seed=seed)

    answers = network(to_inputs(draw_blocks(500, seed)))

    assert (answers["purchase"] <= answers["click"]).all()


@torch.no_grad()
def test_hidden_features_do_not_change_an_output(seed: int) -> None:
    network, blocks = make_network(seed=seed), draw_blocks(20, seed)
    before = network(to_inputs(blocks))

    blocks["item"].ids[:, :2] += 1  # the item's id and its category
    after = network(to_inputs(blocks))

    torch.testing.assert_close(after["category"], before["category"], rtol=0, atol=0)
    assert not torch.allclose(after["click"], before["click"])


@torch.no_grad()
def test_visible_features_change_an_output(seed: int) -> None:
    network, blocks = make_network(seed=seed), draw_blocks(20, seed)
    before = network(to_inputs(blocks))

    blocks["item"].ids[:, 2:] += 1  # the title
    blocks["item"].numbers[:] += 1
    after = network(to_inputs(blocks))

    assert not torch.allclose(after["category"], before["category"])


@torch.no_grad()
def test_a_hidden_number_counts_as_unknown(seed: int) -> None:
    blind = Task("category", "multiclass", ("item",), "classify", hide=("item", "kind", "price"))
    network, blocks = make_network(seed=seed, tasks=(blind,)), draw_blocks(20, seed)
    before = network(to_inputs(blocks))

    blocks["item"].numbers[:] = np.nan
    after = network(to_inputs(blocks))

    torch.testing.assert_close(after["category"], before["category"], rtol=0, atol=0)


@torch.no_grad()
def test_item_parts_computed_once_give_the_outputs_of_the_whole_network(seed: int) -> None:
    network, inputs = make_network(seed=seed), to_inputs(draw_blocks(40, seed))
    whole, view = network(inputs), network.views[0]

    user = torch.tensor([3, 0, 3])
    item = torch.tensor([7, 8, 7])
    items = network.group_part("item", *inputs["item"])
    parts = [network.group_part(group, *inputs[group])[user] for group in ("user", "context")]
    split = compute_probabilities(view.tasks, network.logits(view, [*parts, items[item]]), network.scale)

    paired = {group: (n[item], i[item]) if group == "item" else (n[user], i[user]) for group, (n, i) in inputs.items()}
    torch.testing.assert_close(split["click"], network(paired)["click"], rtol=0, atol=1e-6)
    assert not torch.allclose(split["click"], whole["click"][user])


@pytest.mark.parametrize(
    "shape", [ModelConfig(experts=1), ModelConfig(factors=0), ModelConfig(embedding=1, hidden=1, tower=1)]
)
@torch.no_grad()
def test_degenerate_widths_are_valid(shape: ModelConfig, seed: int) -> None:
    network = make_network(seed=seed, shape=shape)

    answers = network(to_inputs(draw_blocks(5, seed)))

    assert answers.keys() == {task.name for task in TASKS}


def test_tasks_with_equal_inputs_share_a_view() -> None:
    network = make_network(tasks=(*TASKS, DEMAND))

    assert [tuple(task.name for task in view.tasks) for view in network.views] == [
        ("click", "purchase"),
        ("fraud",),
        ("relevance",),
        ("category",),
        ("demand",),
    ]


@torch.no_grad()
def test_mean_pool_ignores_zeros_and_gives_row_0_for_zeros_only() -> None:
    table = torch.arange(20.0).reshape(10, 2)

    actual = mean_pool(table, torch.tensor([[0, 0, 0], [4, 0, 0], [4, 6, 0], [0, 9, 0]]))

    expected: list[Tensor] = [table[0], table[4], (table[4] + table[6]) / 2, table[9]]
    torch.testing.assert_close(actual, torch.stack(expected))


@torch.no_grad()
def test_numbers_are_clipped_standardised_and_flagged_if_unknown() -> None:
    numbers = NumberEncoder([NumberStatistics(0, 10, False, 5, 5), NumberStatistics(0, 100, True, 0, 1)])

    actual = numbers(torch.tensor([[5.0, 0.0], [1e9, 1e9], [float("nan"), float("inf")], [-1e9, -float("inf")]]))

    most = float(np.log(101))
    torch.testing.assert_close(
        actual,
        torch.tensor([[0.0, 0, 0, 0], [1, most, 0, 0], [0, most, 1, 0], [-1, 0, 0, 0]]),
    )


def test_only_ids_of_the_inputs_get_random_embeddings(seed: int) -> None:
    network, blocks = make_network(seed=seed, tasks=(CLICK, CATEGORY)), draw_blocks(5, seed)
    with torch.no_grad():
        for table in network.tables.values():
            table.zero_()

    network.init_embeddings(to_inputs({"item": blocks["item"]}))

    item_feature, recent_feature = FEATURES.spans("item")[0].feature, FEATURES.spans("user")[0].feature
    item, recent = network.embedding_table(item_feature), network.embedding_table(recent_feature)
    seen_rows = network.embedding_rows(item_feature, torch.from_numpy(blocks["item"].ids[:, 0]))
    assert set(item.abs().sum(1).nonzero()[:, 0].tolist()) == set(seen_rows.tolist())
    assert not recent.any()
    assert item.shape[1] == SHAPE.embedding


@torch.no_grad()
def test_bins_fill_from_below_and_stay_empty_for_unknown_numbers() -> None:
    numbers = NumberEncoder([NumberStatistics(0, 10, False, 0, 1, (0, 2, 4, 10)), NumberStatistics(0, 1)])

    actual = numbers(torch.tensor([[3.0, 1], [99.0, 1], [-1.0, 1], [float("nan"), 1], [-float("inf"), 1]]))[:, 4:]

    torch.testing.assert_close(actual, torch.tensor([[1, 0.5, 0], [1, 1, 1], [0, 0, 0], [0, 0, 0], [0, 0, 0]]))


@torch.no_grad()
def test_a_vector_with_an_unknown_component_is_unknown_as_a_whole() -> None:
    vectors = VectorEncoder([NumberStatistics(mean=1, deviation=2)] * 3, [2, 1])
    nan, inf = float("nan"), float("inf")

    actual = vectors(torch.tensor([[3.0, 1, 5], [nan, 1, 5], [3, inf, 5], [3, 1, nan], [3e38, 1, 5]]))

    expected = [[1.0, 0, 2, 0, 0], [0, 0, 2, 1, 0], [0, 0, 2, 1, 0], [1, 0, 0, 0, 1], [8, 0, 2, 0, 0]]
    torch.testing.assert_close(actual, torch.tensor(expected))
