"""`training.next_item.fit`: what is learned from a planted pattern, and what is refused."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from contract.arrays import Array
from contract.retrieval.features import FEATURES
from model.sequence.next_item import from_tensors, to_tensors
from model.sequence.ranker import NEIGHBOUR
from tests.training.next_item.planted import ITEMS, OPTIONS, USERS, fit_planted, plant_history
from training.next_item.evaluation import compare_orders
from training.next_item.fit import CandidateSearch, fit_next_item
from training.next_item.histories import History, build_cases, split_by_time

NO_INTERACTIONS = np.zeros(0, np.int64)


def test_a_planted_pattern_is_ranked_far_above_popularity() -> None:
    # given
    result = fit_planted()
    assert result.part is not None
    # then: the next item is first in four of five cases; of 60 items a popular one is in one of 60
    assert result.evaluation["ndcg_20"] >= result.evaluation["own_ndcg_20"]
    table, history = result.part.table, plant_history()
    users, vectors = plant_user_vectors(history), table.vectors
    nearest = np.argsort(-(users @ vectors.T), axis=1)[:, :3]
    hits = np.mean([target in row for target, row in zip(history.item[1::8], nearest, strict=True)])
    popular = np.mean(np.isin(history.item[1::8], result.part.popular[:3]))
    assert hits > 5 * popular


def plant_user_vectors(history: History) -> Array:
    """The vectors of all users after their first interaction."""
    part = fit_planted().part
    assert part is not None
    rows = torch.from_numpy(history.item[::8][:, None] + 1)
    with torch.no_grad():
        vectors = part.encoder(rows, torch.ones_like(rows), torch.zeros(rows.shape))
    latest: Array = vectors[:, 0].numpy()
    return latest


def test_equal_seeds_give_equal_parts() -> None:
    first, second = fit_planted().part, fit_next_item(plant_history(), OPTIONS).part
    assert first
    assert second
    tensors, others = to_tensors(first), to_tensors(second)
    assert tensors.keys() == others.keys()
    assert all(torch.equal(tensors[name], others[name]) for name in tensors)


def test_a_part_is_the_same_after_a_checkpoint() -> None:
    part = fit_planted().part
    assert part
    again = from_tensors(to_tensors(part))
    assert again.evaluation == part.evaluation
    assert again.items.tolist() == part.items.tolist()
    np.testing.assert_allclose(again.table.vectors, part.table.vectors, atol=1e-6)
    np.testing.assert_array_equal(again.table.neighbours.rows, part.table.neighbours.rows)


def test_without_a_pattern_the_part_has_the_order_of_its_neighbours(monkeypatch: pytest.MonkeyPatch) -> None:
    # given a trained ranker that is judged to be worse
    monkeypatch.setattr("training.next_item.fit.is_worse", lambda evaluation: True)
    # when
    result = fit_next_item(plant_history(followed_share=0.0, seed=9), replace(OPTIONS, epochs=1))
    # then
    assert result.reason
    assert result.part
    assert result.evaluation["ndcg_20"] == result.evaluation["own_ndcg_20"] > 0
    features = np.random.default_rng(0).normal(0, 1, (50, len(FEATURES))).astype(np.float32)
    with torch.no_grad():
        scores = result.part.ranker(torch.from_numpy(features)).numpy()
    assert np.argsort(scores).tolist() == np.argsort(features[:, NEIGHBOUR]).tolist()


def test_no_part_is_worse_than_its_candidates() -> None:
    result = fit_next_item(plant_history(followed_share=0.0, seed=9), replace(OPTIONS, epochs=1))
    assert result.part
    assert result.evaluation["ndcg_20"] >= result.evaluation["own_ndcg_20"]


def test_too_few_interactions_are_refused_with_their_count() -> None:
    names = plant_history().names
    nothing = History(NO_INTERACTIONS, NO_INTERACTIONS, NO_INTERACTIONS, np.zeros(0, np.int8), names[:0])
    for history in (nothing, plant_history(users=1)):
        result = fit_next_item(history, OPTIONS)
        assert result.part is None
        assert "Held-out interactions should give 200 cases to rank. Found" in result.reason


def test_cases_know_nothing_of_what_follows_them() -> None:
    # given
    history = plant_history()
    is_held_out = split_by_time(history)
    cases = build_cases(history, is_held_out, new_items_only=False, seed=0)
    # then
    assert history.ts_ms[is_held_out].min() > history.ts_ms[~is_held_out].max()
    for case in range(0, len(cases), 17):
        own = np.flatnonzero(history.user == cases.user[case])
        length = int((cases.rows[case] >= 0).sum())
        assert cases.rows[case, :length].tolist() == history.item[own[:length]][::-1].tolist()
        assert history.item[own[length]] == cases.targets[cases.starts[case]]
        assert (cases.ages[case, :length] > 0).all()


def test_items_of_one_time_are_one_case_and_owned_ones_do_not_count() -> None:
    # given: user 0 has items 0 and 1, and then 1, 2 and 3 at one time
    user, item = np.zeros(5, np.int64), np.array([0, 1, 1, 2, 3])
    ts_ms, action = np.array([1, 2, 9, 9, 9]), np.array([1, 1, 1, 3, 2], np.int8)
    history = History(user, item, ts_ms, action, np.array([b"a", b"b", b"c", b"d"]))
    # when
    new, every = (
        build_cases(history, ts_ms > 5, is_known=np.ones(4, np.bool_), new_items_only=new_items_only, seed=0)
        for new_items_only in (True, False)
    )
    # then
    assert new.targets.tolist() == [2, 3]
    assert new.weights.tolist() == [3, 2]
    assert new.excluded.tolist() == [0, 1]
    assert every.targets.tolist() == [1, 2, 3]
    assert len(new) == len(every) == 1


def test_without_times_the_last_interaction_of_each_user_is_held_out() -> None:
    history = plant_history()
    ordered = replace(history, ts_ms=np.arange(len(history)), has_times=False)
    is_held_out = split_by_time(ordered)
    assert is_held_out.sum() == USERS
    assert is_held_out[7::8].all()


def test_candidates_are_distinct_and_metrics_count_what_is_not_among_them() -> None:
    # given
    history = plant_history()
    is_held_out = split_by_time(history)
    before = history.select(~is_held_out)
    cases = build_cases(history, is_held_out, new_items_only=True, seed=0)
    search = CandidateSearch(before, cases, replace(OPTIONS, new_items_only=True))
    # when
    ranked = search.rank_cases(search.train_best_encoder()[0])
    # then
    for case in range(len(cases)):
        items = ranked.items[ranked.starts[case] : ranked.starts[case + 1]].tolist()
        assert len(set(items)) == len(items)
        owned = cases.excluded[cases.excluded_starts[case] : cases.excluded_starts[case + 1]]
        assert not set(items) & set(owned.tolist())
        assert max(items) < ITEMS
    missing = replace(ranked, weights=np.zeros_like(ranked.weights))
    assert compare_orders(missing, ranked.features[:, 0])["recall_20"] == 0
