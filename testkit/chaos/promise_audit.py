"""The promises of a chaos run as one object: reads what was published since the last look, and asks every audit."""

import json
from collections import defaultdict
from collections.abc import Iterator
from contextlib import closing, contextmanager
from hashlib import sha256
from typing import Final

import msgspec

from contract.events.model import Event
from contract.messages import (
    DEAD_LETTER_HEADER,
    read_dead_letter,
    read_decision,
    read_example,
    read_scored_row,
)
from testkit.audits.bundle_audit import BundleAudit
from testkit.audits.delivery_ledger import BadRecord, DeliveryLedger
from testkit.audits.erasure_audit import ErasureAudit
from testkit.audits.key_order import KeyOrderAudit
from testkit.audits.label_audit import LabelAudit
from testkit.audits.state_audit import FOLDED_KINDS, StateAudit, decode_event
from testkit.chaos.scene import Scene
from testkit.environment.kafka_log import KafkaLog, RecordPosition
from testkit.environment.log_follower import LogFollower
from testkit.oracle.profiles import ProfileOracle
from transport.records import Record
from worker.records.dead_letters import TOO_LARGE_TO_KEEP
from worker.records.lanes import LANES
from worker.redis.client import RedisClient

OUTPUT_KINDS: Final = ("decisions", "scored", "dead_letters", "feedback", "erased")
INPUT_KINDS: Final = (*FOLDED_KINDS, "labels", "products", "erasures")
# After each of these faults workers may execute the erasures so far again, and confirm them again.
EXECUTES_AGAIN: Final = ("Redis flushed", "Redis set back to a snapshot", "state rebuilt")
CHECKED_EARLIER: Final = 500  # decisions of earlier rounds whose copies in Redis are compared again


class Findings(msgspec.Struct, kw_only=True):
    """What an audit has found, one sentence each."""

    lost: list[str] = []
    conflicting: list[str] = []
    mismatches: list[str] = []
    order_inversions: list[str] = []
    erased_back: list[str] = []
    early_labels: list[str] = []
    wrong_features: list[str] = []
    foreign_keys: list[str] = []
    half_bundles: list[str] = []
    repeated: list[str] = []  # examples and confirmations, which should come once

    def items(self) -> Iterator[tuple[str, list[str]]]:
        """Each promise with its sentences."""
        return ((name, getattr(self, name)) for name in self.__struct_fields__)


