import numpy as np
import torch

from tests.model.small import FEATURES, TASKS, make_network
from tests.training.made import PLAN, make_examples
from training.gentle import beside, gentle_learner
from training.judges import JUDGES_OF, parted
from training.learner import Batch, as_batch
from training.sample import sample_of
from training.split import family_of
from training.table import read_examples


def test_the_same_users_judge_whatever_examples_there_are() -> None:
    few, many = make_examples(100, 1), make_examples(900, 2)
    for examples in (few, many):
        examples.user_id[:] = [f"u{at % 60}" for at in range(len(examples))]

    judges, more = parted(few), parted(many)

    assert set(judges.judging.user_id) <= set(more.judging.user_id)
    assert not set(more.judging.user_id) & set(more.learned.user_id)
    assert len(more.judging) + len(more.learned) == len(many)
    assert 0.5 / JUDGES_OF < len(more.judging) / len(many) < 2 / JUDGES_OF


def test_rows_of_nobody_are_parted_by_their_own_names() -> None:
    examples = make_examples(400, 1)
    examples.user_id[:] = ""

    learned, judging = parted(examples)

    assert 40 < len(judging) < 120
    assert len(learned) + len(judging) == 400


def test_of_each_family_as_many_are_kept_as_there_is_room_for() -> None:
    examples = make_examples(1_000, 1)

    kept = read_examples(sample_of(examples, 400, 7), FEATURES, TASKS)

    before, after = np.bincount(family_of(examples)), np.bincount(family_of(kept))
    assert len(kept) == 400
    rare = before[before > 0].min()
    assert after[after > 0].min() >= min(rare, 400 // (before > 0).sum())


def test_both_batches_are_one_with_the_weights_of_either() -> None:
    examples = make_examples(60, 1)
    new, kept = as_batch(examples, np.arange(20)), as_batch(examples, np.arange(20, 60))
    weighted = Batch(new.inputs, new.labels, {"click": torch.full((20,), 0.5)})

    both = beside(weighted, kept)

    whole = as_batch(examples)
    assert torch.equal(both.labels["category"], whole.labels["category"])
    assert torch.equal(both.inputs["user"][1], whole.inputs["user"][1])
    assert both.weights["click"].tolist() == [0.5] * 20 + [1.0] * 40


def test_an_update_has_its_own_rate_whatever_the_optimizer_remembers() -> None:
    network = make_network()
    state = torch.optim.AdamW(network.parameters(), lr=0.7).state_dict()

    learner = gentle_learner(network, state, PLAN)

    assert {group["lr"] for group in learner.optimizer.param_groups} == {PLAN.learning_rate * PLAN.update_rate}


def test_what_calibration_has_put_right_is_not_learned_again() -> None:
    # Given labels that a network says rightly only once it is calibrated
    network = make_network(tasks=TASKS[:1])
    network.calibrator(TASKS[0]).set([1.0, 1.0, 2.0])
    batch = as_batch(make_examples(400, 1).for_tasks(TASKS[:1]))

    # Then the losses while an update learns are those of what is answered
    calibrated = gentle_learner(network, {}, PLAN)
    plain = gentle_learner(network, {}, PLAN)
    plain.calibrated = False
    assert calibrated.learn(batch)["click"] != plain.learn(batch)["click"]
