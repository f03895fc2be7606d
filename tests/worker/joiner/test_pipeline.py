"""The joiner's loop over an in-memory consumer and producer."""

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from typing import Any, cast

import pytest
from msgspec.structs import replace

from contract.events.model import AHEAD_MS_MAX, Judgement
from contract.events.reading import decode
from contract.messages import read_example, to_json, to_msgpack
from contract.settings.reading import Settings
from testkit.metrics import read_metric
from tests.contract.joining.builders import FEEDBACK, make_click, make_impression, make_label, make_row, minutes_to_ms
from tests.metrics import assert_increases
from transport.records import PartitionOffsets, Record, TopicPartition
from worker.group.consumer import GroupConsumer
from worker.joiner.commit_metadata import CommitMetadata, decode_metadata, encode_metadata
from worker.joiner.decoding import RecordDecoder
from worker.joiner.dedup import PublishedOutputs, example_key, judgement_key
from worker.joiner.erasures import JoinerErasures
from worker.joiner.foreign_labels import WARN_EVERY_S, ForeignLabelLog
from worker.joiner.membership import JoinerMembership
from worker.joiner.pipeline import Clocks, JoinerPipeline, JoinerRecovery
from worker.joiner.store.store_folder import StoreFolder
from worker.kafka.outgoing import OutgoingRecord
from worker.kafka.producer import OutcomeUnknown, TransactionalProducer
from worker.ops import metrics
from worker.ops.retry import Retry
from worker.probes.progress import Pause, Progress

SCORED, IMPRESSIONS, CLICKS, LABELS = (
    TopicPartition(f"shop.{kind}", 0) for kind in ("scored", "impressions", "clicks", "labels")
)
ALL = (SCORED, IMPRESSIONS, CLICKS, LABELS)
USERS = ("u", "v", "w", "x")
WALL_MS = 1_764_000_000_000
LIST = to_msgpack(make_row("recommendation", "r", 0, ("a", "b")))


class FakeConsumer:
    """Returns the records that were put on its partitions, from the position of each."""

    def __init__(self) -> None:
        self.logs: dict[TopicPartition, list[bytes | None]] = {
            partition: [] for partition in (SCORED, IMPRESSIONS, CLICKS, LABELS)
        }
        self.next = dict.fromkeys(self.logs, 0)
        self.assignment = set(self.logs)
        self.at_end: dict[TopicPartition, int] = {}
        self.held_back: dict[TopicPartition, tuple[int, int]] = {}
        self.missing: frozenset[TopicPartition] = frozenset()
        self.paused: set[TopicPartition] = set()
        self.heartbeats = 0
        self.starts: dict[TopicPartition, int] = {}  # that were sought
        self.metadata: dict[TopicPartition, str] = {}
        self.committed: dict[TopicPartition, int] = {}
        self.kafka_ms = WALL_MS
        self.records_per_poll = 1_000  # records of one partition in one poll

    def put(self, partition: TopicPartition, *values: bytes | None) -> None:
        self.logs[partition] += values

    def poll(self, records_max: int, wait_ms: int) -> list[Record]:
        records = []
        for partition in sorted(self.assignment - self.paused):
            log = self.logs[partition]
            start = self.next[partition]
            end = min(start + self.records_per_poll, len(log))
            records += [Record(partition, n, None, log[n], (), self.kafka_ms) for n in range(start, end)]
            self.next[partition] = end
        # Each partition ends with a transaction marker.
        self.at_end = {
            partition: end + 1
            for partition in self.assignment
            if self.next[partition] == (end := len(self.logs[partition]))
        }
        return records[:records_max]

    def pause_only(self, partitions: Iterable[TopicPartition]) -> None:
        self.paused = set(partitions)

    def query_offsets(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, PartitionOffsets]:
        return {
            partition: PartitionOffsets(
                self.committed.get(partition), 0, len(self.logs[partition]), self.metadata.get(partition, "")
            )
            for partition in partitions
        }

    def count_partitions(self, topics: Iterable[str]) -> dict[str, int]:
        counts = Counter(partition.topic for partition in self.logs)
        return {topic: counts[topic] for topic in topics if topic in counts}

    def seek(self, starts: Mapping[TopicPartition, int]) -> None:
        self.starts.update(starts)
        self.next.update(starts)

    def end_offsets(self) -> dict[TopicPartition, int]:
        return {partition: len(self.logs[partition]) + 1 for partition in self.assignment}

    def heartbeat(self) -> None:
        self.heartbeats += 1

    def close(self) -> None:
        pass


