"""A slice at every border (offsets, cells, the horizon, rings), and the aggregates of a reader."""

import math
from collections.abc import Sequence

import msgspec
import pytest

from contract.errors import BadProfile
from contract.events.model import Click, Event, Judgement, Line, Order, Search
from contract.hashing import hash_id
from contract.profiles.entity_updates import Arrival, to_updates
from contract.profiles.record import AGGREGATES, HORIZON_MS, RECORD, RING_SIZE, WIDTHS_MS, WINDOWS
from contract.profiles.slices import EMPTY_RECORD
from contract.profiles.store import FoldedBatch, InMemoryProfileStore, fold
from contract.units import DAY_MS, HOUR_MS, MINUTE_MS, SECOND_MS
from testkit.oracle.logs import BASE_MS
from testkit.oracle.records import RecordFields, parse_record


def make_click(number: int = 0, ts_ms: int = BASE_MS, *, user: str = "u", item: str = "i") -> Click:
    return Click(event_id=f"e{number}", ts_ms=ts_ms, user_id=user, item_id=item)


def make_order(event_id: str, ts_ms: int = BASE_MS, *, amount: float = 1.0, user: str = "u") -> Order:
    line = Line(item_id="i", quantity=1, unit_price=amount)
    return Order(
        event_id=event_id,
        ts_ms=ts_ms,
        user_id=user,
        lines=(line,),
        amount=amount,
        currency="EUR",
        payment_method="card",
        card_id="c",
    )


def make_judgement(task: str, value: float | str, ts_ms: int = BASE_MS) -> Judgement:
    return Judgement(
        event_id="j",
        ts_ms=ts_ms,
        user_id="u",
        judged_event_id="o",
        task=task,
        value=value,
        entities=("user:u", "card:c"),
    )


def fold_batch(source: str, events: Sequence[Event], *, offsets: Sequence[int] | None = None) -> FoldedBatch:
    """One batch folded over an empty store."""
    numbers = offsets if offsets is not None else range(len(events))
    updates = to_updates([Arrival(source, offset, event) for offset, event in zip(numbers, events, strict=True)])
    return fold(InMemoryProfileStore().read(updates.entities), updates)


def read_slice(folded: FoldedBatch, entity: str, source: str) -> RecordFields:
    return parse_record(folded.slice_writes()[entity][source])


def read_aggregates(folded: FoldedBatch, now_ms: int, entity: str = "user:u") -> dict[str, float]:
    return dict(zip(AGGREGATES, folded.read_at([entity], [now_ms])[0][0].tolist(), strict=True))


@pytest.mark.parametrize(("offset", "count"), [(6, 1), (7, 1), (8, 2)])
def test_offsets_up_to_the_slice_s_own_are_skipped(offset: int, count: int) -> None:
    # given a slice that ends at offset 7
    events = [make_click(0), make_click(1)]
    # when
    actual = read_slice(fold_batch("clicks/0", events, offsets=[7, offset]), "user:u", "clicks/0")
    # then
    assert (actual.count, actual.offset) == (count, max(7, offset))


@pytest.mark.parametrize(("silence_ms", "count"), [(HORIZON_MS, 2), (HORIZON_MS + 1, 1)])
def test_a_slice_is_reset_after_the_horizon_without_events(silence_ms: int, count: int) -> None:
    # given, when
    events = [make_click(0, item="old"), make_click(1, BASE_MS + silence_ms, item="new")]
    actual = read_slice(fold_batch("clicks/0", events), "user:u", "clicks/0")
    # then
    assert actual.count == count
    assert actual.offset == 1
    assert (hash_id("item:old") in actual.first_links) == (count == 2)
    assert actual.first_ms == (BASE_MS if count == 2 else BASE_MS + silence_ms)


def test_the_horizon_counts_from_the_latest_event_time() -> None:
    # given an event that comes late
    events = [make_click(0), make_click(1, BASE_MS - 5 * DAY_MS), make_click(2, BASE_MS + HORIZON_MS)]
    # when
    actual = read_slice(fold_batch("clicks/0", events), "user:u", "clicks/0")
    # then
    assert (actual.count, actual.first_ms, actual.last_ms) == (3, BASE_MS - 5 * DAY_MS, BASE_MS + HORIZON_MS)


