from itertools import pairwise

import numpy as np
import pytest

from contract.errors import BadData
from contract.units import DAY_MS
from tests.model.small import CATEGORY, CLICK, FRAUD
from tests.training.examples import make_examples
from training.data.examples import Examples
from training.data.folds import Fold, drop_unsettled, split_folds

LATE_MS = 20 * DAY_MS


@pytest.fixture(scope="module")
def examples() -> Examples:
    """Clicks, orders, searches and products over ten days; all products at the first timestamp, with eleven items."""
    examples = make_examples(1_000, 3)
    examples.ts_ms[examples.has_label(CATEGORY)] = examples.ts_ms[0]
    return examples


@pytest.fixture(scope="module")
def folds(examples: Examples) -> list[Fold]:
    return list(split_folds(examples, 3))


def test_training_is_before_the_origin_and_validation_after(folds: list[Fold]) -> None:
    for fold in folds:
        assert fold.origin_ms is not None
        timed = fold.training.has_label(CLICK)
        assert fold.training.ts_ms[timed].max() < fold.origin_ms
        assert fold.validation.ts_ms[fold.validation.has_label(CLICK)].min() >= fold.origin_ms


def test_each_period_is_validated_once_and_then_trained_on(examples: Examples, folds: list[Fold]) -> None:
    validated = np.concatenate([fold.validation.example_id for fold in folds])

    assert len(set(validated)) == len(validated)
    for fold, later in pairwise(folds):
        timed = ~fold.validation.has_label(CATEGORY)
        assert set(fold.validation.example_id[timed]) <= set(later.training.example_id)
    clicks = examples.has_label(CLICK).sum()
    assert sum(fold.validation.has_label(CLICK).sum() for fold in folds) == pytest.approx(clicks / 2, abs=60)


def test_a_catalogue_without_times_is_split_at_random_by_item(examples: Examples, folds: list[Fold]) -> None:
    for fold in folds:
        trained, validated = (set(part.item_id[part.has_label(CATEGORY)]) for part in (fold.training, fold.validation))
        assert trained
        assert validated
        assert not trained & validated
    assert sum(fold.validation.has_label(CATEGORY).sum() for fold in folds) == examples.has_label(CATEGORY).sum()


def test_without_times_every_example_is_validated_exactly_once() -> None:
    examples = make_examples(300, 4)
    examples.ts_ms[:] = 0

    folds = list(split_folds(examples, 4))

    assert [fold.origin_ms for fold in folds] == [None] * 4
    assert sorted(np.concatenate([fold.validation.example_id for fold in folds])) == sorted(examples.example_id)


def test_a_label_after_the_origin_is_used_only_for_validation() -> None:
    # given orders whose fraud becomes known twenty days later, after the last event
    examples = make_examples(600, 5)
    examples.known_ms["fraud"][:] = examples.ts_ms + LATE_MS

    # when they are split into folds
    folds = list(split_folds(examples, 2))

    # then fraud is validated but never trained on, unlike clicks
    for fold in folds:
        assert not fold.training.has_label(FRAUD).any()
        assert fold.training.has_label(CLICK).any()
        assert fold.validation.has_label(FRAUD).any()


def test_the_latest_days_can_be_dropped_but_not_all(examples: Examples) -> None:
    settled = drop_unsettled(examples, 2 * DAY_MS)

    assert settled.ts_ms.max() <= examples.ts_ms.max() - 2 * DAY_MS < examples.ts_ms[len(settled)]
    assert len(drop_unsettled(examples, 0)) == len(examples)
    with pytest.raises(BadData, match="older than the newest by 20 days"):
        drop_unsettled(examples.take(examples.has_label(CLICK)), LATE_MS)


@pytest.mark.parametrize(("rows", "count"), [(40, 1), (1, 3)])
def test_too_few_folds_or_examples_are_rejected(rows: int, count: int) -> None:
    with pytest.raises(BadData, match="should"):
        list(split_folds(make_examples(40, 6).take(np.arange(rows)), count))