class FakeProducer:
    """Records what is published. `interrupt` runs once during a publish, which then waits for Kafka once."""

    def __init__(self, consumer: FakeConsumer, on_wait: Callable[[], None]) -> None:
        self._consumer, self._on_wait = consumer, on_wait
        self.published: list[OutgoingRecord] = []
        self.committed: dict[TopicPartition, int] = {}
        self.fences = 0
        self.has_begun = False
        self.metadata: dict[TopicPartition, str] = {}
        self.interrupt: Callable[[], None] | None = None

    def close(self) -> None:
        pass

    def fence_predecessors(self) -> None:
        self.fences += 1
        self.has_begun = False

    def publish(
        self,
        records: Sequence[OutgoingRecord],
        positions: Mapping[TopicPartition, int],
        consumer: object,
        metadata: Mapping[TopicPartition, str],
    ) -> None:
        interrupt, self.interrupt = self.interrupt, None
        self.has_begun = True
        if interrupt:
            interrupt()
            self._on_wait()
        self.has_begun = False
        self.published += records
        self.committed.update(positions)
        self.metadata.update(metadata)
        self._consumer.committed.update(positions)
        self._consumer.metadata.update(metadata)


class FakeOutputs:
    """What the test says that earlier runs published."""

    def __init__(self, harness: "JoinerHarness") -> None:
        self._harness = harness

    def load(self, offsets: Mapping[TopicPartition, PartitionOffsets]) -> dict[int, PublishedOutputs]:
        return dict.fromkeys({partition.partition for partition in offsets}, self._harness.published_before)

    def load_from(self, numbers: Set[int], starts: object) -> dict[int, PublishedOutputs]:
        return dict.fromkeys(numbers, self._harness.published_before)

    def fetch_ends(self) -> dict[TopicPartition, int]:
        return {}


class JoinerHarness:
    """The joiner's pipeline with its fake consumer and producer; `log`: of an earlier one, which was killed."""

    def __init__(
        self,
        erasures: JoinerErasures | None = None,
        *,
        settings: Settings | None = None,
        stores: StoreFolder | None = None,
        log: FakeConsumer | None = None,
    ) -> None:
        self.consumer = FakeConsumer()
        if log:
            self.consumer.logs, self.consumer.metadata = log.logs, log.metadata
            self.consumer.committed = log.committed
            self.consumer.next = {partition: log.committed.get(partition, 0) for partition in log.logs}
        consumer = cast(GroupConsumer, self.consumer)
        membership = JoinerMembership(consumer)
        self.producer = FakeProducer(self.consumer, membership.heartbeat)
        self.now_s = 0.0
        self.published_before = PublishedOutputs(limit=100)
        self.pipeline = JoinerPipeline(
            settings=settings or Settings(feedback=FEEDBACK),
            consumer=consumer,
            membership=membership,
            producer=cast(TransactionalProducer, self.producer),
            retry=Retry(threading.Event(), on_wait=membership.heartbeat),
            clocks=Clocks(lambda: self.now_s, lambda: WALL_MS),
            recovery=JoinerRecovery(FakeOutputs(self), stores),
            erasures=erasures,
        )
        self.pipeline.on_assigned(sorted(self.consumer.assignment))

    def rebalance(self, *partitions: TopicPartition, revoke: bool = True) -> None:
        """Revoke all partitions, as an eager rebalance does, and assign these."""
        if revoke:
            self.pipeline.on_revoked(sorted(self.consumer.assignment))
        self.consumer.assignment, self.consumer.at_end, self.consumer.paused = set(partitions), {}, set()
        starts = self.pipeline.on_assigned(list(partitions))
        for partition in partitions:
            self.consumer.logs.setdefault(partition, [])
            self.consumer.next[partition] = starts.get(partition, self.consumer.committed.get(partition, 0))

    def pass_idle_time(self) -> None:
        """Step, then advance the clock so that partitions at their ends become idle."""
        self.pipeline.step()
        self.now_s += 2

    def remember_published(self, earlier: "JoinerHarness") -> None:
        """Find in the output topics what an earlier joiner published."""
        keys = [example_key(*revision) for revision in earlier.list_published_revisions()]
        for record in earlier.producer.published:
            if record.topic == "shop.judgements":
                judgement = decode("judgements", record.value)
                assert isinstance(judgement, Judgement)
                keys.append(judgement_key(judgement.judged_event_id, judgement.event_id, judgement.task))
        self.published_before.add(keys, [])
        self.published_before.freeze()

    def list_published_revisions(self) -> list[tuple[str, int]]:
        examples = [read_example(r.value or b"") for r in self.producer.published if r.topic == "shop.feedback"]
        return [(example.example_id, example.revision) for example in examples]