def test_the_horizon_applies_to_labels_of_other_tasks_than_fraud() -> None:
    # given, when
    events = [make_judgement("brushing", 1.0), make_judgement("brushing", 0.0, BASE_MS + HORIZON_MS + 1)]
    actual = read_slice(fold_batch("judgements/0", events), "user:u", "judgements/0")
    # then
    assert actual.judged == {("brushing", "good"): 1}


@pytest.mark.parametrize(("window", "width_ms"), list(zip(WINDOWS, WIDTHS_MS.tolist(), strict=True)))
def test_a_window_slides_over_the_borders_of_its_cells(window: str, width_ms: int) -> None:
    # given one event in the last millisecond of a cell
    folded = fold_batch("clicks/0", [make_click(0, BASE_MS + width_ms - 1)])
    name = f"clicks.count_{window}"
    # then it counts fully in its own cell, and its share falls from one to zero over the next
    assert read_aggregates(folded, BASE_MS + width_ms - 1)[name] == 1.0
    assert read_aggregates(folded, BASE_MS + width_ms)[name] == 1.0
    assert read_aggregates(folded, BASE_MS + width_ms + width_ms // 2)[name] == 0.5
    assert read_aggregates(folded, BASE_MS + 2 * width_ms - 1)[name] == pytest.approx(1 / width_ms)
    assert read_aggregates(folded, BASE_MS + 2 * width_ms)[name] == 0.0


@pytest.mark.parametrize(("window", "width_ms"), list(zip(WINDOWS, WIDTHS_MS.tolist(), strict=True)))
def test_a_reader_one_cell_behind_does_not_see_later_events(window: str, width_ms: int) -> None:
    # given an event in each of two cells
    folded = fold_batch("clicks/0", [make_click(0, BASE_MS), make_click(1, BASE_MS + width_ms)])
    name = f"clicks.count_{window}"
    # then
    assert read_aggregates(folded, BASE_MS + width_ms - 1)[name] == 1.0
    assert read_aggregates(folded, BASE_MS + width_ms)[name] == 2.0
    assert read_aggregates(folded, BASE_MS - 1)[name] == 0.0


@pytest.mark.parametrize(("late_ms", "in_cells"), [(1, True), (HOUR_MS, True), (HOUR_MS + 1, False)])
def test_an_event_before_the_previous_cell_is_only_in_the_totals(late_ms: int, in_cells: bool) -> None:
    # given an event at the start of an hour, and a late one
    events = [make_order("o1", BASE_MS), make_order("o2", BASE_MS - late_ms, amount=0.5)]
    # when
    actual = read_slice(fold_batch("orders/0", events), "user:u", "orders/0")
    # then
    _, now, before = actual.windows["1h"]
    assert now == (1, 100)
    assert before == ((1, 50) if in_cells else (0, 0))
    assert (actual.count, actual.sum) == (2, 150)


def test_money_is_summed_in_hundredths() -> None:
    # given ten amounts whose sum is inexact as a float
    folded = fold_batch("orders/0", [make_order(f"o{n}", amount=0.1) for n in range(10)])
    # then
    assert read_slice(folded, "user:u", "orders/0").sum == 100
    assert read_aggregates(folded, BASE_MS)["orders.sum_1d"] == 100.0


def test_a_duplicate_order_counts_once() -> None:
    # given
    folded = fold_batch("orders/0", [make_order("o1"), make_order("o1"), make_order("o2"), make_order("o1")])
    # then
    actual = read_slice(folded, "card:c", "orders/0")
    assert (actual.count, actual.sum, actual.offset) == (2, 200, 3)
    assert actual.orders == [hash_id("o1"), hash_id("o2")]


@pytest.mark.parametrize(("between", "count"), [(RING_SIZE - 1, RING_SIZE), (RING_SIZE, RING_SIZE + 2)])
def test_a_duplicate_is_detected_among_the_last_eight_orders(between: int, count: int) -> None:
    # given
    events = [make_order("first"), *(make_order(f"o{n}") for n in range(between)), make_order("first")]
    # when
    actual = read_slice(fold_batch("orders/0", events), "user:u", "orders/0")
    # then
    assert actual.count == count


def test_the_eight_most_recent_links_stay_with_ties_by_id() -> None:
    # given nine items seen in the same second, and one seen a second earlier
    idents = sorted(hash_id(f"item:{n}") for n in range(RING_SIZE + 1))
    events = [make_click(n, item=str(n)) for n in range(RING_SIZE + 1)] + [
        make_click(99, BASE_MS - 1_000, item="earlier")
    ]
    # when
    folded = fold_batch("clicks/0", events)
    # then
    assert set(read_slice(folded, "user:u", "clicks/0").first_links) == set(idents[1:])
    _, recent = folded.read_at(["user:u"], [BASE_MS])
    assert recent[0].tolist() == idents[:0:-1]


def test_a_link_seen_again_becomes_the_most_recent() -> None:
    # given
    events = [make_click(n, BASE_MS + 1_000 * n, item=str(n)) for n in range(RING_SIZE)]
    events += [make_click(50, BASE_MS + MINUTE_MS, item="0"), make_click(51, BASE_MS + 61 * SECOND_MS, item="new")]
    # when
    links = read_slice(fold_batch("clicks/0", events), "user:u", "clicks/0").first_links
    # then the second one has become the oldest and is replaced
    assert hash_id("item:1") not in links
    assert links[hash_id("item:0")] == (BASE_MS + MINUTE_MS) // 1_000


@pytest.mark.parametrize(("age_ms", "today"), [(DAY_MS, 1.0), (DAY_MS + 1_000, 0.0)])
def test_links_of_the_last_day_are_counted_separately(age_ms: int, today: float) -> None:
    # given
    folded = fold_batch("clicks/0", [make_click(0)])
    # then
    actual = read_aggregates(folded, BASE_MS + age_ms)
    assert (actual["first_links_1d"], actual["first_links"]) == (today, 1.0)


def test_a_user_is_linked_with_the_last_eight_items_of_an_order() -> None:
    # given an order of ten items, the first of them repeated at the end
    lines = tuple(Line(item_id=f"i{n}", quantity=1, unit_price=1.0) for n in [*range(10), 0])
    big = msgspec.structs.replace(make_order("o1"), lines=lines)
    # when
    actual = read_slice(fold_batch("orders/0", [big]), "user:u", "orders/0")
    # then
    assert set(actual.first_links) == {hash_id(f"item:i{n}") for n in range(2, 10)}


def test_entities_of_an_order_are_linked_by_kind() -> None:
    # given
    order = msgspec.structs.replace(make_order("o1"), device_id="d", ip="10.0.0.1")
    # when
    folded = fold_batch("orders/0", [order])
    # then
    linked = {
        entity: (set(fields.first_links), set(fields.second_links))
        for entity in folded.updates.entities
        for fields in [read_slice(folded, entity, "orders/0")]
    }
    user, device, ip, card, item = map(hash_id, ("user:u", "device:d", "ip:10.0.0.1", "card:c", "item:i"))
    assert linked == {
        "user:u": ({item}, {device, ip, card}),
        "device:d": ({user}, {card}),
        "ip:10.0.0.1": ({user}, {card}),
        "card:c": ({user}, {device}),
        "item:i": ({user}, set()),
    }


def test_labels_count_by_task_and_verdict_and_fraud_in_windows() -> None:
    # given
    events = [
        make_judgement("fraud", 1.0),
        make_judgement("fraud", 0.0),
        make_judgement("cancellation", 1.0),
        make_judgement("relevance", 3.0),
        make_judgement("fraud", "a class"),
    ]
    # when
    actual = read_aggregates(fold_batch("judgements/0", events), BASE_MS, "card:c")
    # then
    assert (actual["fraud.bad"], actual["fraud.good"], actual["cancellation.bad"]) == (1.0, 1.0, 1.0)
    assert (actual["judgements.count_1h"], actual["judgements.sum_1h"], actual["judgements.count"]) == (2.0, 1.0, 2.0)


def test_the_second_order_of_a_burst_sees_the_first() -> None:
    # given two orders of two users with one card, in one batch and the same millisecond
    folded = fold_batch("orders/0", [make_order("o1", user="u1"), make_order("o2", user="u2")])
    # when
    updates = folded.updates
    card = [t for t, e in enumerate(updates.entity) if updates.entities[e] == "card:c"]
    known = [folded.aggregates_before[t][AGGREGATES.index("orders.count_10m")] for t in card]
    # then
    assert known == [0.0, 1.0]


def test_a_label_counts_from_its_arrival() -> None:
    # given an order, the label that judges it, another order, in the order of their arrival
    store = InMemoryProfileStore()
    log = [
        Arrival("orders/0", 0, make_order("o1")),
        Arrival("judgements/0", 0, make_judgement("fraud", 1.0, BASE_MS + 5)),
        Arrival("orders/0", 1, make_order("o2", BASE_MS + 10)),
    ]
    updates = to_updates(log)
    # when
    folded = fold(store.read(updates.entities), updates)
    # then
    card = [t for t, e in enumerate(updates.entity) if updates.entities[e] == "card:c"]
    assert [folded.aggregates_before[t][AGGREGATES.index("fraud.bad")] for t in card] == [0.0, 0.0, 1.0]


def test_aggregates_combine_the_slices_of_an_entity() -> None:
    # given
    log = [
        Arrival("orders/0", 0, make_order("o1", BASE_MS)),
        Arrival("orders/1", 0, make_order("o1", BASE_MS + 4_000)),
        Arrival("clicks/0", 0, make_click(0, BASE_MS + 6_000)),
    ]
    updates = to_updates(log)
    # when
    actual = read_aggregates(fold(InMemoryProfileStore().read(updates.entities), updates), BASE_MS + 10_000)
    # then
    assert (actual["orders.count"], actual["orders.age_s"], actual["orders.gap_s"]) == (2.0, 10.0, 6.0)
    assert (actual["clicks.count"], actual["clicks.age_s"]) == (1.0, 4.0)
    assert math.isnan(actual["reviews.age_s"])


def test_the_largest_events_do_not_overflow() -> None:
    # given an order whose lines are worth more than 64 bits of hundredths
    lines = (Line(item_id="i", quantity=10_000_000, unit_price=1e9, seller_id="s"),) * 2_000
    greatest = Order(
        event_id="o", ts_ms=4_102_444_800_000, user_id="u", lines=lines, amount=1e9, currency="EUR", payment_method="c"
    )
    # when
    folded = fold_batch("orders/0", [greatest])
    # then
    assert read_slice(folded, "item:i", "orders/0").sum == read_slice(folded, "seller:s", "orders/0").sum == 10**11
    assert read_slice(folded, "user:u", "orders/0").first_links == {hash_id("item:i"): 4_102_444_800}


@pytest.mark.parametrize(
    ("record", "words"),
    [
        (EMPTY_RECORD[:-1], "Found 471"),
        (EMPTY_RECORD + b"\0", "Found 473"),
        (b"\1" + EMPTY_RECORD[1:], "layout"),
        (b"", "Found 0"),
    ],
)
def test_a_truncated_slice_or_another_layout_is_refused(record: bytes, words: str) -> None:
    # given
    updates = to_updates([Arrival("clicks/0", 1, make_click())])
    # then
    assert RECORD.itemsize == 472
    with pytest.raises(BadProfile, match=words):
        fold([{"clicks/0": record} for _ in updates.entities], updates)


def test_an_event_writes_only_its_own_entities_and_source() -> None:
    # given
    store = InMemoryProfileStore()
    updates = to_updates([Arrival("clicks/0", 0, make_click()), Arrival("searches/0", 0, make_search())])
    # when
    writes = fold(store.read(updates.entities), updates).slice_writes()
    # then
    assert {entity: set(slices) for entity, slices in writes.items()} == {
        "user:u": {"clicks/0", "searches/0"},
        "item:i": {"clicks/0"},
    }


def make_search() -> Search:
    return Search(event_id="s", ts_ms=BASE_MS, user_id="u", query="red shoes")
