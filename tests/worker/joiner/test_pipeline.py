"""The joiner's loop over an intake and a publisher that this process plays itself."""

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import cast

import pytest

from contract.events import AHEAD_MS_MAX
from contract.messages import read_example, to_json, to_msgpack
from contract.settings import Settings
from tests.contract.joining.builders import FEEDBACK, make_click, make_impression, make_label, make_row, minutes_to_ms
from transport.records import PartitionOffsets, Record, TopicPartition
from worker.joiner.commit_metadata import CommitMetadata, decode_metadata, encode_metadata
from worker.joiner.dedup import PublishedOutputs, example_key
from worker.joiner.pipeline import JoinerPipeline, decode_record
from worker.kafka.consumer import GroupConsumer
from worker.kafka.producer import OutgoingRecord, TransactionalProducer
from worker.ops import metrics
from worker.ops.retry import Retry

SCORED, SEEN, CLICKS, LABELS = (
    TopicPartition(f"shop.{kind}", 0) for kind in ("scored", "impressions", "clicks", "labels")
)
LIST = to_msgpack(make_row("recommendation", "r", 0, ("a", "b")))


class FakeConsumer:
    """Gives the records that are put on a partition, from where it was told to read."""

    def __init__(self) -> None:
        self.logs: dict[TopicPartition, list[bytes | None]] = {
            partition: [] for partition in (SCORED, SEEN, CLICKS, LABELS)
        }
        self.next = dict.fromkeys(self.logs, 0)
        self.assignment = set(self.logs)
        self.at_end: set[TopicPartition] = set()
        self.paused: set[TopicPartition] = set()
        self.heartbeats = 0
        self.metadata = ""
        self.records_per_poll = 1_000  # records of one partition in one poll

    def put(self, place: TopicPartition, *values: bytes | None) -> None:
        self.logs[place] += values

    def poll(self, records_max: int, wait_ms: int) -> list[Record]:
        records = []
        for partition in sorted(self.assignment - self.paused):
            log = self.logs[partition]
            start, self.next[partition] = (
                self.next[partition],
                min(self.next[partition] + self.records_per_poll, len(log)),
            )
            records += [Record(partition, n, None, log[n], (), -1) for n in range(start, self.next[partition])]
        self.at_end = {partition for partition in self.assignment if self.next[partition] == len(self.logs[partition])}
        return records[:records_max]

    def pause_only(self, places: Iterable[TopicPartition]) -> None:
        self.paused = set(places)

    def query_offsets(self, places: Iterable[TopicPartition]) -> dict[TopicPartition, PartitionOffsets]:
        return {partition: PartitionOffsets(None, 0, len(self.logs[partition]), self.metadata) for partition in places}

    def seek(self, starts: Mapping[TopicPartition, int]) -> None:
        self.next.update(starts)

    def end_offsets(self) -> dict[TopicPartition, int]:
        return {
            partition: len(self.logs[partition]) + 1 for partition in self.assignment
        }  # each ends with a transaction's marker

    def heartbeat(self) -> None:
        self.heartbeats += 1


class FakePublisher:
    """Remembers what was published; `interrupt` happens once, before anything is."""

    def __init__(self) -> None:
        self.published: list[OutgoingRecord] = []
        self.committed: dict[TopicPartition, int] = {}
        self.takeovers, self.begun = 0, False
        self.notes: dict[TopicPartition, str] = {}
        self.interrupt: Callable[[], None] = lambda: None

    def fence_predecessors(self) -> None:
        self.takeovers += 1
        self.begun = False

    def publish(
        self,
        records: Sequence[OutgoingRecord],
        positions: Mapping[TopicPartition, int],
        intake: object,
        notes: Mapping[TopicPartition, str],
    ) -> None:
        interrupt, self.interrupt = self.interrupt, lambda: None
        self.begun = True
        interrupt()
        self.begun = False
        self.published += records
        self.committed.update(positions)
        self.notes.update(notes)


class JoinerHarness:
    """A joiner and what it is connected to."""

    def __init__(self) -> None:
        self.consumer, self.publisher = FakeConsumer(), FakePublisher()
        self.patience = Retry(threading.Event())
        self.now_s = 0.0
        self.published_before = PublishedOutputs(limit=100)
        self.joining = JoinerPipeline(
            settings=Settings(feedback=FEEDBACK),
            consumer=cast(GroupConsumer, self.consumer),
            producer=cast(TransactionalProducer, self.publisher),
            retry=self.patience,
            clock_s=lambda: self.now_s,
            load_published=lambda held: self.published_before,
        )
        self.joining.on_assigned(sorted(self.consumer.assignment))

    def pass_idle_time(self) -> None:
        """Time passes without anything on the partitions that are at their ends."""
        self.joining.step()
        self.now_s += 2

    def published_revisions(self) -> list[tuple[str, int]]:
        examples = [read_example(r.value or b"") for r in self.publisher.published if r.topic == "shop.feedback"]
        return [(example.example_id, example.revision) for example in examples]


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch) -> JoinerHarness:
    monkeypatch.setenv("SHOPSTREAM_CONFIG", "shop.toml")
    return JoinerHarness()


