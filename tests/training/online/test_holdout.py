import numpy as np
import torch

from tests.model.small import make_network
from tests.training.examples import PLAN, make_examples
from training.data.examples import Examples
from training.online.holdout import HOLDOUT_MODULUS, split_buffer
from training.online.replay_buffer import ReplayBuffer
from training.online.update_learner import create_update_learner


def make_whole_sample(examples: Examples) -> ReplayBuffer:
    return ReplayBuffer(examples, np.ones(len(examples)))


def test_the_same_users_judge_whatever_examples_there_are() -> None:
    few, many = make_examples(100, 1), make_examples(900, 2)
    for examples in (few, many):
        examples.user_id[:] = [f"u{at % 60}" for at in range(len(examples))]

    judges, more = split_buffer(make_whole_sample(few)), split_buffer(make_whole_sample(many))

    assert set(judges.holdout.user_id) <= set(more.holdout.user_id)
    assert not set(more.holdout.user_id) & set(more.replay.examples.user_id)
    assert len(more.holdout) + len(more.replay.examples) == len(many)
    assert 0.5 / HOLDOUT_MODULUS < len(more.holdout) / len(many) < 2 / HOLDOUT_MODULUS


def test_rows_of_nobody_are_parted_by_their_own_names() -> None:
    examples = make_examples(400, 1)
    examples.user_id[:] = ""

    learned, judging = split_buffer(make_whole_sample(examples))

    assert 40 < len(judging) < 120
    assert len(learned.examples) + len(judging) == 400


def test_an_update_has_its_own_rate_whatever_the_optimizer_remembers() -> None:
    network = make_network()
    state = torch.optim.AdamW(network.parameters(), lr=0.7).state_dict()

    learner = create_update_learner(network, state, PLAN)

    assert {group["lr"] for group in learner.optimizer.param_groups} == {PLAN.learning_rate * PLAN.update_rate}