@pytest.fixture
def harness(monkeypatch: pytest.MonkeyPatch) -> JoinerHarness:
    monkeypatch.setenv("SHOPSTREAM_CONFIG", "shop.toml")
    return JoinerHarness()


def test_positions_stay_at_open_rows_and_advance_when_they_close(harness: JoinerHarness) -> None:
    harness.consumer.put(CLICKS, to_json(make_click(-300, "x", recommendation_id=None)))
    harness.consumer.put(SCORED, LIST)
    harness.consumer.put(IMPRESSIONS, to_json(make_impression(1, "a")))

    harness.pipeline.step()
    assert harness.producer.committed == {CLICKS: 1, SCORED: 0, IMPRESSIONS: 0}

    harness.consumer.put(CLICKS, to_json(make_click(1000, "x", recommendation_id=None)))
    harness.pass_idle_time()
    harness.pipeline.step()
    assert harness.producer.committed == {CLICKS: 2, SCORED: 1, IMPRESSIONS: 1}
    assert harness.list_published_revisions() == [("r~a", 0)]


def test_without_outputs_or_new_positions_nothing_is_published(harness: JoinerHarness) -> None:
    harness.consumer.put(SCORED, LIST)
    harness.pipeline.step()
    harness.producer.committed.clear()

    harness.pipeline.step()

    assert harness.producer.committed == {}


def test_rows_of_a_shard_that_is_assigned_again_are_kept(harness: JoinerHarness) -> None:
    harness.consumer.put(SCORED, LIST)
    harness.consumer.put(IMPRESSIONS, to_json(make_impression(1, "a")))
    harness.pipeline.step()
    harness.rebalance(*ALL)
    assert harness.consumer.next[SCORED] == 1  # the row is not read again

    harness.consumer.put(CLICKS, to_json(make_click(2, "a")))
    harness.pipeline.step()

    assert harness.list_published_revisions() == [("r~a", 1)]


def test_a_shard_that_another_joiner_had_in_between_is_read_again(harness: JoinerHarness) -> None:
    # given a shard with a waiting row
    harness.consumer.put(SCORED, LIST)
    harness.consumer.put(IMPRESSIONS, to_json(make_impression(1, "a")))
    harness.pipeline.step()
    # when another joiner has committed the same position before the shard comes back
    harness.consumer.metadata[SCORED] = encode_metadata(CommitMetadata(writer="another"))
    harness.published_before = make_published(example_key("r~a", 1))
    harness.rebalance(*ALL)
    harness.consumer.put(CLICKS, to_json(make_click(2, "a")), to_json(make_click(3, "b")))
    harness.consumer.put(IMPRESSIONS, to_json(make_impression(1, "b")))
    for _ in range(2):
        harness.pipeline.step()
    # then what it published is known
    assert harness.list_published_revisions() == [("r~b", 1)]


def test_a_shard_that_was_away_for_a_rebalance_is_read_again(harness: JoinerHarness) -> None:
    harness.consumer.put(SCORED, LIST)
    harness.consumer.put(IMPRESSIONS, to_json(make_impression(1, "a")))
    harness.pipeline.step()

    harness.rebalance()
    harness.pipeline.step()
    assert harness.pipeline.not_ready_reason() is not None
    harness.rebalance(*ALL)

    assert harness.consumer.next[SCORED] == 0


def test_records_fetched_again_after_a_rebalance_are_skipped(harness: JoinerHarness) -> None:
    harness.consumer.put(LABELS, to_json(make_label(0, 1, judged_event_id="gone")))
    harness.consumer.put(LABELS, to_json(make_label(0, 1, judged_event_id="gone", ident="second")))
    harness.pipeline.step()

    harness.rebalance(*ALL)
    harness.consumer.next[LABELS] = 1
    harness.consumer.put(LABELS, to_json(make_label(5000, 1, judged_event_id="gone, too")))
    harness.pass_idle_time()
    harness.pipeline.step()
    harness.pass_idle_time()
    harness.pipeline.step()

    assert read_metric(metrics.ORPHAN_LABELS, "fraud") == 2


