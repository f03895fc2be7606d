from dataclasses import replace
from types import MappingProxyType

import numpy as np
import pytest

from tests.model.small import CATEGORY, CLICK, FRAUD, SHAPE
from tests.training.examples import PLAN, make_examples
from training.analysis.baselines import OURS, SINGLE, TREES, build_methods, match_steps, select_task
from training.data.examples import Examples
from training.teaching.tree_features import ID_COLUMNS_LIMITS, TreeFeatures
from training.trainer.evaluation import evaluate_predictions

METHODS = MappingProxyType(build_methods(SHAPE, PLAN))


@pytest.fixture(scope="module")
def examples() -> Examples:
    return make_examples(600, 8)


@pytest.mark.parametrize("name", [OURS, SINGLE, TREES])
def test_each_method_predicts_exactly_the_learnable_tasks_better_than_chance(name: str, examples: Examples) -> None:
    # given orders without any fraud
    labels = {**examples.labels, "fraud": np.where(examples.has_label(FRAUD), 0, np.nan).astype(np.float32)}
    honest = replace(examples, labels=labels)

    # when the method trains on the first three quarters and predicts the rest
    training, validation = honest.take(np.arange(450)), honest.take(np.arange(450, 600))
    predictions = METHODS[name](training, validation, 1)

    # then fraud has no predictions, and every other task has finite ones for its rows
    tasks = [task for task in validation.tasks if task.name in predictions]
    actual = evaluate_predictions(tasks, validation, predictions)
    assert set(actual) == {"click", "purchase", "relevance", "category"}
    assert actual["click"]["auc"] > 0.6
    assert all(np.isfinite(predictions[task.name][validation.has_label(task)]).all() for task in tasks)


def test_a_selected_task_keeps_all_rows_and_goes_through_no_other(examples: Examples) -> None:
    purchase = next(task for task in examples.tasks if task.through)

    actual = select_task(examples, purchase)

    assert len(actual) == len(examples)
    assert [task.through for task in actual.tasks] == [None]
    assert set(actual.labels) == {purchase.name}


@pytest.mark.parametrize(("rows", "batch", "epochs"), [(1_000, 64, 3), (500, 32, 3), (10, 4, 18)])
def test_a_small_task_alone_trains_for_as_many_steps(rows: int, batch: int, epochs: int) -> None:
    config = match_steps(PLAN, rows, 1_000)

    assert (config.batch, config.epochs) == (batch, epochs)
    assert rows / config.batch * config.epochs == pytest.approx(1_000 / PLAN.batch * PLAN.epochs, rel=0.1)


def test_trees_read_neither_hidden_features_nor_codes_of_validation_rows(examples: Examples) -> None:
    training, validation = examples.take(np.arange(450)), examples.take(np.arange(450, 600))
    validation.blocks["item"].ids[:] = -5  # in no training row

    categories, clicks = TreeFeatures.fit(CATEGORY, training), TreeFeatures.fit(CLICK, training)

    assert set(categories.codes) == {"title"}
    assert len(categories.codes["title"]) <= ID_COLUMNS_LIMITS[1]
    assert categories.to_matrix(validation).shape == (150, 1 + len(categories.codes["title"]))
    assert (categories.to_matrix(validation)[:, 1:] == 0).all()
    coded = clicks.to_matrix(validation)[:, clicks.category_columns]
    assert coded.shape[1] == 3  # surface, item, kind
    assert np.isnan(coded[:, 1:]).all()
