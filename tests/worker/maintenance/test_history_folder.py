"""Profiles from a history: each event counts once, whether a file or a topic has it, as the oracle counts them."""

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Final

import numpy as np
import pytest

from contract.errors import StaleState, Unavailable
from contract.events.model import Click, Erasure, Judgement, Label, Line, Order
from contract.hashing import BUCKETS
from contract.history.format import HistoricEvent
from contract.history.sources import history_source, is_history_source, partition_of
from contract.joining.joiner import Joiner
from contract.profiles.entity_updates import Arrival, to_updates
from contract.profiles.erasures import NO_ERASURES, Erasures
from contract.profiles.record import RECORD
from contract.profiles.slices import Slices
from contract.profiles.store import InMemoryProfileStore, MergedOffsets, fold
from contract.settings.worker import FeedbackSettings
from contract.units import DAY_MS, HOUR_MS, MINUTE_MS
from testkit.oracle.feeder import list_entities, read_slices
from testkit.oracle.profiles import ProfileOracle
from testkit.oracle.records import find_differences
from worker.maintenance.history_folder import HistoryEvents, HistoryFolder, TopicIds

START_MS: Final = 1_700_000_000_000
DIGEST: Final = "0123456789abcdef"
PARTITIONS: Final = {"orders": 4, "clicks": 4, "judgements": 2}


def make_history(seed: int, count: int) -> list[HistoricEvent]:
    """Clicks, orders and labels of few users, in order of time."""
    rng, ms = random.Random(seed), START_MS
    events, orders = list[HistoricEvent](), list[Order]()
    for n in range(count):
        ms += rng.choice([0, 1, MINUTE_MS, HOUR_MS, DAY_MS])
        user, item = f"u{rng.randrange(8)}", f"i{rng.randrange(5)}"
        shared: dict[str, Any] = {"event_id": f"e{n}", "ts_ms": ms, "user_id": user}
        if orders and rng.random() < 0.2:
            order = rng.choice(orders)
            label = Label(
                **{**shared, "user_id": order.user_id}, judged_event_id=order.event_id, task="fraud", value=n % 2
            )
            events.append(HistoricEvent("labels", label))
        elif rng.random() < 0.5:
            events.append(HistoricEvent("clicks", Click(**shared, item_id=item, device_id=f"d{rng.randrange(3)}")))
        else:
            line = Line(item_id=item, quantity=2, unit_price=1.25, seller_id="s")
            orders.append(
                Order(**shared, lines=(line,), amount=2.5, currency="EUR", payment_method="card", card_id="k")
            )
            events.append(HistoricEvent("orders", orders[-1]))
    return events


def open_events(
    events: Iterable[HistoricEvent], topic_ids: TopicIds | None = None, until_ms: int | None = None
) -> HistoryEvents:
    return HistoryEvents(
        events,
        topic_ids=topic_ids or TopicIds(),
        feedback=FeedbackSettings(),
        has_judgements=False,
        until_ms=until_ms,
    )


def fold_history(
    events: HistoryEvents, store: InMemoryProfileStore, erasures: Erasures = NO_ERASURES
) -> tuple[HistoryFolder, list[Arrival]]:
    folder = HistoryFolder(profiles=store, digest=DIGEST, partitions=PARTITIONS, erasures=erasures)
    all_arrivals = list[Arrival]()
    for batch in events.batches():
        arrivals = folder.to_arrivals(batch)
        folder.fold(arrivals)
        all_arrivals += arrivals
    folder.finish()
    return folder, all_arrivals


def fold_topic(events: Sequence[HistoricEvent], store: InMemoryProfileStore) -> list[Arrival]:
    """Fold what is on a topic, as its workers do."""
    arrivals = [Arrival(f"{kind}~topic/0", n, event) for n, (kind, event) in enumerate(events)]
    updates = to_updates(arrivals)
    store.merge(fold(store.read(updates.entities), updates).slice_writes(), {}, {})
    return arrivals


def count_events(store: InMemoryProfileStore, entity: str) -> int:
    return sum(int(np.frombuffer(record, RECORD)["count"][0]) for record in store.slices.get(entity, {}).values())