def test_shards_are_joined_by_themselves(harness: JoinerHarness) -> None:
    # given two shards, of which the second has no later record
    second = {partition: partition._replace(partition=1) for partition in ALL}
    harness.rebalance(*ALL, *second.values())
    for number, name in ((0, "r"), (1, "q")):
        harness.consumer.put(SCORED._replace(partition=number), to_msgpack(make_row("recommendation", name, 0, ("a",))))
        shown = make_impression(1, "a", recommendation_id=name)
        harness.consumer.put(IMPRESSIONS._replace(partition=number), to_json(shown))
    harness.consumer.put(CLICKS, to_json(make_click(100, "x", recommendation_id=None)))
    # when everything was read
    harness.pass_idle_time()
    harness.pipeline.step()
    # then only the time of the first has passed
    assert harness.list_published_revisions() == [("r~a", 0)]
    # and when the second is revoked, the first keeps its rows
    harness.rebalance(*ALL)
    assert {harness.consumer.next[partition] for partition in (SCORED, IMPRESSIONS, CLICKS)} == {1}
    harness.rebalance(*second.values())
    assert harness.consumer.next[second[SCORED]] == 0


def test_topics_with_other_numbers_of_partitions_are_not_joined(harness: JoinerHarness) -> None:
    # given a topic with one partition more than the others
    wide = [LABELS, LABELS._replace(partition=1)]
    harness.rebalance(*ALL, *wide)
    harness.consumer.put(SCORED, LIST)
    harness.consumer.put(IMPRESSIONS, to_json(make_impression(1, "a")))
    harness.consumer.put(CLICKS, to_json(make_click(2, "a")))
    # when it is read
    harness.pipeline.step()
    # then nothing is published, with the reason and the command
    assert harness.list_published_revisions() == []
    reason = harness.pipeline.not_ready_reason() or ""
    assert "shop.labels: 2" in reason
    assert "--alter --partitions 2 --topic" in reason
    assert harness.consumer.paused == harness.consumer.assignment
    # and when the others have as many, all is joined
    for partition in ALL:
        harness.consumer.logs.setdefault(partition._replace(partition=1), [])
    harness.now_s += 2
    for _ in range(2):
        harness.pipeline.step()
    assert harness.list_published_revisions() == [("r~a", 1)]


def test_a_batch_revoked_while_kafka_is_down_is_not_published_but_reread(harness: JoinerHarness) -> None:
    harness.consumer.put(SCORED, LIST)
    harness.consumer.put(IMPRESSIONS, to_json(make_impression(1, "a")))
    harness.consumer.put(CLICKS, to_json(make_click(2, "a")))

    harness.producer.interrupt = lambda: harness.rebalance(*ALL)
    harness.pipeline.step()
    assert (harness.list_published_revisions(), harness.producer.committed) == ([], {})
    assert not harness.producer.has_begun  # fenced before the offsets were queried

    harness.pipeline.step()
    assert harness.list_published_revisions() == [("r~a", 1)]
    assert harness.consumer.heartbeats == 1


class InterruptedErasures(JoinerErasures):
    """`interrupt` runs once in a poll, which is in the middle of a batch."""

    def __init__(self) -> None:
        super().__init__()
        self.interrupt: Callable[[], None] | None = None

    def poll(self) -> Iterator[tuple[str, int]]:
        interrupt, self.interrupt = self.interrupt, None
        if interrupt:
            interrupt()
        return super().poll()


def test_partitions_that_are_assigned_during_a_batch_are_joined_from_the_next_batch_on() -> None:
    # given a joiner without partitions
    erasures = InterruptedErasures()
    harness = JoinerHarness(erasures)
    harness.consumer.put(SCORED, LIST)
    harness.consumer.put(IMPRESSIONS, to_json(make_impression(1, "a")))
    harness.consumer.put(CLICKS, to_json(make_click(2, "a")))
    harness.rebalance()
    # when they are assigned during a batch
    erasures.interrupt = lambda: harness.rebalance(*ALL, revoke=False)
    harness.pipeline.step()
    # then
    assert harness.list_published_revisions() == []
    for _ in range(2):
        harness.pipeline.step()
    assert harness.list_published_revisions() == [("r~a", 1)]


