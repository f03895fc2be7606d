"""Histories: recent items of a profile that a history does not have yet come before it."""

import numpy as np

from contract.profiles.guest_items import KnownItems, without_guests
from contract.profiles.histories import CLICK, LatestItems
from worker.retrieval.histories import BatchHistories, from_recent, prepend_recent

TIMES_MS = np.array([9_000_000])


def make_history(*items: int, width: int = 4) -> LatestItems:
    padded = np.array([[*items, *[0] * (width - len(items))]], np.uint64)
    return LatestItems(padded, (padded > 0).astype(np.uint8) * 3, (padded > 0).astype(np.uint32) * 5)


def prepend(history: LatestItems, *recent: int) -> list[tuple[int, int, int]]:
    """The items, actions and times of the only user."""
    joined = prepend_recent(without_guests(history), np.array([recent], np.uint64), TIMES_MS)
    return list(zip(*(column[0].tolist() for column in joined), strict=True))


def test_recent_items_that_are_newer_than_the_history_come_first_and_the_oldest_are_left_out() -> None:
    actual = prepend(make_history(3, 1, 2, 5), 7, 6, 3, 1)

    assert actual == [(7, CLICK, 9_000), (6, CLICK, 9_000), (3, 3, 5), (1, 3, 5)]


def test_a_history_that_is_up_to_date_stays_as_it_is() -> None:
    assert prepend(make_history(3, 1), 3, 1) == [(3, 3, 5), (1, 3, 5), (0, 0, 0), (0, 0, 0)]


def test_a_user_without_a_history_has_the_recent_items() -> None:
    recent = np.array([[7, 6, 0]], np.uint64)

    assert prepend_recent(without_guests(from_recent(recent, TIMES_MS)), recent, TIMES_MS).items.tolist() == [[7, 6, 0]]
    assert [item for item, _, _ in prepend(make_history(), 7, 6)] == [7, 6, 0, 0]
    empty = LatestItems(np.zeros((1, 0), np.uint64), np.zeros((1, 0), np.uint8), np.zeros((1, 0), np.uint32))
    assert prepend_recent(KnownItems(empty, np.zeros(1, np.uint64)), recent, TIMES_MS).items.tolist() == [[7, 6, 0]]


def test_histories_of_some_users_are_taken_in_their_order() -> None:
    first, second = make_history(1, 2), make_history(3)
    both = LatestItems(
        np.concatenate([first.items, second.items]),
        np.concatenate([first.actions, second.actions]),
        np.concatenate([first.seen_s, second.seen_s]),
    )

    taken = BatchHistories({"a": 0, "b": 1}, without_guests(both)).take(["b", "a"])

    assert taken.latest.items.tolist() == [[3, 0, 0, 0], [1, 2, 0, 0]]
    assert taken.newest.tolist() == [3, 1]
