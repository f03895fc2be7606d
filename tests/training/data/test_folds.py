from itertools import pairwise

import numpy as np
import pytest

from contract.errors import BadData
from tests.model.small import CATEGORY, CLICK, FRAUD
from tests.training.examples import DAY_MS, make_examples
from training.data.examples import Examples
from training.data.folds import Fold, drop_unsettled, split_folds

LATE_MS = 20 * DAY_MS


@pytest.fixture(scope="module")
def examples() -> Examples:
    """Clicks, orders, searches and products over ten days; all products at the first moment, under eleven items."""
    made = make_examples(1_000, 3)
    made.ts_ms[made.has_label(CATEGORY)] = made.ts_ms[0]
    return made


@pytest.fixture(scope="module")
def folds(examples: Examples) -> list[Fold]:
    return list(split_folds(examples, 3))


def test_what_judges_comes_after_the_origin_and_what_teaches_before(folds: list[Fold]) -> None:
    for fold in folds:
        assert fold.origin_ms is not None
        timed = fold.training.has_label(CLICK)
        assert fold.training.ts_ms[timed].max() < fold.origin_ms
        assert fold.validation.ts_ms[fold.validation.has_label(CLICK)].min() >= fold.origin_ms


def test_each_period_judges_once_and_then_teaches(examples: Examples, folds: list[Fold]) -> None:
    judged = np.concatenate([fold.validation.example_id for fold in folds])

    assert len(set(judged)) == len(judged)
    for fold, later in pairwise(folds):
        timed = ~fold.validation.has_label(CATEGORY)
        assert set(fold.validation.example_id[timed]) <= set(later.training.example_id)
    clicks = examples.has_label(CLICK).sum()
    assert sum(fold.validation.has_label(CLICK).sum() for fold in folds) == pytest.approx(clicks / 2, abs=60)


def test_a_catalogue_without_time_is_cut_by_chance_and_no_item_is_on_both_sides(
    examples: Examples, folds: list[Fold]
) -> None:
    for fold in folds:
        taught, judged = (set(part.item_id[part.has_label(CATEGORY)]) for part in (fold.training, fold.validation))
        assert taught
        assert judged
        assert not taught & judged
    assert sum(fold.validation.has_label(CATEGORY).sum() for fold in folds) == examples.has_label(CATEGORY).sum()


def test_without_any_time_every_example_judges_exactly_once() -> None:
    examples = make_examples(300, 4)
    examples.ts_ms[:] = 0

    folds = list(split_folds(examples, 4))

    assert [fold.origin_ms for fold in folds] == [None] * 4
    assert sorted(np.concatenate([fold.validation.example_id for fold in folds])) == sorted(examples.example_id)


def test_a_label_that_came_after_the_origin_teaches_nothing_but_judges() -> None:
    # Given orders whose fraud becomes known twenty days later, when all is over
    examples = make_examples(600, 5)
    examples.known_ms["fraud"][:] = examples.ts_ms + LATE_MS

    # When folds are cut
    folds = list(split_folds(examples, 2))

    # Then fraud is judged and never taught, while clicks are taught as before
    for fold in folds:
        assert not fold.training.has_label(FRAUD).any()
        assert fold.training.has_label(CLICK).any()
        assert fold.validation.has_label(FRAUD).any()


def test_the_latest_days_can_be_left_out_but_not_all(examples: Examples) -> None:
    kept = drop_unsettled(examples, 2 * DAY_MS)

    assert kept.ts_ms.max() <= examples.ts_ms.max() - 2 * DAY_MS < examples.ts_ms[len(kept)]
    assert len(drop_unsettled(examples, 0)) == len(examples)
    with pytest.raises(BadData, match="older than the newest by 20 days"):
        drop_unsettled(examples.take(examples.has_label(CLICK)), LATE_MS)


@pytest.mark.parametrize(("rows", "count"), [(40, 1), (1, 3)])
def test_too_few_folds_or_examples_end_with_a_sentence(rows: int, count: int) -> None:
    with pytest.raises(BadData, match="should"):
        list(split_folds(make_examples(40, 6).take(np.arange(rows)), count))