def test_a_shard_revoked_during_a_batch_is_read_again_when_it_comes_back(harness: JoinerHarness) -> None:
    harness.consumer.put(SCORED, LIST)
    harness.consumer.put(IMPRESSIONS, to_json(make_impression(1, "a")))
    harness.consumer.put(CLICKS, to_json(make_click(2, "a")))

    harness.producer.interrupt = lambda: harness.pipeline.on_revoked(list(ALL))
    harness.pipeline.step()
    harness.rebalance(*ALL, revoke=False)
    harness.pipeline.step()

    assert harness.list_published_revisions() == [("r~a", 1)]


@pytest.mark.parametrize("is_committed", [False, True])
def test_outputs_are_published_once_where_the_producer_cannot_tell_whether_they_were_committed(
    harness: JoinerHarness, monkeypatch: pytest.MonkeyPatch, is_committed: bool
) -> None:
    # given
    harness.consumer.put(SCORED, LIST)
    harness.consumer.put(IMPRESSIONS, to_json(make_impression(1, "a")))
    harness.consumer.put(CLICKS, to_json(make_click(2, "a")))
    publish = harness.producer.publish

    def publish_unanswered(*publication: Any) -> None:
        monkeypatch.undo()
        monkeypatch.setenv("SHOPSTREAM_CONFIG", "shop.toml")
        if is_committed:
            publish(*publication)
            harness.remember_published(harness)
        raise OutcomeUnknown("A commit should be answered. Found no answer.")

    monkeypatch.setattr(harness.producer, "publish", publish_unanswered)
    fences = harness.producer.fences
    # when
    for _ in range(3):
        harness.pipeline.step()
    # then
    assert harness.producer.fences > fences
    assert harness.list_published_revisions() == [("r~a", 1)]


def test_a_partition_ahead_is_paused_until_the_others_catch_up(harness: JoinerHarness) -> None:
    harness.consumer.records_per_poll = 1
    harness.consumer.put(LABELS, to_json(make_label(100, 1)), to_json(make_label(101, 1)))
    rows = [make_row("order", f"o{n}", n, user=f"u{index % 3}") for index, n in enumerate((0, 84, 84, 86, 86, 86))]
    harness.consumer.put(SCORED, *map(to_msgpack, rows))

    states = []
    for _ in range(6):
        harness.pipeline.step()
        states.append((harness.consumer.next[SCORED], harness.consumer.next[LABELS], harness.consumer.paused))

    # A lead of 15 minutes is allowed, and three users have to agree on the time of the rows.
    assert states == [(n, 1, {LABELS}) for n in range(1, 6)] + [(6, 1, set())]


def test_no_partition_is_paused_for_an_idle_one(harness: JoinerHarness) -> None:
    harness.consumer.put(LABELS, to_json(make_label(100, 1)))
    harness.consumer.put(SCORED, to_msgpack(make_row("order", "o", 200)))
    harness.pipeline.step()
    assert harness.consumer.paused == {SCORED}

    harness.now_s += 2
    harness.pipeline.step()

    assert harness.consumer.paused == set()


def test_a_topic_holds_timers_back_until_it_is_idle(harness: JoinerHarness) -> None:
    harness.pipeline.step()
    harness.now_s = 2  # all partitions are idle so far
    harness.consumer.put(SCORED, LIST)
    harness.consumer.put(IMPRESSIONS, to_json(make_impression(1, "a")))
    harness.pipeline.step()
    harness.consumer.put(CLICKS, to_json(make_click(100, "x", recommendation_id=None)))
    harness.pipeline.step()
    assert harness.list_published_revisions() == []  # rows and impressions were read just now, so they are not idle

    harness.now_s += 2
    harness.pipeline.step()

    assert harness.list_published_revisions() == [("r~a", 0)]


def test_a_restarted_joiner_closes_windows_where_later_events_reach_one_topic_only(harness: JoinerHarness) -> None:
    # given an order that waits, impressions that are not read again, and labels without an event
    harness.consumer.put(IMPRESSIONS, to_json(make_impression(0, "x", recommendation_id="gone")))
    harness.consumer.put(SCORED, to_msgpack(make_row("order", "o", 400)))
    harness.consumer.put(CLICKS, *(to_json(make_click(401, "x", recommendation_id=None, user=user)) for user in USERS))
    for _ in range(2):
        harness.pass_idle_time()
    assert harness.list_published_revisions() == []
    # when another joiner goes on, and clicks of long after come
    restarted = JoinerHarness(log=harness.consumer)
    for user in USERS:
        harness.consumer.put(CLICKS, to_json(make_click(100_000, "x", recommendation_id=None, user=user)))
    for _ in range(3):
        restarted.pass_idle_time()
    # then
    assert [ident for ident, _ in restarted.list_published_revisions()] == ["o"]


