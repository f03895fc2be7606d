import numpy as np
import pytest
from msgspec.structs import replace

from contract.errors import BadData
from model.checkpoint import hash_weights
from tests.model.small import CLICK, FRAUD, PURCHASE, SHAPE, TASKS
from tests.training.examples import PLAN, make_examples, make_rows
from training.data.examples import Examples, from_rows
from training.data.learned_until import measure_learned
from training.data.split import find_learnable, split_by_time
from training.trainer.evaluation import compute_weighted_score, evaluate
from training.trainer.fit import Epoch, FitOptions, FitResult, fit
from training.trainer.partition import split_held_out


def run_fit(examples: Examples, *, seed: int = 7, epochs: int = 3) -> FitResult:
    return fit(examples, SHAPE, PLAN.model_copy(update={"seed": seed, "epochs": epochs}), lambda epoch: None)


@pytest.fixture(scope="module")
def fitted() -> FitResult:
    return run_fit(make_examples(1_500, 3), epochs=8)


def test_every_task_is_learned_from_rows_with_few_labels(fitted: FitResult) -> None:
    gains = {task: metrics["gain"] for task, metrics in fitted.evaluation.items()}

    assert fitted.left_out == {}
    assert gains["click"] > 0.2
    assert gains["fraud"] > 0.2
    assert gains["relevance"] > 0.1
    assert gains["category"] > 0.2


def test_each_task_has_the_metrics_of_its_kind(fitted: FitResult) -> None:
    names = {task: set(metrics) for task, metrics in fitted.evaluation.items()}

    assert {"auc", "log_loss", "ece"} <= names["click"]
    assert "average_precision" in names["fraud"] - names["click"]
    assert "ndcg_10" in names["relevance"]
    assert {"accuracy", "macro_f1"} <= names["category"]


def test_the_score_is_the_mean_gain_weighted_by_priority(fitted: FitResult) -> None:
    assert fitted.score == pytest.approx(compute_weighted_score(TASKS, fitted.evaluation))
    assert fitted.score == pytest.approx(np.mean([metrics["gain"] for metrics in fitted.evaluation.values()]))


def test_equal_seeds_give_equal_weights_and_other_seeds_do_not() -> None:
    examples = make_examples(300, 3)

    first, again, other = (
        hash_weights(run_fit(examples, seed=seed, epochs=1).network.state_dict()) for seed in (1, 1, 2)
    )

    assert first == again != other


def test_training_stops_without_gain_and_returns_the_best_epoch() -> None:
    epochs, examples = list[Epoch](), make_examples(300, 3)

    actual = fit(examples, SHAPE, PLAN.model_copy(update={"epochs": 40, "learning_rate": 0.03}), epochs.append)

    scores = [epoch.score for epoch in epochs]
    assert len(epochs) < 40
    held_out = examples.take(split_by_time(examples, PLAN.held_out).validation)
    assert (
        actual.score
        == max(scores)
        == compute_weighted_score(TASKS, evaluate(actual.network, split_held_out(held_out)[1]))
    )
    assert scores.index(max(scores)) == len(scores) - 1 - PLAN.patience


def test_calibration_changes_the_scores_of_epochs_but_not_training(monkeypatch: pytest.MonkeyPatch) -> None:
    examples, calibrated, uncalibrated = make_examples(300, 3), list[Epoch](), list[Epoch]()
    config = PLAN.model_copy(update={"epochs": 2})

    fit(examples, SHAPE, config, calibrated.append)
    monkeypatch.setattr("training.trainer.fit.calibrate", lambda network, rows: None)
    fit(examples, SHAPE, config, uncalibrated.append)

    assert [epoch.losses for epoch in calibrated] == [epoch.losses for epoch in uncalibrated]
    assert all(a.score != b.score for a, b in zip(calibrated, uncalibrated, strict=True))


