"""Pending entries over a row store: what leaves the memory, what comes back, and what is erased."""

import pytest

from contract.joining.joiner import Joiner
from contract.joining.pending import PendingStore
from contract.joining.row_store import BrokenStore
from tests.contract.joining.builders import (
    FEEDBACK,
    FRAUD,
    feed_joiner,
    make_click,
    make_impression,
    make_label,
    make_order,
    make_row,
    minutes_to_ms,
    take_labels,
)
from tests.contract.joining.memory_rows import MemoryRows


def open_pending(rows: MemoryRows, *, limit: int = 2) -> PendingStore[list[int]]:
    return PendingStore("lists", list[int], limit=limit, removed_max=9, rows=rows)


def commit(rows: MemoryRows, *stores: PendingStore[list[int]]) -> None:
    rows.commit([store.changes() for store in stores], {})
    for store in stores:
        store.confirm_commit()


def test_entries_beyond_the_limit_leave_the_memory_and_none_is_evicted() -> None:
    rows = MemoryRows()
    pending = open_pending(rows)
    for n in range(5):
        assert pending.add(f"k{n}", [n], since_ms=n, due_ms=10 + n) is None
    commit(rows, pending)

    assert (len(pending), len(pending._entries)) == (5, 2)
    assert [pending.get(f"k{n}") for n in range(5)] == [[n] for n in range(5)]
    assert pending.get("other") is None


def test_a_reopened_store_has_what_was_committed_and_not_what_came_after() -> None:
    rows = MemoryRows()
    pending = open_pending(rows)
    for n in range(4):
        pending.add(f"k{n}", [n], since_ms=n, due_ms=10, group="g")
    pending.remove("k0")
    commit(rows, pending)
    pending.add("later", [9], since_ms=0, due_ms=10)
    pending.remove("k3")

    reopened = open_pending(rows)

    assert list(reopened.in_group("g")) == ["k1", "k2", "k3"]
    assert (reopened.was_removed("k0"), reopened.was_removed("k3"), len(reopened)) == (True, False, 3)
    assert reopened.oldest_ms() in (0, 1)


def test_a_changed_item_is_stored_as_changed() -> None:
    rows = MemoryRows()
    pending = open_pending(rows, limit=1)
    for n in range(3):
        pending.add(f"k{n}", [n], since_ms=n, due_ms=10)
    commit(rows, pending)

    item = pending.get("k0")
    assert item is not None
    item.append(7)
    pending.update("k0", due_ms=50)
    commit(rows, pending)

    assert open_pending(rows).get("k0") == [0, 7]
    assert [key for key, _ in open_pending(rows).due(20)] == ["k1", "k2"]


def test_timers_of_rows_on_disk_fire_once_in_the_order_of_their_times(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("contract.joining.pending.DUE_CHUNK", 3)
    rows = MemoryRows()
    pending = open_pending(rows)
    for n in range(20):
        pending.add(f"k{n}", [n], since_ms=0, due_ms=100 - n)
    commit(rows, pending)

    fired = []
    for key, (number,) in pending.due(98):
        fired.append(number)
        if number % 2:
            pending.remove(key)
        else:
            pending.update(key, due_ms=200)

    assert sorted(fired) == list(range(3, 20))
    assert list(pending.due(98)) == []
    commit(rows, pending)
    assert len(list(open_pending(rows).due(201))) == 3 + 8


def test_a_row_that_cannot_be_decoded_breaks_the_store() -> None:
    rows = MemoryRows()
    pending = open_pending(rows, limit=1)
    for n in range(2):
        pending.add(f"k{n}", [n], since_ms=n, due_ms=10)
    commit(rows, pending)
    rows.tables["lists"].rows[0] = rows.tables["lists"].rows[0]._replace(body=b"\xff")

    with pytest.raises(BrokenStore, match="should be readable"):
        pending.get("k0")


def test_a_correction_of_a_settled_search_is_stored() -> None:
    rows = MemoryRows()
    joiner = Joiner(feedback=FEEDBACK, tasks=[FRAUD], rows=rows)
    feed_joiner(joiner, make_row("search", "s", 0, ("a", "b"), query="q"))
    joiner.advance(minutes_to_ms(31))
    rows.commit(joiner.changes(), {})
    joiner.confirm_commit()
    feed_joiner(joiner, make_click(5, "a", recommendation_id=None, query="q"))
    rows.commit(joiner.changes(), {})

    reopened = Joiner(feedback=FEEDBACK, tasks=[FRAUD], rows=rows)
    feed_joiner(reopened, make_click(5, "a", recommendation_id=None, query="q"))

    assert reopened.counts["duplicate", "relevance"] == 1
    assert take_labels(reopened) == []


@pytest.mark.parametrize("in_memory", [0, 100])
def test_an_erased_user_leaves_nothing_that_waits(in_memory: int) -> None:
    rows = MemoryRows()
    feedback = FEEDBACK.model_copy(update={"rows_max": max(1, in_memory)})
    joiner = Joiner(feedback=feedback, tasks=[FRAUD], rows=rows)
    for user in ("kept", "gone", "last"):
        feed_joiner(
            joiner,
            make_row("recommendation", f"r-{user}", 0, ("a", "b"), user=user),
            make_impression(1, "a", "b", recommendation_id=f"r-{user}", user=user),
            make_click(2, "a", recommendation_id=f"r-{user}", user=user),
            make_row("order", f"o-{user}", 3, user=user),
            make_order(3, "z", user=user),
            make_row("search", f"s-{user}", 4, ("a",), user=user, query="q"),
            make_click(5, "a", recommendation_id=None, user=user, query="q"),
            make_label(6, 1, judged_event_id=f"later-{user}", user=user),
            make_click(7, "a", recommendation_id=f"later-{user}", user=user),
        )
    rows.commit(joiner.changes(), {})
    joiner.confirm_commit()
    waiting = len(joiner)

    assert joiner.erase("gone", minutes_to_ms(7)) == waiting // 3
    rows.commit(joiner.changes(), {})
    joiner.confirm_commit()

    assert len(joiner) == 2 * waiting // 3
    stored = b"".join(row.body for table in rows.tables.values() for row in table.rows.values())
    assert b"gone" not in stored
    assert b"kept" in stored
    assert joiner.erase("kept", minutes_to_ms(-1)) == 0