def test_the_partition_that_holds_the_stream_time_back_is_shown_until_it_is_idle(harness: JoinerHarness) -> None:
    # given rows that were read before the clicks of two hours later
    harness.pipeline.step()
    harness.now_s = 2
    for user in USERS:
        harness.consumer.put(SCORED, to_msgpack(make_row("order", f"o-{user}", 0, user=user)))
        harness.consumer.put(CLICKS, to_json(make_click(120, "x", recommendation_id=None, user=user)))
    # when
    harness.pipeline.step()
    harness.pipeline.name_held_back()
    # then
    assert read_metric(metrics.STREAM_TIME_HELD_SECONDS, SCORED.topic, "0") == 7_200
    harness.now_s += 2
    harness.pipeline.step()
    harness.pipeline.name_held_back()
    (family,) = metrics.STREAM_TIME_HELD_SECONDS.collect()
    assert SCORED.topic not in {sample.labels["topic"] for sample in family.samples}


def test_no_silent_label_is_published_behind_an_open_transaction(harness: JoinerHarness) -> None:
    # given a list that was displayed, and clicks that a transaction holds back
    harness.consumer.put(SCORED, LIST)
    harness.consumer.put(IMPRESSIONS, to_json(make_impression(1, "a")), to_json(make_impression(100, "x")))
    harness.consumer.held_back = {CLICKS: (1, 2)}
    for harness.now_s in (0, 2, 4):
        harness.pipeline.step()
    assert harness.list_published_revisions() == []
    # when the transaction is aborted
    harness.consumer.held_back = {}
    for harness.now_s in (5, 7):
        harness.pipeline.step()
    # then
    assert harness.list_published_revisions() == [("r~a", 0)]


def test_partitions_at_their_ends_do_not_lag(harness: JoinerHarness) -> None:
    harness.consumer.put(SCORED, LIST)
    harness.pipeline.step()

    positions, ends = harness.pipeline.progress()

    assert positions == ends == dict.fromkeys(harness.consumer.assignment, 1) | {SCORED: 2}


def test_a_paused_partition_lags_and_tells_for_which_one_it_waits(harness: JoinerHarness) -> None:
    # given clicks that are hours ahead of scored rows which are to come
    harness.consumer.records_per_poll = 1
    harness.consumer.put(SCORED, *[LIST] * 3)
    harness.consumer.put(CLICKS, *[to_json(make_click(20_000, "a"))] * 2)
    harness.pipeline.step()
    progress = Progress()
    # when
    harness.pipeline.publish_progress(progress)
    # then
    latest = progress.latest
    assert latest
    assert CLICKS in latest.ends
    assert latest.paused[CLICKS] == Pause(SCORED)
    assert latest.folded[CLICKS] == sum(latest.positions.values())


def test_a_joiner_without_the_same_partitions_of_each_topic_is_not_ready(harness: JoinerHarness) -> None:
    assert "the same partitions" in (harness.pipeline.not_ready_reason() or "")  # orders are not assigned

    harness.consumer.assignment.add(TopicPartition("shop.orders", 0))
    assert harness.pipeline.not_ready_reason() is None

    harness.consumer.assignment.add(TopicPartition("shop.orders", 1))
    assert "shop.orders: [0, 1]" in (harness.pipeline.not_ready_reason() or "")

    harness.consumer.assignment.clear()
    assert "Found none" in (harness.pipeline.not_ready_reason() or "")


def test_unreadable_records_are_skipped(harness: JoinerHarness) -> None:
    harness.consumer.put(CLICKS, b"", None, b"\xff", b"[" * 100_000, b'{"event_id": 1}')
    harness.consumer.put(SCORED, b"", None, b"\xff", b"\x91" * 100_000, b"{}", LIST)
    harness.consumer.put(IMPRESSIONS, to_json(make_impression(1, "a")))
    harness.consumer.put(CLICKS, to_json(make_click(2, "a")))

    harness.pipeline.step()

    assert harness.list_published_revisions() == [("r~a", 1)]


