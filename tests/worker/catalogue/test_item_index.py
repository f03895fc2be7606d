"""The item index maps hashes to numbers, in any number and order."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.catalogue import item_index
from worker.catalogue.item_index import ItemIndex

HASHES = st.integers(1, 2**64 - 1)


@given(keys=st.lists(HASHES | st.integers(1, 5), max_size=60), lookups=st.sets(st.integers(0, 60)))
def test_the_index_returns_what_a_dictionary_returns(keys: list[int], lookups: set[int]) -> None:
    # given an index with lookups in between, which merge its recent items
    index, expected = ItemIndex(), dict[int, int]()
    for n, key in enumerate(keys):
        if n in lookups:
            index.find(np.array([key], np.uint64))
        # when
        assert index.add(key) == expected.setdefault(key, len(expected))
    # then
    queries = [*keys, 6, 2**63]
    assert len(index) == len(expected)
    assert index.find(np.array(queries, np.uint64)).tolist() == [expected.get(key, -1) for key in queries]
    assert [index.get(key) for key in queries] == [expected.get(key, -1) for key in queries]


def test_new_items_are_merged_at_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(item_index, "RECENT_MAX", 3)
    index = ItemIndex()

    numbers = [index.add(key) for key in (9, 4, 7, 1, 9, 2, 3, 8)]

    assert numbers == [0, 1, 2, 3, 0, 4, 5, 6]
    assert [index.get(key) for key in (9, 4, 7, 1, 2, 3, 8, 5)] == [0, 1, 2, 3, 4, 5, 6, -1]
    assert len(index._recent) < 3


def test_lookups_keep_their_shape_and_the_highest_hash_is_unknown() -> None:
    index = ItemIndex()
    assert index.find(np.array([[1, 2]], np.uint64)).tolist() == [[-1, -1]]
    index.add(5)

    assert index.find(np.array([[5, 2**64 - 1], [0, 5]], np.uint64)).tolist() == [[0, -1], [-1, 0]]
