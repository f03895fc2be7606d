import numpy as np
import pytest
from scipy import stats

from tests.model.small import CATEGORY, CLICK, DEMAND, FRAUD, RELEVANCE
from training.analysis.cross_validation import Run
from training.analysis.cv_comparison import (
    ALL,
    SCORE,
    choose_headline,
    collect_metric,
    compare_methods,
    measure_spread,
    p_value,
)


def make_run(method: str, fold: int, seed: int, auc: float, **other: float) -> Run:
    tasks = {"click": {"auc": auc, **other}}
    return Run(method=method, fold=fold, seed=seed, score=auc, tasks=tasks, judged_to_learned=0.25, seconds=1)


def test_spread_distinguishes_seeds_from_folds() -> None:
    # given folds that differ by a tenth and seeds that differ by a hundredth
    runs = [make_run("ours", fold, seed, 0.5 + 0.1 * fold + 0.01 * seed) for fold in (0, 1) for seed in (0, 1)]

    actual = measure_spread(collect_metric(runs, "ours", "click", "auc"))

    assert actual.mean == pytest.approx(0.555)
    assert actual.seeds_sd == pytest.approx(0.01 / 2**0.5)
    assert actual.folds_sd == pytest.approx(0.1 / 2**0.5)
    assert actual.runs == 4


def test_a_single_seed_has_no_deviation() -> None:
    assert measure_spread({(1, 7): 0.5, (2, 7): 0.6}).seeds_sd is None


def test_without_shared_training_data_the_test_is_the_paired_t_test(seed: int) -> None:
    rng = np.random.default_rng(seed)
    ours, theirs = rng.normal(0.1, 1, 9), rng.normal(0, 1, 9)

    assert p_value(ours - theirs, 0) == pytest.approx(stats.ttest_rel(ours, theirs).pvalue)


def test_shared_training_data_makes_the_test_more_conservative(seed: int) -> None:
    differences = np.random.default_rng(seed).normal(0.5, 1, 12)
    plain, corrected = p_value(differences, 0), p_value(differences, 0.25)

    assert plain is not None
    assert corrected is not None
    assert corrected > plain


@pytest.mark.parametrize("differences", [[0.1], [0.1, 0.1, 0.1]])
def test_equal_differences_have_no_p(differences: list[float]) -> None:
    assert p_value(np.array(differences), 0) is None


def test_only_runs_of_equal_fold_and_seed_are_paired() -> None:
    ours = [make_run("ours", 1, seed, 0.8 + seed / 100) for seed in (1, 2, 3)]
    other = [make_run("trees", 1, 1, 0.7), make_run("trees", 1, 2, 0.75), make_run("trees", 2, 3, 0.1)]

    actual = compare_methods([*ours, *other], "click", "auc", "ours", "trees")

    assert actual is not None
    assert (actual.runs, actual.better) == (2, True)
    assert actual.mean == pytest.approx((0.11 + 0.07) / 2)


def test_a_lower_error_is_better() -> None:
    runs = [make_run(name, 1, seed, 0.5, rmse=rmse) for name, rmse in (("a", 1.0), ("b", 2.0)) for seed in (1, 2)]

    actual = compare_methods(runs, "click", "rmse", "a", "b")

    assert actual is not None
    assert actual.better


def test_scores_of_different_tasks_are_not_compared() -> None:
    more = Run(
        method="b",
        fold=1,
        seed=1,
        score=0.9,
        tasks={"click": {"auc": 0.9}, "fraud": {"auc": 1.0}},
        judged_to_learned=0.25,
        seconds=1,
    )
    runs = [make_run("a", 1, 1, 0.5), more]

    assert compare_methods(runs, ALL, SCORE, "a", "b") is None
    assert compare_methods(runs, "click", "auc", "a", "b") is not None


def test_the_headline_is_average_precision_for_alarms_and_otherwise_by_kind() -> None:
    headlines = [choose_headline(task) for task in (CLICK, FRAUD, RELEVANCE, CATEGORY, DEMAND)]

    assert headlines == ["auc", "average_precision", "ndcg_10", "macro_f1", "rmse"]