def make_published(*keys: str) -> PublishedOutputs:
    published = PublishedOutputs(limit=100)
    published.add(keys, [])
    published.freeze()
    return published


def test_outputs_of_an_earlier_run_are_not_published_again(harness: JoinerHarness) -> None:
    harness.published_before = make_published(example_key("r~a", 1))
    harness.consumer.put(SCORED, LIST)
    harness.consumer.put(IMPRESSIONS, to_json(make_impression(1, "a", "b")))
    harness.consumer.put(CLICKS, to_json(make_click(2, "a")), to_json(make_click(3, "b")))

    harness.pipeline.step()

    assert harness.list_published_revisions() == [("r~b", 1)]


def test_older_producers_are_fenced_before_a_new_shard_is_published(harness: JoinerHarness) -> None:
    harness.consumer.put(SCORED, LIST)
    harness.pipeline.step()
    harness.pipeline.step()
    assert harness.producer.fences == 1

    harness.rebalance(*ALL, LABELS._replace(partition=1))
    harness.pipeline.step()
    assert harness.producer.fences == 1  # the topics cannot be joined

    harness.rebalance(*(partition._replace(partition=number) for partition in ALL for number in (0, 1)))
    harness.pipeline.step()
    harness.pipeline.step()
    assert harness.producer.fences > 1


def test_published_outputs_are_kept_until_their_records_are_passed(harness: JoinerHarness) -> None:
    harness.published_before = make_published(example_key("r~a", 0), example_key("q~a", 0))
    harness.consumer.put(SCORED, LIST)
    harness.consumer.put(IMPRESSIONS, to_json(make_impression(1, "a")))
    harness.consumer.put(CLICKS, to_json(make_click(1000, "x", recommendation_id=None)))
    harness.pass_idle_time()
    harness.pipeline.step()  # closes the list, and with it all records that could be read again
    assert harness.list_published_revisions() == []

    harness.consumer.put(SCORED, to_msgpack(make_row("recommendation", "q", 1001, ("a",))))
    harness.consumer.put(IMPRESSIONS, to_json(make_impression(1002, "a", recommendation_id="q")))
    harness.consumer.put(CLICKS, to_json(make_click(2000, "x", recommendation_id=None)))
    harness.pass_idle_time()
    harness.pipeline.step()

    assert harness.list_published_revisions() == [("q~a", 0)]


def test_orphan_counts_continue_those_of_earlier_runs(harness: JoinerHarness) -> None:
    harness.consumer.metadata[LABELS] = encode_metadata(CommitMetadata({"fraud": 4}))
    harness.consumer.put(
        LABELS,
        to_json(make_label(0, 1, judged_event_id="gone")),
        to_json(make_label(5000, 1, judged_event_id="gone, too")),
    )

    harness.pass_idle_time()
    harness.pipeline.step()

    assert read_metric(metrics.ORPHAN_LABELS, "fraud") == 5
    assert decode_metadata(harness.producer.metadata[LABELS]).orphans == {"fraud": 5}


def test_a_label_from_the_future_is_clamped_to_its_kafka_time() -> None:
    clamped = read_metric(metrics.CLAMPED_TIMESTAMPS)
    label = to_json(make_label(600, 1))
    kafka_times = [minutes_to_ms(600) - AHEAD_MS_MAX, minutes_to_ms(600) - AHEAD_MS_MAX - 1]

    decoder = RecordDecoder(kinds_by_topic={LABELS.topic: "labels"}, clock_ms=lambda: WALL_MS)
    events = [decoder.decode(Record(LABELS, 0, None, label, (), ms))[0] for ms in kafka_times]

    assert [event.ts_ms for event in events if event] == [minutes_to_ms(600), minutes_to_ms(600) - AHEAD_MS_MAX - 1]
    assert read_metric(metrics.CLAMPED_TIMESTAMPS) == clamped + 1