def test_validation_is_later_than_training_in_each_family(seed: int) -> None:
    examples = make_examples(400, seed)

    split = split_by_time(examples, 0.25)

    assert sorted([*split.training.tolist(), *split.validation.tolist()]) == list(range(len(examples)))
    for task in (CLICK, FRAUD):
        labelled = np.flatnonzero(examples.has_label(task))
        early, late = np.intersect1d(labelled, split.training), np.intersect1d(labelled, split.validation)
        assert examples.ts_ms[early].max() <= examples.ts_ms[late].min()
        assert len(late) == len(labelled) // 4


def test_rows_of_equal_time_are_split(seed: int) -> None:
    rows = [replace(row, ts_ms=5) for row in make_rows(100, seed)]

    split = split_by_time(from_rows(rows, make_examples(1, 1).features, TASKS), 0.25)

    assert len(split.validation) >= 20


def test_a_task_without_labels_is_left_out_with_a_reason(seed: int) -> None:
    examples = make_examples(300, seed)
    clicks = examples.take(~examples.has_label(FRAUD))

    actual = run_fit(clicks, epochs=1)

    assert "`fraud` should have labels. Found none" in actual.left_out["fraud"]
    assert "fraud" not in {task.name for task in actual.network.tasks}


def test_a_constant_task_and_those_through_it_are_left_out(seed: int) -> None:
    examples = make_examples(300, seed)
    clicked = examples.take((examples.labels["click"] == 1) | examples.has_label(FRAUD))

    tasks, left_out = find_learnable(clicked)

    assert [task.name for task in tasks] == ["fraud"]
    assert "Found only one" in left_out["click"]
    assert "goes through `click`" in left_out["purchase"]


def test_examples_without_a_learnable_task_are_rejected(seed: int) -> None:
    examples = make_examples(300, seed, (CLICK, PURCHASE))
    unclicked = examples.take(examples.labels["click"] == 0)

    with pytest.raises(BadData, match="Some task should be learnable"):
        run_fit(unclicked)


def test_encoders_see_no_held_out_values(seed: int) -> None:
    examples = make_examples(300, seed)
    late = split_by_time(examples, PLAN.held_out).validation
    for block in examples.blocks.values():
        block.numbers[late] = 1e6

    numbers = run_fit(examples, epochs=1).network.statistics.numbers

    assert max(column.high for group in numbers.values() for column in group) < 1e6


def test_a_refit_learns_the_held_out_examples_too(seed: int) -> None:
    examples = make_examples(300, seed)
    late = split_by_time(examples, PLAN.held_out).validation
    for block in examples.blocks.values():
        block.numbers[late] = 1e6

    actual = fit(examples, SHAPE, PLAN.model_copy(update={"epochs": 1, "refit": True}), lambda epoch: None)

    numbers = actual.network.statistics.numbers
    assert max(column.high for group in numbers.values() for column in group) == 1e6
    assert actual.learned == measure_learned(examples)


def test_a_refit_has_the_epochs_and_calibrators_that_held_out_examples_chose() -> None:
    examples, reported, steps = make_examples(300, 3), list[Epoch](), list[int]()
    config = PLAN.model_copy(update={"epochs": 40, "learning_rate": 0.03})
    options = FitOptions(progress=lambda done, total, losses: steps.append(len(reported)))

    before = fit(examples, SHAPE, config, lambda epoch: None)
    after = fit(examples, SHAPE, config.model_copy(update={"refit": True}), reported.append, options)

    best = [epoch.score for epoch in reported].index(before.score) + 1
    assert steps.count(len(reported)) == best * -(-len(examples) // config.batch)
    assert (after.score, after.evaluation) == (before.score, before.evaluation)
    for task in TASKS:
        assert after.network.calibrator(task).values.equal(before.network.calibrator(task).values)
    assert hash_weights(after.network.state_dict()) != hash_weights(before.network.state_dict())


def test_alternating_batches_learn_every_task() -> None:
    config = PLAN.model_copy(update={"epochs": 20, "turns": True})

    actual = fit(make_examples(1_500, 3), SHAPE, config, lambda epoch: None)

    gains = {task: metrics["gain"] for task, metrics in actual.evaluation.items() if task != "purchase"}
    assert min(gains.values()) > 0.1, gains
