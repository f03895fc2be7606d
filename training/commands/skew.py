"""`python -m training skew`: from the log of rows and of events to what differs between them."""

import time
from argparse import Namespace
from collections import Counter, deque
from collections.abc import Iterator
from typing import Final, NamedTuple

import msgspec

from contract.errors import BadConfig, BadEvent
from contract.events import UserEvent, clamp, decode
from contract.features.declaration import FeatureSet
from contract.messages import ScoredRow, read_scored_row
from contract.profiles.entity_updates import Arrival
from contract.profiles.record import FAMILIES
from contract.settings import Settings
from training.analysis.skew import SkewComparison, SkewReport, is_sampled
from training.feedback.chunked_reader import ChunkedReader
from training.report.console import print_json, print_lines
from transport.records import Record

CHUNK_RECORDS: Final = 20_000
EXIT_DIFFERENT: Final = 1


class EventLog(NamedTuple):
    """The events of some users in the order in which Kafka was given them, and how each kind's topic is cut."""

    arrivals: list[Arrival]
    partitions: dict[str, int]
    truncated: list[str]  # partitions whose first records are gone


def run(args: Namespace, settings: Settings, features: FeatureSet) -> int:
    """Compare once; exit code 1 where a value differs that must not."""
    check_arguments(args)
    started_s, left_out = time.monotonic(), Counter[str]()
    rows = read_rows(settings, args.share, args.rows, left_out)
    erased = read_erased_users(settings)
    log = read_log(settings, args.share)
    comparison = SkewComparison(features=features, partitions=log.partitions, is_whole=args.share == 1)
    comparable = [row for row in rows if row.user_id not in erased]
    left_out["of erased people"] += len(rows) - len(comparable)
    report = comparison.run(comparable, log.arrivals, settings.topics.kinds_by_topic())
    report.left_out.update(+left_out)
    print_report(report, log)
    seconds = round(time.monotonic() - started_s, 2)
    print_json(**report.to_json(), events=len(log.arrivals), begins_late=log.truncated, seconds=seconds)
    return EXIT_DIFFERENT if report.exact.differing else 0


def check_arguments(args: Namespace) -> None:
    """Raises `BadConfig` for a share or a number of rows that there cannot be."""
    errors = list[str]()
    if not 0 < args.share <= 1:
        errors.append(f"`--share` should be above 0 and at most 1. Found {args.share:g}.")
    if args.rows < 1:
        errors.append(f"`--rows` should be 1 or more. Found {args.rows}.")
    if errors:
        raise BadConfig(errors)


def print_report(report: SkewReport, log: EventLog) -> None:
    """What a person should know of it."""
    if log.truncated:
        print_lines(
            f"{', '.join(log.truncated)} begin late: what profiles knew from before cannot be recomputed, and will differ."
        )
    for counts, label in (
        (report.exact, "what rests on the event's own partition"),
        (report.timing, "what depends on timing"),
    ):
        print_lines(f"{sum(counts.differing.values())} of {counts.values} values differ of {label}.")


def read_records(settings: Settings, kind: str) -> Iterator[Record]:
    """Every record of a kind's topic from its beginning to its present end."""
    reader = ChunkedReader(kafka=settings.kafka, topic=settings.topics.topic_name(kind), limit=CHUNK_RECORDS)
    try:
        positions, is_last = dict[str, int](), False
        while not is_last:
            chunk = reader.read(positions)
            yield from chunk.records
            positions, is_last = chunk.positions, chunk.is_last
    finally:
        reader.close()


def read_rows(settings: Settings, share: float, limit: int, left_out: Counter[str]) -> deque[ScoredRow]:
    """The latest rows of the users that are drawn."""
    rows = deque[ScoredRow](maxlen=limit)
    for record in read_records(settings, "scored"):
        try:
            row = read_scored_row(record.value or b"")
        except msgspec.MsgspecError:
            left_out["unreadable"] += 1
            continue
        if is_sampled(row.user_id, share):
            rows.append(row)
    return rows


def read_erased_users(settings: Settings) -> set[str]:
    """Whose history is no longer what it was when rows were scored."""
    user_ids = set[str]()
    for record in read_records(settings, "erasures"):
        event = decode_event("erasures", record)
        if isinstance(event, UserEvent):
            user_ids.add(event.user_id)
    return user_ids


def read_log(settings: Settings, share: float) -> EventLog:
    """The events of the users that are drawn, which profiles count."""
    timed, partitions, truncated = list[tuple[int, Arrival]](), dict[str, int](), list[str]()
    for kind in FAMILIES:
        latest_ms = dict[int, int]()  # by partition, so that no order of times breaks the order of its log
        for record in read_records(settings, kind):
            partition = record.topic_partition.partition
            if partition not in latest_ms and record.offset > 0:
                truncated.append(str(record.topic_partition))
            latest_ms[partition] = max(latest_ms.get(partition, 0), record.kafka_ms)
            event = decode_event(kind, record)
            if isinstance(event, UserEvent) and is_sampled(event.user_id, share):
                arrival = Arrival(f"{kind}/{partition}", record.offset, event, *record.topic_partition)
                timed.append((latest_ms[partition], arrival))
        partitions[kind] = count_partitions(settings, kind)
    timed.sort(key=lambda entry: entry[0])  # stable: records of one partition keep their order
    return EventLog([arrival for _, arrival in timed], partitions, truncated)


def count_partitions(settings: Settings, kind: str) -> int:
    reader = ChunkedReader(kafka=settings.kafka, topic=settings.topics.topic_name(kind), limit=1)
    try:
        return reader.count_partitions()
    finally:
        reader.close()


def decode_event(kind: str, record: Record) -> object:
    """The event as a worker takes it; None for what is a dead letter there."""
    try:
        event, _ = clamp(decode(kind, record.value), record.kafka_ms)
    except BadEvent:
        return None
    return event