def test_partitions_assigned_later_are_joined_with_earlier_records(harness: JoinerHarness) -> None:
    harness.rebalance(*(partition for partition in ALL if partition != CLICKS))
    harness.consumer.put(SCORED, LIST)
    harness.consumer.put(IMPRESSIONS, to_json(make_impression(1, "a")))
    harness.consumer.put(LABELS, to_json(make_label(0, 1, judged_event_id="gone")))
    harness.pipeline.step()

    harness.rebalance(*ALL)
    harness.consumer.put(CLICKS, to_json(make_click(2, "a")), to_json(make_click(5000, "x", recommendation_id=None)))
    harness.consumer.put(LABELS, to_json(make_label(5000, 1, judged_event_id="gone, too")))
    for _ in range(2):
        harness.pipeline.step()
    harness.pass_idle_time()
    harness.pipeline.step()

    assert harness.list_published_revisions() == [("r~a", 1), ("r~a", 2)]
    assert decode_metadata(harness.producer.metadata[LABELS]).orphans == {"fraud": 1}


def test_a_label_topic_in_seconds_does_not_hold_the_others_back(harness: JoinerHarness) -> None:
    # given labels that are dated in 1970, one in each poll
    start = 100_000
    harness.consumer.records_per_poll = 1
    harness.consumer.put(SCORED, to_msgpack(make_row("recommendation", "r", start, ("a",))))
    harness.consumer.put(IMPRESSIONS, to_json(make_impression(start + 1, "a")))
    for user in USERS:
        harness.consumer.put(CLICKS, to_json(make_click(start + 100, "x", recommendation_id=None, user=user)))
    # when the others are read
    for number in range(40):
        harness.consumer.put(LABELS, to_json(make_label(0, 1, judged_event_id="gone", ident=f"l{number}")))
        harness.now_s += 0.5
        harness.pipeline.step()
    # then the stream time is theirs
    assert harness.list_published_revisions() == [("r~a", 0)]


def test_a_record_without_a_time_does_not_keep_the_position_behind_it(harness: JoinerHarness) -> None:
    harness.consumer.kafka_ms = -1
    for user in USERS:
        harness.consumer.put(CLICKS, to_json(make_click(2, "x", recommendation_id=None, user=user)))
    harness.consumer.put(CLICKS, to_json(make_click(60_000_000, "x", recommendation_id=None, user="stranger")))
    harness.consumer.put(SCORED, to_msgpack(make_row("order", "o", 100)))
    for user in USERS:
        harness.consumer.put(CLICKS, to_json(make_click(101, "x", recommendation_id=None, user=user)))
    harness.pipeline.step()

    assert harness.producer.committed[CLICKS] == len(USERS) + 1


def test_a_row_in_another_partition_than_its_event_is_counted(harness: JoinerHarness) -> None:
    row = make_row("order", "o", 0)
    harness.consumer.put(SCORED, to_msgpack(row), to_msgpack(replace(row, partition=1)))
    harness.consumer.put(SCORED, to_msgpack(replace(row, partition=1, topic="shop.searches")))

    with assert_increases(metrics.MISPLACED_ROWS):
        harness.pipeline.step()


def test_labels_of_another_user_are_counted_and_warned_of_once_a_minute_for_each_task(
    harness: JoinerHarness, caplog: pytest.LogCaptureFixture
) -> None:
    # given an order, and an earlier run that published something
    harness.published_before = make_published(example_key("r~a", 1))
    harness.consumer.put(SCORED, to_msgpack(make_row("order", "o", 0, user="guest:d-5")))
    # when three labels of its device come at once, one later, and one of another task
    labels = [make_label(1 + n, 1, user="d-5", ident=f"l{n}") for n in range(5)]
    counted = read_metric(metrics.JOINS, "foreign", "fraud")
    with caplog.at_level("WARNING"):
        harness.consumer.put(LABELS, *map(to_json, labels[:3]))
        harness.pipeline.step()
        harness.consumer.put(LABELS, to_json(labels[3]))
        harness.consumer.put(LABELS, to_json(make_label(5, 1, task="cancellation", user="d-5", ident="c")))
        harness.pipeline.step()
        harness.now_s += WARN_EVERY_S
        harness.consumer.put(LABELS, to_json(labels[4]))
        harness.pipeline.step()
    # then
    messages = [record.getMessage() for record in caplog.records if record.name == ForeignLabelLog.__module__]
    assert [message.partition(" Found another one in ")[2].partition(":")[0] for message in messages] == [
        "3 labels of `fraud`, the latest l2 of the event o",
        "1 labels of `cancellation`, the latest c of the event o",
        "2 labels of `fraud`, the latest l4 of the event o",
    ]
    assert "d-5" not in caplog.text
    assert read_metric(metrics.JOINS, "foreign", "fraud") == counted + 5
    assert harness.list_published_revisions() == []