@pytest.mark.parametrize("batch_events", [7, 10_000])
def test_profiles_from_a_history_equal_the_oracles(
    batch_events: int, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.maintenance.history_folder.BATCH_EVENTS", batch_events)
    store, oracle = InMemoryProfileStore(), ProfileOracle()
    _, arrivals = fold_history(open_events(make_history(seed, 600)), store)
    assert {type(arrival.event) for arrival in arrivals} == {Click, Order, Judgement}
    for arrival in arrivals:
        oracle.add(arrival.source, arrival.offset, arrival.event)
    assert find_differences(oracle, read_slices(store, list_entities(arrivals))) == []


def test_an_event_of_file_and_topic_counts_once_whatever_the_overlap(seed: int) -> None:
    history = [h for h in make_history(seed, 400) if h.kind != "labels"]
    expected = InMemoryProfileStore()
    fold_topic(history, expected)
    for first, last in ((0, 0), (0, 400), (150, 400), (150, 300), (390, 400)):
        # given a topic with some of the events, out of order, and a file with all of them
        on_topic = random.Random(seed).sample(history[first:last], len(history[first:last]))
        topic_ids = TopicIds()
        for kind, event in on_topic:
            topic_ids.add(kind, event)
        # when
        store, events = InMemoryProfileStore(), open_events(history, topic_ids)
        fold_history(events, store)
        fold_topic(on_topic, store)
        # then
        assert events.skipped.total() == len(on_topic)
        assert {e: count_events(store, e) for e in expected.slices} == {
            e: count_events(expected, e) for e in expected.slices
        }


def test_a_label_on_the_topic_is_not_judged_again_in_the_history(seed: int) -> None:
    history = make_history(seed, 300)
    _, arrivals = fold_history(open_events(history), InMemoryProfileStore())
    judged = next(arrival.event for arrival in arrivals if isinstance(arrival.event, Judgement))
    topic_ids = TopicIds()
    topic_ids.add("judgements", judged)
    _, fewer = fold_history(open_events(history, topic_ids), InMemoryProfileStore())
    assert len(fewer) == len(arrivals) - 1


def test_an_outcome_that_came_later_is_judged_by_a_later_export(seed: int) -> None:
    # given an export before the outcomes of its orders, which arrive on the topic of labels
    later = make_history(seed, 300)
    earlier = [h for h in later if h.kind != "labels"]
    # then the joiner, which has no row of these orders, judges none of them
    joiner = Joiner(feedback=FeedbackSettings(), tasks=())
    for label in (h.event for h in later if h.kind == "labels"):
        joiner.add_event(label)
    joiner.advance(later[-1].event.ts_ms + FeedbackSettings().fraud_window_s * 1_000 + 1)
    output = joiner.drain()
    assert output.judgements == []
    assert len(output.orphans) == sum(h.kind == "labels" for h in later)
    # and the next bootstrap, of an export with them, judges each that it can
    assert count_judgements(earlier) == 0
    assert count_judgements(later) > 20


def count_judgements(history: Sequence[HistoricEvent]) -> int:
    """The judgements in profiles that begin with this history alone."""
    _, arrivals = fold_history(open_events(history), InMemoryProfileStore())
    return sum(isinstance(arrival.event, Judgement) for arrival in arrivals)


def test_labels_of_orders_on_the_topic_are_left_to_the_joiner(seed: int) -> None:
    history, topic_ids = make_history(seed, 300), TopicIds()
    for kind, event in history:
        if kind == "orders":
            topic_ids.add(kind, event)
    _, arrivals = fold_history(open_events(history, topic_ids), InMemoryProfileStore())
    assert {arrival.topic for arrival in arrivals} == {"clicks"}


def test_events_from_the_cut_on_are_left_out(seed: int) -> None:
    history = make_history(seed, 100)
    until_ms = history[50].event.ts_ms
    events = open_events(history, until_ms=until_ms)
    _, arrivals = fold_history(events, InMemoryProfileStore())
    assert max(arrival.event.ts_ms for arrival in arrivals) < until_ms
    assert events.left_out == sum(historic.event.ts_ms >= until_ms for historic in history)


def test_an_erased_person_is_not_folded(seed: int) -> None:
    history = make_history(seed, 200)
    erasures = Erasures([Erasure(event_id="x", user_id="u1", ts_ms=history[-1].event.ts_ms)])
    store = InMemoryProfileStore()
    fold_history(open_events(history), store, erasures)
    assert "user:u1" not in store.slices
    assert "user:u2" in store.slices


class LosingStore(InMemoryProfileStore):
    """Loses the reply to a merge, after it wrote, whenever `loses` says so."""

    def __init__(self, loses: Callable[[], bool]) -> None:
        super().__init__()
        self.loses = loses

    def merge(self, writes: Mapping[str, Slices], expected: MergedOffsets, after: MergedOffsets) -> None:
        super().merge(writes, expected, after)
        if self.loses():
            raise Unavailable("Redis should answer. Found no reply.")


def retry(attempt: Callable[[], None]) -> None:
    while True:
        try:
            return attempt()
        except Unavailable:
            continue


def test_a_lost_reply_counts_nothing_twice(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.maintenance.history_folder.BATCH_EVENTS", 20)
    rng, history, expected = random.Random(seed), make_history(seed, 300), InMemoryProfileStore()
    fold_history(open_events(history), expected)
    store = LosingStore(lambda: rng.random() < 0.5)
    folder = HistoryFolder(profiles=store, digest=DIGEST, partitions=PARTITIONS)
    for batch in open_events(history).batches():
        retry(partial(folder.fold, folder.to_arrivals(batch)))
    retry(folder.finish)
    assert store.slices == expected.slices
    assert store.offsets == expected.offsets
    assert set(store.offsets) == set(range(BUCKETS))


def test_a_store_that_lost_the_first_part_is_refused(seed: int) -> None:
    # given a folded first part, and a second one whose reply is lost
    store = LosingStore(lambda: False)
    folder = HistoryFolder(profiles=store, digest=DIGEST, partitions=PARTITIONS)
    arrivals = folder.to_arrivals(make_history(seed, 100))
    folder.fold(arrivals[:50])
    store.loses = lambda: True
    with pytest.raises(Unavailable):
        folder.fold(arrivals[50:])
    # when the store loses everything
    store.offsets.clear()
    # then
    with pytest.raises(StaleState, match="bootstrap again"):
        folder.fold(arrivals[50:])


def test_a_source_of_a_history_is_told_from_that_of_a_topic() -> None:
    source = history_source("orders", DIGEST, 3)
    assert source == "orders~history.0123456789ab/3"
    assert is_history_source(source)
    assert not is_history_source("orders~mXk2b0R9SJqTn5zYJ8bV4g/3")
    assert partition_of("u-17", 4) == 0  # what librdkafka computes for this key
