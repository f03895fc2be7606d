"""The index of items: hashes and numbers, however many come and in whatever order."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.catalogue import item_index
from worker.catalogue.item_index import ItemIndex

HASHES = st.integers(1, 2**64 - 1)


@given(keys=st.lists(HASHES | st.integers(1, 5), max_size=60), looks=st.sets(st.integers(0, 60)))
def test_it_answers_as_a_dictionary_does(keys: list[int], looks: set[int]) -> None:
    # given an index that is also asked in between, by which it puts itself in order
    index, expected = ItemIndex(), dict[int, int]()
    for n, key in enumerate(keys):
        if n in looks:
            index.find(np.array([key], np.uint64))
        # when
        assert index.add(key) == expected.setdefault(key, len(expected))
    # then
    wanted = [*keys, 6, 2**63]
    assert len(index) == len(expected)
    assert index.find(np.array(wanted, np.uint64)).tolist() == [expected.get(key, -1) for key in wanted]
    assert [index.get(key) for key in wanted] == [expected.get(key, -1) for key in wanted]


def test_new_ones_are_put_in_order_when_they_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(item_index, "RECENT_MAX", 3)
    index = ItemIndex()

    numbers = [index.add(key) for key in (9, 4, 7, 1, 9, 2, 3, 8)]

    assert numbers == [0, 1, 2, 3, 0, 4, 5, 6]
    assert [index.get(key) for key in (9, 4, 7, 1, 2, 3, 8, 5)] == [0, 1, 2, 3, 4, 5, 6, -1]
    assert len(index._recent) < 3


def test_hashes_keep_their_shape_and_the_highest_is_none_that_is_there() -> None:
    index = ItemIndex()
    assert index.find(np.array([[1, 2]], np.uint64)).tolist() == [[-1, -1]]
    index.add(5)

    assert index.find(np.array([[5, 2**64 - 1], [0, 5]], np.uint64)).tolist() == [[0, -1], [-1, 0]]
