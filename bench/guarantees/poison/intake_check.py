"""Odd records through the code that a worker's batch runs, in one process and without servers.

Each record is decoded by every reader of its topic, its event is folded and scored, the answers and dead letters are
written as bytes and read again, and the joiner joins what the joiner reads.
"""

import time
import traceback
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from bench.guarantees.poison.documents import make_fields, write_object
from bench.guarantees.poison.lane_intake import PARTITIONS, LaneIntake
from bench.guarantees.poison.record_forms import OddRecord
from bench.guarantees.poison.shops import Shop
from contract.bundle import read_bundle
from contract.events.model import REASONS, Erasure
from contract.events.reading import READERS
from contract.features.encoder import Encoder
from contract.messages import (
    DEAD_LETTER_HEADER,
    Ranking,
    read_dead_letter,
    read_decision,
    read_example,
    read_recommendations,
    read_scored_row,
    to_json,
    to_msgpack,
)
from testkit.environment.tiny_bundle import ITEMS, publish_tiny
from transport.kafka_times import KafkaTimes
from transport.records import Record, TopicPartition
from worker.catalogue.catalogue import Catalogue
from worker.catalogue.product_consumer import ProductConsumer
from worker.erasure.surviving import is_copy
from worker.erasure.topic import decode_erasure
from worker.joiner.decoding import JOINED_EVENTS, RecordDecoder
from worker.joiner.partitioned_joiner import PartitionedJoiner
from worker.model.onnx_model import Model
from worker.records.answers import DECISION, LIST, RANKING, Answer
from worker.records.batch import Reject
from worker.records.intake import make_event_readers
from worker.records.lanes import LANES
from worker.scoring.scorer import ScoringResources

ITEMS_MAX: Final = 200_000
BATCH_RECORDS: Final = 500
FAULTS_MAX: Final = 20  # of each, that are described
READ_ANSWER: Final = {DECISION: read_decision, LIST: read_recommendations}


@dataclass(slots=True)
class Findings:
    """What became of the records; `faults`: a few of what should not have been, as sentences."""

    records: int = 0
    uncaught: int = 0
    unanswered: int = 0
    unscored: int = 0  # events that are folded, and got no answer because scoring them failed
    outcomes: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    faults: dict[str, str] = field(default_factory=dict)

    def report(self, place: str, record: OddRecord | None, sentence: str) -> None:
        """Keep the first record of a fault at a place."""
        if place not in self.faults and len(self.faults) < FAULTS_MAX:
            shown = (
                "" if record is None else f" ({record.kind}: {record.form}: {record.value!r:.300}, {record.key!r:.60})"
            )
            self.faults[place] = f"{sentence}{shown}"


class NoPoll:
    """The tailer of a consumer whose records come from its caller."""

    partitions_behind = 0

    def __init__(self) -> None:
        self.records: list[Record] = []

    def poll(self, records_max: int, wait_ms: int) -> list[Record]:
        records, self.records = self.records, []
        return records

    def take_restarted(self) -> set[str]:
        return set()