def test_positions_stay_at_what_is_open_and_move_on_when_it_is_done(played: JoinerHarness) -> None:
    played.consumer.put(CLICKS, to_json(make_click(-300, "x", recommendation_id=None)))
    played.consumer.put(SCORED, LIST)
    played.consumer.put(SEEN, to_json(make_impression(1, "a")))

    played.joining.step()
    assert played.publisher.committed == {CLICKS: 1, SCORED: 0, SEEN: 0}

    played.consumer.put(CLICKS, to_json(make_click(1000, "x", recommendation_id=None)))
    played.pass_idle_time()
    played.joining.step()
    assert played.publisher.committed == {CLICKS: 2, SCORED: 1, SEEN: 1}
    assert played.published_revisions() == [("r~a", 0)]


def test_nothing_is_published_when_nothing_has_moved(played: JoinerHarness) -> None:
    played.consumer.put(SCORED, LIST)
    played.joining.step()
    played.publisher.committed.clear()

    played.joining.step()

    assert played.publisher.committed == {}


def test_when_partitions_leave_everything_open_is_read_again(played: JoinerHarness) -> None:
    played.consumer.put(SCORED, LIST)
    played.consumer.put(SEEN, to_json(make_impression(1, "a")))
    played.joining.step()

    played.joining.on_revoked([LABELS])
    played.consumer.assignment.remove(LABELS)
    played.joining.step()
    played.consumer.put(CLICKS, to_json(make_click(2, "a")))
    played.joining.step()

    assert played.published_revisions() == [("r~a", 1)]


def test_a_batch_whose_partitions_leave_while_kafka_is_away_is_not_published_and_read_again(
    played: JoinerHarness,
) -> None:
    played.consumer.put(SCORED, LIST)
    played.consumer.put(SEEN, to_json(make_impression(1, "a")))
    played.consumer.put(CLICKS, to_json(make_click(2, "a")))

    def interrupt() -> None:
        played.joining.on_revoked([LABELS])
        played.patience.on_wait()

    played.publisher.interrupt = interrupt
    played.joining.step()
    assert (played.published_revisions(), played.publisher.committed) == ([], {})
    assert not played.publisher.begun  # what was begun was taken back before positions were asked for

    played.joining.step()
    assert played.published_revisions() == [("r~a", 1)]
    assert played.consumer.heartbeats == 1


def test_a_partition_that_gets_ahead_is_held_until_the_others_have_caught_up(played: JoinerHarness) -> None:
    played.consumer.records_per_poll = 1
    played.consumer.put(LABELS, to_json(make_label(100, 1)), to_json(make_label(101, 1)))
    played.consumer.put(SCORED, *(to_msgpack(make_row("order", f"o{n}", n)) for n in (0, 84, 86, 120)))

    held = []
    for _ in range(4):
        played.joining.step()
        held.append((played.consumer.next[SCORED], played.consumer.next[LABELS], played.consumer.paused))

    # A lead of 15 minutes is allowed; at the end the labels, at 101, may still have more to tell before 120.
    assert held == [(1, 1, {LABELS}), (2, 1, {LABELS}), (3, 1, set()), (4, 2, {SCORED})]


def test_nobody_is_held_for_a_partition_that_has_gone_quiet(played: JoinerHarness) -> None:
    played.consumer.put(LABELS, to_json(make_label(100, 1)))
    played.consumer.put(SCORED, to_msgpack(make_row("order", "o", 200)))
    played.joining.step()
    assert played.consumer.paused == {SCORED}

    played.now_s += 2
    played.joining.step()

    assert played.consumer.paused == set()


def test_a_topic_that_may_only_be_late_holds_timers_back_until_it_is_quiet(played: JoinerHarness) -> None:
    played.joining.step()
    played.now_s = 2  # all have been silent so far
    played.consumer.put(SCORED, LIST)
    played.consumer.put(SEEN, to_json(make_impression(1, "a")))
    played.joining.step()
    played.consumer.put(CLICKS, to_json(make_click(100, "x", recommendation_id=None)))
    played.joining.step()
    assert played.published_revisions() == []  # impressions and rows were being told just now

    played.now_s += 2
    played.joining.step()

    assert played.published_revisions() == [("r~a", 0)]


def test_what_is_read_to_its_end_and_what_is_held_does_not_lag(played: JoinerHarness) -> None:
    played.consumer.put(SCORED, LIST)
    played.joining.step()

    positions, ends = played.joining.progress()

    assert positions == ends == dict.fromkeys(played.consumer.assignment, 1) | {SCORED: 2}


def test_a_joiner_without_partitions_or_with_other_ones_of_each_topic_is_not_ready(played: JoinerHarness) -> None:
    assert "the same partitions" in (played.joining.not_ready_reason() or "")  # there are no orders

    played.consumer.assignment.add(TopicPartition("shop.orders", 0))
    assert played.joining.not_ready_reason() is None

    played.consumer.assignment.add(TopicPartition("shop.orders", 1))
    assert "shop.orders: [0, 1]" in (played.joining.not_ready_reason() or "")

    played.consumer.assignment.clear()
    assert "Found none" in (played.joining.not_ready_reason() or "")


