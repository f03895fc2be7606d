import numpy as np
import pytest
from msgspec.structs import replace

from contract.errors import BadData
from model.checkpoint import hash_weights
from tests.model.small import CLICK, FRAUD, PURCHASE, SHAPE, TASKS
from tests.training.examples import PLAN, make_examples, make_rows
from training.data.examples import Examples, from_rows
from training.data.split import find_learnable, split_by_time
from training.trainer.evaluation import evaluate, weighted_score
from training.trainer.fit import Epoch, FitResult, fit
from training.trainer.learner import alternating_batches, mixed_batches
from training.trainer.partition import split_held_out


def run_fit(examples: Examples, *, seed: int = 7, epochs: int = 3) -> FitResult:
    return fit(examples, SHAPE, PLAN.model_copy(update={"seed": seed, "epochs": epochs}), lambda epoch: None)


@pytest.fixture(scope="module")
def learned() -> FitResult:
    return run_fit(make_examples(1_500, 3), epochs=8)


def test_every_task_is_learned_from_rows_that_lack_most_labels(learned: FitResult) -> None:
    gains = {task: figures["gain"] for task, figures in learned.evaluation.items()}

    assert learned.left_out == {}
    assert gains["click"] > 0.2
    assert gains["fraud"] > 0.2
    assert gains["relevance"] > 0.1
    assert gains["category"] > 0.2


def test_figures_belong_to_the_kind_of_their_task(learned: FitResult) -> None:
    figures = {task: set(of) for task, of in learned.evaluation.items()}

    assert {"auc", "log_loss", "ece"} <= figures["click"]
    assert "average_precision" in figures["fraud"] - figures["click"]
    assert "ndcg_10" in figures["relevance"]
    assert {"accuracy", "macro_f1"} <= figures["category"]


def test_the_score_is_the_mean_gain_by_priority(learned: FitResult) -> None:
    assert learned.score == pytest.approx(weighted_score(TASKS, learned.evaluation))
    assert learned.score == pytest.approx(np.mean([of["gain"] for of in learned.evaluation.values()]))


def test_equal_seeds_give_equal_weights_and_others_do_not() -> None:
    examples = make_examples(300, 3)

    one, again, other = (
        hash_weights(run_fit(examples, seed=seed, epochs=1).network.state_dict()) for seed in (1, 1, 2)
    )

    assert one == again != other


def test_the_best_epoch_stays_and_learning_stops_when_nothing_is_gained() -> None:
    epochs, plan, examples = list[Epoch](), PLAN, make_examples(300, 3)
    actual = fit(examples, SHAPE, plan.model_copy(update={"epochs": 40, "learning_rate": 0.03}), epochs.append)

    scores = [epoch.score for epoch in epochs]
    assert len(epochs) < 40
    held_out = examples.take(split_by_time(examples, plan.held_out).validation)
    assert actual.score == max(scores) == weighted_score(TASKS, evaluate(actual.network, split_held_out(held_out)[1]))
    assert scores.index(max(scores)) == len(scores) - 1 - plan.patience


def test_calibrating_each_epoch_changes_its_score_and_not_what_is_learned(monkeypatch: pytest.MonkeyPatch) -> None:
    examples, told, bare = make_examples(300, 3), list[Epoch](), list[Epoch]()
    plan = PLAN.model_copy(update={"epochs": 2})

    fit(examples, SHAPE, plan, told.append)
    monkeypatch.setattr("training.trainer.fit.calibrate", lambda network, rows: None)
    fit(examples, SHAPE, plan, bare.append)

    assert [epoch.losses for epoch in told] == [epoch.losses for epoch in bare]
    assert all(one.score != other.score for one, other in zip(told, bare, strict=True))


