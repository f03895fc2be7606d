"""Position bias: what the place of an item explains is not learned as a property of the item."""

from dataclasses import replace

import numpy as np
import torch
from scipy.special import expit
from scipy.stats import spearmanr

from contract.arrays import Floats
from contract.features.declaration import GROUPS
from contract.settings.model import ModelConfig
from contract.settings.training import TrainingConfig
from model.checkpoint import Checkpoint
from model.network import Network
from model.position_bias import PLACES_MAX, SPEED, PositionBias
from tests.model.small import CLICK, FEATURES, PURCHASE, make_checkpoint, make_network
from tests.training.examples import make_examples
from training.data.examples import NO_PLACE, Examples, from_rows
from training.data.parquet import read_examples, to_parquet
from training.trainer.fit import fit
from training.trainer.learner import Learner, predict

LIST_LENGTH, KINDS = 10, 5
KIND_COLUMN = 1  # of the ids of an item
CONFIG = TrainingConfig(batch=256, epochs=6, held_out=0.2, learning_rate=0.01)
SHAPE = ModelConfig(embedding=2, hidden=16, expert=16, tower=8, factors=0, experts=1)


def simulate_lists(rows: int, seed: int) -> tuple[Examples, Floats]:
    """Examples of lists that show some kinds of items above others, and the quality of each row's item.

    Quality is a number of the item; its kind changes nothing but the place.
    """
    rng = np.random.default_rng(seed)
    quality, kind = rng.uniform(-1, 1, rows), rng.integers(0, KINDS, rows)
    place = np.clip(kind * LIST_LENGTH / KINDS + rng.normal(0, 1.5, rows), 0, LIST_LENGTH - 1).astype(np.int64)
    click = rng.random(rows) < expit(1.0 + 1.5 * quality - 0.5 * place)
    blocks = {group: FEATURES.empty_block(group, rows) for group in GROUPS}
    blocks["item"].numbers[:, 0] = quality
    blocks["item"].ids[:, KIND_COLUMN] = kind + 1
    names = np.arange(rows).astype(str).astype(object)
    examples = Examples(
        features=FEATURES,
        tasks=(CLICK,),
        classes={},
        blocks=blocks,
        labels={"click": click.astype(np.float32)},
        known_ms={"click": np.arange(rows)},
        example_id=names,
        revision=np.zeros(rows, np.int64),
        event_id=names,
        user_id=names,
        item_id=names,
        ts_ms=np.arange(rows),
        place=place,
    )
    return examples, quality


def train(examples: Examples) -> Network:
    return fit(examples, SHAPE, CONFIG, lambda epoch: None).network.eval()


def measure_order(network: Network, examples: Examples, quality: Floats) -> float:
    """Spearman's correlation of predictions and true quality."""
    return float(spearmanr(predict(network, examples)["click"], quality).statistic)


def test_a_simulated_position_bias_is_removed_and_without_places_it_is_learned_as_the_items(seed: int) -> None:
    # given lists that show some kinds of items above others, whatever their quality
    examples, quality = simulate_lists(6_000, seed)
    blind = replace(examples, place=np.full(len(examples), NO_PLACE))

    # when
    corrected, uncorrected = train(examples), train(blind)

    # then the true order is recovered, and without places it is not
    assert measure_order(corrected, examples, quality) > 0.9
    assert measure_order(uncorrected, blind, quality) < 0.7
    # and the learned bias falls with the place
    bias = corrected.positions["of_click"](torch.zeros(LIST_LENGTH), torch.arange(LIST_LENGTH)).detach().numpy()
    assert bias[0] - bias[LIST_LENGTH - 1] > 3
    assert not uncorrected.get_parameter("positions.of_click.by_place").any()


def test_predictions_know_no_place(seed: int) -> None:
    examples, _ = simulate_lists(200, seed)
    network = make_network(tasks=(CLICK,))
    with torch.no_grad():
        network.get_parameter("positions.of_click.by_place").fill_(5.0)
    elsewhere = replace(examples, place=examples.place[::-1])

    np.testing.assert_array_equal(predict(network, examples)["click"], predict(network, elsewhere)["click"])


def test_unknown_places_change_nothing_and_far_ones_share_a_number() -> None:
    bias = PositionBias()
    with torch.no_grad():
        bias.by_place.copy_(torch.arange(float(PLACES_MAX)) / SPEED)
    place = torch.tensor([NO_PLACE, 0, 3, PLACES_MAX - 1, 10**9])

    expected = torch.tensor([1.0, 1, 4, PLACES_MAX, PLACES_MAX])
    torch.testing.assert_close(bias(torch.ones(5), place), expected)
    torch.testing.assert_close(bias(torch.ones(5, 2), place), expected[:, None].expand(5, 2))


def test_tasks_that_go_through_a_click_have_no_bias_of_their_own() -> None:
    assert {name.split(".")[1] for name, _ in make_network().named_parameters() if name.startswith("positions.")} == {
        "of_click"
    }
    assert PURCHASE.through == CLICK.name


def test_places_survive_a_file_and_files_without_them_have_none(seed: int) -> None:
    # given
    examples, _ = simulate_lists(50, seed)

    # when
    again = read_examples(to_parquet(examples), FEATURES, (CLICK,))
    from_messages = from_rows(examples.to_rows(), FEATURES, (CLICK,))
    unknown = from_rows(make_examples(50, seed).to_rows(), FEATURES, (CLICK,))

    # then
    assert again.place.tolist() == from_messages.place.tolist() == examples.place.tolist()
    assert set(unknown.place.tolist()) == {NO_PLACE}


def test_a_checkpoint_from_before_is_read_with_biases_of_0_and_goes_on_learning() -> None:
    # given a checkpoint without biases, with the state of its optimizer
    present = make_network()
    learner = Learner(network=present, config=CONFIG)
    checkpoint = make_checkpoint(present)
    old_weights = {name: value for name, value in checkpoint.weights.items() if not name.startswith("positions.")}
    state = learner.optimizer.state_dict()
    count = len(state["param_groups"][0]["params"]) - 1
    old_state = {**state, "param_groups": [{**state["param_groups"][0], "params": list(range(count))}]}
    old = Checkpoint(metadata=checkpoint.metadata, weights=old_weights, optimizer=old_state)

    # when
    network = old.build_network()
    updated = Learner(network=network, config=CONFIG, state=old.optimizer)

    # then
    assert not network.get_parameter("positions.of_click.by_place").any()
    assert len(updated.optimizer.state_dict()["param_groups"][0]["params"]) == count + 1