class ShopIntake:
    """All readers of one shop. `check` may be called again and again: offsets and profiles go on."""

    def __init__(self, shop: Shop, folder: Path, findings: Findings) -> None:
        self.shop, self.findings = shop, findings
        settings = shop.settings
        encoder = Encoder(shop.features)
        catalogue = Catalogue(encoder, ITEMS_MAX)
        manifest = publish_tiny(folder / shop.name, "v1")
        model = Model(read_bundle(folder / shop.name, manifest.version), shop.features)
        resources = ScoringResources(settings=settings, encoder=encoder, catalogue=catalogue)
        self._lanes = [LaneIntake(lane, shop, resources, model) for lane in LANES.values()]
        readers = make_event_readers(settings)
        record_reader = shop.open_reader(readers)
        self._tailer = NoPoll()
        self._products = ProductConsumer(
            tailer=self._tailer,  # type: ignore[arg-type]  # what of it is used
            catalogue=catalogue,
            reader=readers["products"],
            placeholders=settings.intake.folded_placeholders,
            record_reader=record_reader,
        )
        self._erasure_reader, self._erasure_times = readers["erasures"], KafkaTimes()
        topics = record_reader.topics
        joined = topics.names_of(JOINED_EVENTS)
        self._decoder = RecordDecoder(
            kinds_by_topic={settings.topics.scored: "scored", **{topic: topics.kinds[topic][0] for topic in joined}},
            readers=readers,
            record_reader=record_reader,
        )
        self._joiner = PartitionedJoiner(feedback=settings.feedback, tasks=settings.tasks)
        self._offsets: Counter[TopicPartition] = Counter()
        self._number = 0
        self._put_items()

    def check(self, odd_records: Sequence[OddRecord]) -> None:
        """Run the records as one batch; if that raises an error, halves of it, until those that cause it are alone."""
        records = [self._place(odd) for odd in odd_records]
        origins = {
            (record.topic_partition, record.offset): odd for record, odd in zip(records, odd_records, strict=True)
        }
        self.findings.records += len(records)
        pending = [records]
        while pending:
            chunk = pending.pop()
            try:
                self._run(chunk, origins)
            except Exception as error:
                if len(chunk) > 1:
                    half = len(chunk) // 2
                    pending += [chunk[half:], chunk[:half]]
                    continue
                self.findings.uncaught += 1
                lines = traceback.extract_tb(error.__traceback__)
                place = f"{type(error).__name__} at {lines[-1].filename}:{lines[-1].lineno}"
                odd = origins[chunk[0].topic_partition, chunk[0].offset]
                trace = "".join(traceback.format_exception(error)[-6:])
                self.findings.report(place, odd, f"{self.shop.name}: {place}: {error!r:.300}\n{trace}")

    def _place(self, odd: OddRecord) -> Record:
        """The record on the topic of its kind, every second one in the shop's envelope."""
        self._number += 1
        partition = TopicPartition(self.shop.settings.topics.topic_name(odd.kind), self._number % PARTITIONS)
        self._offsets[partition] += 1
        value, wrap = odd.value, self.shop.wraps.get(odd.kind)
        if value and wrap and self._number % 4 < 2:
            value = wrap(value)
        kafka_ms = odd.timestamp_ms or read_now_ms()
        return Record(partition, self._offsets[partition] - 1, odd.key, value, odd.headers, kafka_ms)

    def _run(self, records: Sequence[Record], origins: dict[Any, OddRecord]) -> None:
        now_ms, rows = read_now_ms(), list[Answer]()
        outcomes: Counter[str] = Counter()
        for lane in self._lanes:
            batch, results = lane.run(records, now_ms)
            rejects = [*batch.rejects, *results.rejects]
            self._check_answers(results.answers)
            self._check_rejects(rejects, origins)
            for reject in results.rejects:
                self.findings.unscored += 1
                odd = origins.get((reject.record.topic_partition, reject.record.offset))
                self.findings.report(
                    f"unscored {reject.detail:.60}", odd, f"An event should be scored: {reject.detail}"
                )
            for record in lane.find_unanswered(records, batch, results):
                self.findings.unanswered += 1
                odd = origins[record.topic_partition, record.offset]
                self.findings.report("unanswered", odd, "A record should be an event with its answer, or a reject.")
            outcomes.update(events=len(batch.arrivals), rejects=len(rejects))
            rows += results.answers
        outcomes["erasures"] += self._read_erasures(records, origins)
        self._tailer.records = [r for r in records if r.topic_partition.topic == self.shop.settings.topics.products]
        self._products.poll()
        self._join(records, rows, now_ms)
        self.findings.outcomes.update(outcomes)

    def _check_answers(self, answers: Sequence[Answer]) -> None:
        """Each answer should be read as it was written."""
        for answer in answers:
            assert read_scored_row(to_msgpack(answer.scored)).event_id == answer.scored.event_id
            if answer.kind is RANKING:
                assert isinstance(answer.message, Ranking)
                to_json(answer.message)
            elif answer.kind in READ_ANSWER:
                assert READ_ANSWER[answer.kind](answer.kind.encode(answer.message)) == answer.message

    def _check_rejects(self, rejects: Sequence[Reject], origins: dict[Any, OddRecord]) -> None:
        """Each reject should become a dead letter with a reason and its place."""
        for reject in rejects:
            record = reject.to_dead_letter("dead", "v1")
            record.count_bytes()
            letter = read_dead_letter(record.headers[-1][1])
            place = TopicPartition(letter.topic, letter.partition), letter.offset
            self.findings.reasons[letter.reason] += 1
            is_whole = record.headers[-1][0] == DEAD_LETTER_HEADER and record.value == reject.record.value
            is_placed = place == (reject.record.topic_partition, reject.record.offset) and letter.detail
            if letter.reason not in REASONS or not is_placed or not is_whole:
                self.findings.unanswered += 1
                self.findings.report(
                    "reason", origins.get(place), f"A dead letter should have reason and place: {letter}."
                )

    def _read_erasures(self, records: Sequence[Record], origins: dict[Any, OddRecord]) -> int:
        count = 0
        for record in records:
            if record.topic_partition.topic == self.shop.settings.topics.erasures:
                decoded = decode_erasure(record, self._erasure_times, self._erasure_reader)
                is_copy(record.headers)
                assert isinstance(decoded.erasure, Erasure) != isinstance(decoded.reject, Reject)
                self._check_rejects([decoded.reject] if decoded.reject else [], origins)
                count += decoded.erasure is not None
        return count

    def _join(self, records: Sequence[Record], answers: Sequence[Answer], now_ms: int) -> None:
        """Join scored rows and events as the joiner does, and write its outputs."""
        topics = self.shop.settings.topics
        scored = [
            Record(self._take(topics.scored), 0, None, to_msgpack(answer.scored), (), now_ms) for answer in answers
        ]
        for number, record in enumerate([*scored, *records]):
            partition, offset = record.topic_partition, record.offset
            if partition.topic not in self._decoder.kinds_by_topic:
                continue
            if number < len(scored):
                offset = self._offsets[partition] = self._offsets[partition] + 1
            message, record_time = self._decoder.decode(record)
            self._joiner.push(partition, offset, message, record_time)
        output = self._joiner.advance([partition for partition in self._offsets if partition.topic != topics.products])
        for example in output.examples:
            assert read_example(to_msgpack(example)).example_id == example.example_id
        for judgement in output.judgements:
            READERS["judgements"].read(to_json(judgement))

    def _take(self, topic: str) -> TopicPartition:
        self._number += 1
        return TopicPartition(topic, self._number % PARTITIONS)

    def _put_items(self) -> None:
        """A few good products, so that there are lists."""
        names = [f'"{item}"'.encode() for item in ITEMS]
        values = [write_object({**make_fields("products", "p"), "item_id": name}) for name in names]
        odd = [OddRecord("a good event", "products", b"i", value) for value in values]
        self._tailer.records = [self._place(record) for record in odd]
        self._products.poll()


def read_now_ms() -> int:
    return time.time_ns() // 1_000_000
