import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from model.vocabulary import COUNT_MIN, KnownIds, Vocabulary, build_slots, select_known_ids, update_known_ids

BOUNDS = np.iinfo(np.int64)
IDS = st.integers(BOUNDS.min, BOUNDS.max).filter(bool)


def make_known_ids(ids: list[int], spare: int = 3) -> KnownIds:
    return KnownIds(np.array(ids, "<i8").tobytes(), spare)


@given(st.sets(IDS, max_size=400), IDS)
def test_known_ids_have_their_own_rows_and_others_share_the_spare_ones(ids: set[int], other: int) -> None:
    vocabulary = Vocabulary(make_known_ids(sorted(ids)))

    rows = vocabulary(torch.tensor(sorted(ids), dtype=torch.int64)).tolist()
    unknown = int(vocabulary(torch.tensor(other)))

    assert rows == list(range(4, 4 + len(ids)))
    assert unknown in (1, 2, 3) or other in ids


@pytest.mark.parametrize("count", [0, 1, 50, 5_000])
def test_slots_have_few_ids(count: int, seed: int) -> None:
    ids = np.random.default_rng(seed).choice(2**62, count, replace=False) if count else np.array([], np.int64)

    slots, rows = build_slots(ids.astype(np.int64), 2)

    assert slots.shape[1] <= (1 if count <= 50 else 6)
    assert sorted(rows[rows > 0].tolist()) == list(range(2, 2 + count))


def test_absent_ids_have_row_0_in_any_shape() -> None:
    rows = Vocabulary(make_known_ids([7, 9], spare=1))(torch.tensor([[0, 7], [9, 0], [8, -7]]))

    assert rows.tolist() == [[0, 2], [3, 0], [1, 1]]


def test_ids_seen_once_are_unknown_and_frequent_ids_come_first() -> None:
    actual = select_known_ids(np.array([5, 5, 5, 8, 8, 3, 0, 0, 0, 0]), 64)

    assert COUNT_MIN == 2
    assert actual.array.tolist() == [5, 8]
    assert (actual.spare, actual.rows) == (1, 4)


def test_the_limit_keeps_the_most_frequent_ids(seed: int) -> None:
    ids = np.repeat(np.arange(1, 101), np.arange(2, 102))

    actual = select_known_ids(np.random.default_rng(seed).permutation(ids), 11)

    assert actual.rows == 11
    assert actual.array.tolist() == list(range(100, 91, -1))


@given(st.sets(IDS, min_size=6, max_size=60), st.integers(1, 5))
def test_updates_keep_the_rows_of_all_other_ids(ids: set[int], spare: int) -> None:
    freed, added, stay = sorted(ids)[:2], sorted(ids)[2:4], sorted(ids)[4:]
    before = make_known_ids(stay + freed, spare)

    after, rows = update_known_ids(before, np.array(freed), np.array(added))

    now, then = Vocabulary(after), Vocabulary(before)
    assert len(rows) == after.rows == before.rows
    for ident in (0, *stay, *added):
        assert rows[int(now(torch.tensor(ident)))] == int(then(torch.tensor(ident)))
    assert all(1 <= int(now(torch.tensor(ident))) <= spare for ident in freed)