def test_unreadable_records_are_passed(played: JoinerHarness) -> None:
    played.consumer.put(CLICKS, b"", None, b"\xff", b"[" * 100_000, b'{"event_id": 1}')
    played.consumer.put(SCORED, b"", None, b"\xff", b"\x91" * 100_000, b"{}", LIST)
    played.consumer.put(SEEN, to_json(make_impression(1, "a")))
    played.consumer.put(CLICKS, to_json(make_click(2, "a")))

    played.joining.step()

    assert played.published_revisions() == [("r~a", 1)]


def make_published(*keys: str) -> PublishedOutputs:
    made = PublishedOutputs(limit=100)
    made.add(keys, [])
    made.freeze()
    return made


def test_what_an_earlier_life_has_said_is_not_published_again(played: JoinerHarness) -> None:
    played.published_before = make_published(example_key("r~a", 1))
    played.consumer.put(SCORED, LIST)
    played.consumer.put(SEEN, to_json(make_impression(1, "a", "b")))
    played.consumer.put(CLICKS, to_json(make_click(2, "a")), to_json(make_click(3, "b")))

    played.joining.step()

    assert played.published_revisions() == [("r~b", 1)]


def test_a_joiner_takes_over_before_it_speaks_and_again_when_partitions_come_or_leave(played: JoinerHarness) -> None:
    played.consumer.put(SCORED, LIST)
    played.joining.step()
    played.joining.step()
    assert played.publisher.takeovers == 1

    played.joining.on_assigned([TopicPartition("shop.orders", 0)])
    played.joining.step()
    played.joining.step()
    again = played.publisher.takeovers
    assert again > 1

    played.joining.on_revoked([LABELS])
    played.joining.step()
    played.joining.step()
    assert played.publisher.takeovers > again


def test_what_was_said_is_remembered_until_all_that_led_to_it_is_passed(played: JoinerHarness) -> None:
    played.published_before = make_published(example_key("r~a", 0), example_key("q~a", 0))
    played.consumer.put(SCORED, LIST)
    played.consumer.put(SEEN, to_json(make_impression(1, "a")))
    played.consumer.put(CLICKS, to_json(make_click(1000, "x", recommendation_id=None)))
    played.pass_idle_time()
    played.joining.step()  # the list is done, and with it all that could be read again
    assert played.published_revisions() == []

    played.consumer.put(SCORED, to_msgpack(make_row("recommendation", "q", 1001, ("a",))))
    played.consumer.put(SEEN, to_json(make_impression(1002, "a", recommendation_id="q")))
    played.consumer.put(CLICKS, to_json(make_click(2000, "x", recommendation_id=None)))
    played.pass_idle_time()
    played.joining.step()

    assert played.published_revisions() == [("q~a", 0)]


def test_orphans_of_earlier_lives_are_counted_on(played: JoinerHarness) -> None:
    played.consumer.metadata = encode_metadata(CommitMetadata({"fraud": 4}))
    played.consumer.put(
        LABELS,
        to_json(make_label(0, 1, judged_event_id="gone")),
        to_json(make_label(5000, 1, judged_event_id="gone, too")),
    )

    played.pass_idle_time()
    played.joining.step()

    assert metrics.ORPHAN_LABELS.labels("fraud")._value.get() == 5
    assert decode_metadata(played.publisher.notes[LABELS]).orphans == {"fraud": 5}


def test_a_label_from_the_future_is_moved_to_its_records_time_and_counted() -> None:
    clamped, given = metrics.CLAMPED_TIMESTAMPS._value.get(), make_label(600, 1)
    times = [minutes_to_ms(600) - AHEAD_MS_MAX, minutes_to_ms(600) - AHEAD_MS_MAX - 1]

    opened = [decode_record("labels", Record(LABELS, 0, None, to_json(given), (), ms)) for ms in times]

    assert [one.ts_ms for one in opened if one] == [minutes_to_ms(600), minutes_to_ms(600) - AHEAD_MS_MAX - 1]
    assert metrics.CLAMPED_TIMESTAMPS._value.get() == clamped + 1


def test_partitions_that_come_later_are_joined_with_what_was_read_before(played: JoinerHarness) -> None:
    played.consumer.assignment.remove(CLICKS)
    played.consumer.put(SCORED, LIST)
    played.consumer.put(SEEN, to_json(make_impression(1, "a")))
    played.consumer.put(LABELS, to_json(make_label(0, 1, judged_event_id="gone")))
    played.joining.step()

    played.consumer.assignment.add(CLICKS)
    played.joining.on_assigned([CLICKS])
    played.consumer.put(CLICKS, to_json(make_click(2, "a")), to_json(make_click(5000, "x", recommendation_id=None)))
    played.consumer.put(LABELS, to_json(make_label(5000, 1, judged_event_id="gone, too")))
    for _ in range(2):
        played.joining.step()
    played.pass_idle_time()
    played.joining.step()

    assert played.published_revisions() == [("r~a", 1), ("r~a", 2)]
    assert decode_metadata(played.publisher.notes[LABELS]).orphans == {"fraud": 1}
