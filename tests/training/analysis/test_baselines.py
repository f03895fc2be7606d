from dataclasses import replace
from types import MappingProxyType

import numpy as np
import pytest

from tests.model.small import CATEGORY, CLICK, FRAUD, SHAPE
from tests.training.examples import PLAN, make_examples
from training.analysis.baselines import OURS, SINGLE, TREES, build_methods, match_steps, select_task
from training.analysis.lightgbm_baseline import COMMONEST_LIMITS, TreeFeatures
from training.data.examples import Examples
from training.trainer.evaluation import evaluate_predictions

METHODS = MappingProxyType(build_methods(SHAPE, PLAN))


@pytest.fixture(scope="module")
def examples() -> Examples:
    return make_examples(600, 8)


@pytest.mark.parametrize("name", [OURS, SINGLE, TREES])
def test_each_method_learns_what_there_is_to_learn_and_leaves_what_there_is_not(name: str, examples: Examples) -> None:
    # Given orders that are all honest
    labels = {**examples.labels, "fraud": np.where(examples.has_label(FRAUD), 0, np.nan).astype(np.float32)}
    honest = replace(examples, labels=labels)

    # When each method learns from the first three quarters and predicts the rest
    learning, judging = honest.take(np.arange(450)), honest.take(np.arange(450, 600))
    predictions = METHODS[name](learning, judging, 1)

    # Then fraud has no answer, and every other task one that is better than chance, in its own rows
    actual = evaluate_predictions([task for task in judging.tasks if task.name in predictions], judging, predictions)
    assert set(actual) == {"click", "purchase", "relevance", "category"}
    assert actual["click"]["auc"] > 0.6
    assert all(
        np.isfinite(p[judging.has_label(task)]).all()
        for task in judging.tasks
        if (p := predictions.get(task.name)) is not None
    )


def test_a_task_alone_keeps_its_rows_and_goes_through_no_other(examples: Examples) -> None:
    purchase = next(task for task in examples.tasks if task.through)

    alone = select_task(examples, purchase)

    assert len(alone) == len(examples)
    assert [task.through for task in alone.tasks] == [None]
    assert set(alone.labels) == {purchase.name}


@pytest.mark.parametrize(("rows", "batch", "epochs"), [(1_000, 64, 3), (500, 32, 3), (10, 4, 18)])
def test_a_small_task_alone_learns_in_as_many_steps(rows: int, batch: int, epochs: int) -> None:
    plan = match_steps(PLAN, rows, 1_000)

    assert (plan.batch, plan.epochs) == (batch, epochs)
    assert rows / plan.batch * plan.epochs == pytest.approx(1_000 / PLAN.batch * PLAN.epochs, rel=0.1)


def test_trees_read_no_hidden_feature_and_nothing_of_what_they_are_judged_by(examples: Examples) -> None:
    teaching, judging = examples.take(np.arange(450)), examples.take(np.arange(450, 600))
    judging.blocks["item"].ids[:] = -5  # met nowhere before

    reader, clicks = TreeFeatures.fit(CATEGORY, teaching), TreeFeatures.fit(CLICK, teaching)

    assert set(reader.codes) == {"title"}
    assert len(reader.codes["title"]) <= COMMONEST_LIMITS[1]
    assert reader.to_matrix(judging).shape == (150, 1 + len(reader.codes["title"]))
    assert (reader.to_matrix(judging)[:, 1:] == 0).all()
    coded = clicks.to_matrix(judging)[:, clicks.category_columns]
    assert coded.shape[1] == 3  # surface, item, kind
    assert np.isnan(coded[:, 1:]).all()