def test_validation_is_later_than_training_in_each_family_and_nothing_is_lost(seed: int) -> None:
    examples = make_examples(400, seed)

    split = split_by_time(examples, 0.25)

    assert sorted([*split.training.tolist(), *split.validation.tolist()]) == list(range(len(examples)))
    for task in (CLICK, FRAUD):
        known = np.flatnonzero(examples.has_label(task))
        early, late = np.intersect1d(known, split.training), np.intersect1d(known, split.validation)
        assert examples.ts_ms[early].max() <= examples.ts_ms[late].min()
        assert len(late) == len(known) // 4


def test_rows_of_one_time_are_split_too(seed: int) -> None:
    rows = [replace(row, ts_ms=5) for row in make_rows(100, seed)]

    split = split_by_time(from_rows(rows, make_examples(1, 1).features, TASKS), 0.25)

    assert len(split.validation) >= 20


def test_a_task_without_labels_is_left_out_with_the_reason(seed: int) -> None:
    examples = make_examples(300, seed)
    clicks = examples.take(~examples.has_label(FRAUD))

    actual = run_fit(clicks, epochs=1)

    assert "`fraud` should have labels. Found none" in actual.left_out["fraud"]
    assert "fraud" not in {task.name for task in actual.network.tasks}


def test_a_constant_task_is_left_out_and_so_is_what_goes_through_it(seed: int) -> None:
    examples = make_examples(300, seed)
    clicked = examples.take((examples.labels["click"] == 1) | examples.has_label(FRAUD))

    tasks, left_out = find_learnable(clicked)

    assert [task.name for task in tasks] == ["fraud"]
    assert "Found one alone" in left_out["click"]
    assert "goes through `click`" in left_out["purchase"]


def test_examples_that_teach_no_task_are_refused(seed: int) -> None:
    examples = make_examples(300, seed, (CLICK, PURCHASE))
    unclicked = examples.take(examples.labels["click"] == 0)

    with pytest.raises(BadData, match="Some task should be learnable"):
        run_fit(unclicked)


def test_encoders_know_nothing_of_what_is_held_out(seed: int) -> None:
    examples = make_examples(300, seed)
    late = split_by_time(examples, PLAN.held_out).validation
    for block in examples.blocks.values():
        block.numbers[late] = 1e6

    bounds = [one.high for of in run_fit(examples, epochs=1).network.statistics.numbers.values() for one in of]

    assert max(bounds) < 1e6


def test_each_batch_has_rows_of_every_family_and_large_ones_pass_once(seed: int) -> None:
    family = np.repeat([0, 1], [1_000, 10])

    batches = list(mixed_batches(family, 128, np.random.default_rng(seed)))

    assert all(8 <= (family[rows] == 1).sum() <= 9 for rows in batches)
    large = np.concatenate(batches)
    assert sorted(large[family[large] == 0].tolist()) == list(range(1_000))


def test_in_turn_a_batch_is_of_one_family_and_each_family_has_its_turns_all_along() -> None:
    family = np.array([0] * 1_000 + [1] * 300 + [2] * 5)

    batches = list(alternating_batches(family, 50, np.random.default_rng(1)))

    kinds = [set(family[rows].tolist()) for rows in batches]
    assert all(len(kind) == 1 for kind in kinds)
    assert set(np.concatenate(batches).tolist()) == set(range(len(family)))
    assert max(len(rows) for rows in batches) <= 50
    for one in (0, 1, 2):
        turns = [at for at, kind in enumerate(kinds) if kind == {one}]
        assert turns[0] < len(batches) / 2 <= turns[-1] + 1
    assert kinds[: len(kinds) // 4].count({1}) >= 1


def test_learning_in_turn_learns_every_task() -> None:
    plan = PLAN.model_copy(update={"epochs": 20, "turns": True})

    actual = fit(make_examples(1_500, 3), SHAPE, plan, lambda epoch: None)

    gains = {task: figures["gain"] for task, figures in actual.evaluation.items() if task != "purchase"}
    assert min(gains.values()) > 0.1, gains