class PromiseAudit:
    """Audits one environment, round after round."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self._environment = scene.environment
        self._follower = LogFollower(bootstrap=scene.kafka.bootstrap)
        self._log = KafkaLog(bootstrap=scene.kafka.bootstrap)
        self._ledger, self._order = DeliveryLedger(), KeyOrderAudit()
        self._labels = LabelAudit(scene.traffic.clock.latest_ms_until)
        self._erasures, self._bundles = ErasureAudit(), BundleAudit(scene.bundle_thresholds)
        self._seen = dict.fromkeys(scene.traffic.producers, 0)
        self._seen_labels = 0
        self._order_bytes: dict[str, bytes] = {}
        self._orders_by_user = defaultdict[str, list[tuple[str, int]]](list)
        self._events_by_user = defaultdict[str, list[str]](list)
        self._folded: list[tuple[str, int, Event]] = []
        self._oracle = ProfileOracle()
        self._folded_count = 0
        self._new_orders: list[str] = []

    @property
    def events(self) -> int:
        """Events that Kafka has taken."""
        return sum(self._seen.values()) + self._seen_labels

    @property
    def duplicates(self) -> dict[str, int]:
        """Answers in excess of what was produced, by kind."""
        return {kind: count for kind, count in self._ledger.count_duplicates_by_kind().items() if count}

    def collect(self) -> int:
        """Read what was produced and published since the last call; returns the records; raises `Unavailable`."""
        for topic in self._scene.recreated_topics:
            self._follower.forget(topic)
        self._scene.recreated_topics.clear()
        self._collect_produced()
        topics = {self._environment.topics.topic_name(kind): kind for kind in (*INPUT_KINDS, *OUTPUT_KINDS)}
        records = self._follower.read_new(topics)
        with open_state_audit(self._scene) as state:
            for record in records:
                self._collect_record(topics[record.topic_partition.topic], record, state)
        return len(records)

    def find_lagging(self, *, labelled_before_ms: int) -> Iterator[str]:
        """What has not caught up yet; each order before `labelled_before_ms` should have a label."""
        self.collect()
        yield from self.find_behind()
        self._read_cached()
        yield from self.find_lost()
        yield from self._erasures.find_unconfirmed(self._scene.traffic.erasures.values())
        yield from self._labels.find_unlabelled(labelled_before_ms, self._ledger.erased)

    def find_behind(self) -> Iterator[str]:
        """What is not committed or not merged of the records that were collected."""
        ends = self._follower.record_ends
        for lane in LANES.values():
            topics = {self._environment.topics.topic_name(kind) for kind in lane.kinds}
            own = {partition: end for partition, end in ends.items() if partition[0] in topics}
            uncommitted = self._log.find_uncommitted(self._environment.group_id(lane.name), own)
            yield from (f"{lane.name} at {offset} of {own[p]} in {p}" for p, offset in uncommitted.items())
        with open_state_audit(self._scene) as state:
            yield from (f"{source} is not merged" for source in state.find_unmerged(ends))

    def find_lost(self) -> list[str]:
        """Answers that are missing, of the events and records that were collected."""
        return self._ledger.find_lost() + self._labels.find_unjoined(self._ledger.erased)

    def find_broken(self) -> Findings:
        """Every promise that is broken now that everything has caught up."""
        environment = self._environment
        with open_state_audit(self._scene) as state:
            mismatches = state.compare(self._fold(), only_existing_topics=self._scene.loses_claims)
        with closing(RedisClient(url=environment.redis.url, timeout_s=60)) as client:
            keys = [key for page in client.scan("") for key in page]
            left = self._erasures.find_left(
                client, environment.redis_prefix, self._scene.traffic.erasures, self._find_covered_orders()
            )
        return Findings(
            lost=self.find_lost(),
            conflicting=self._ledger.find_conflicts() + self._bundles.wrong_scores,
            mismatches=mismatches,
            order_inversions=self._order.inversions,
            erased_back=left,
            early_labels=self._labels.find_early(),
            wrong_features=self._labels.find_wrong_features(),
            foreign_keys=[key for key in keys if not key.startswith(environment.redis_prefix)],
            half_bundles=self._bundles.find_half_bundles(environment.bundles),
            repeated=self._labels.duplicates
            + self._erasures.find_repeated(1 + sum(self._scene.counts[fault] for fault in EXECUTES_AGAIN)),
        )

    def _collect_produced(self) -> None:
        traffic = self._scene.traffic
        for lane, producer in traffic.producers.items():
            for record, position in producer.acknowledged[self._seen[lane] :]:
                self._events_by_user[record.key].append(record.event_id)
                if record.reason is not None:
                    bad = BadRecord(record.key.encode(), record.value, record.reason)
                    self._ledger.record_bad_record(position, bad)
                elif record.kind == "orders":
                    self._record_order(record.event_id, record.key, record.value or b"")
                elif record.kind == "clicks":
                    self._ledger.record_click(record.event_id)
            self._seen[lane] = len(producer.acknowledged)
        for label in traffic.labels[self._seen_labels :]:
            self._labels.record_label(label)
        self._seen_labels = len(traffic.labels)
        self._ledger.erased |= {event for user in traffic.erasures for event in self._events_by_user[user]}
        if self._scene.loses_claims:
            self._ledger.unclaimed |= {order for order, count in self._ledger.orders.items() if count > 1}

    def _record_order(self, event_id: str, user: str, value: bytes) -> None:
        self._ledger.record_order(event_id)
        if event_id not in self._order_bytes:
            self._order_bytes[event_id] = value
            self._orders_by_user[user].append((event_id, json.loads(value)["ts_ms"]))
            self._new_orders.append(event_id)

    def _collect_record(self, kind: str, record: Record, state: StateAudit) -> None:
        value = record.value or b""
        match kind:
            case "decisions":
                decision = read_decision(value)
                self._ledger.record_decision(decision)
                if self._scene.loses_claims:
                    self._ledger.record_cached([decision])
            case "scored":
                row = read_scored_row(value)
                self._ledger.record_scored_row(row)
                self._order.record_scored_row(row)
                self._labels.record_scored_row(row)
                if row.kind == "order" and row.event_id in self._order_bytes:
                    self._bundles.record_order(row, self._order_bytes[row.event_id])
            case "dead_letters":
                self._record_dead_letter(record)
            case "feedback":
                self._labels.record_example(read_example(value), record.kafka_ms)
            case "erased":
                self._erasures.record_confirmation(record)
            case _ if kind in FOLDED_KINDS and (event := decode_event(kind, record)) is not None:
                source = state.build_source_name(kind, record.topic_partition.partition)
                self._folded.append((source, record.offset, event))

    def _record_dead_letter(self, record: Record) -> None:
        letter, value = read_dead_letter(dict(record.headers)[DEAD_LETTER_HEADER]), record.value
        bad = self._ledger.bad_records.get(RecordPosition(letter.topic, letter.partition, letter.offset))
        is_shortened = letter.reason == TOO_LARGE_TO_KEEP and letter.detail.startswith(bad.reason if bad else "")
        if bad and is_shortened and letter.value_sha256 == sha256(bad.value or b"").hexdigest():
            letter, value = msgspec.structs.replace(letter, reason=bad.reason), bad.value
        self._ledger.record_dead_letter(letter, record.key, value)

    def _read_cached(self) -> None:
        """Read the decisions of new orders in Redis, and again some of earlier rounds."""
        rng = self._scene.rng
        orders = list(self._ledger.orders)
        sample = rng.sample(orders, min(CHECKED_EARLIER, len(orders)))
        with open_state_audit(self._scene) as state:
            stored = state.read_decisions([*self._new_orders, *sample])
            self._ledger.record_cached(read_decision(value) for value in stored if value is not None)

    def _fold(self) -> ProfileOracle:
        """The oracle of everything collected; begins again after an erasure, which changes what earlier events gave."""
        until_ms = {f"user:{user}": erasure.ts_ms for user, erasure in self._scene.traffic.erasures.items()}
        if self._oracle.erased_until != until_ms:
            self._oracle, self._folded_count = ProfileOracle(until_ms), 0
        for source, offset, event in self._folded[self._folded_count :]:
            self._oracle.add(source, offset, event)
        self._folded_count = len(self._folded)
        self._new_orders.clear()
        return self._oracle

    def _find_covered_orders(self) -> dict[str, list[str]]:
        return {
            user: [order for order, ts_ms in self._orders_by_user[user] if ts_ms <= erasure.ts_ms]
            for user, erasure in self._scene.traffic.erasures.items()
        }


@contextmanager
def open_state_audit(scene: Scene) -> Iterator[StateAudit]:
    with closing(StateAudit(scene.environment)) as state:
        yield state
