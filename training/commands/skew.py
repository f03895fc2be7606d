"""`python -m training skew`: compares served features with features recomputed from the event log."""

import time
from argparse import ArgumentParser, Namespace
from collections import Counter, deque
from typing import Final, NamedTuple

from contract.errors import BadConfig
from contract.events.model import UserEvent
from contract.events.reading import make_readers
from contract.features.declaration import FeatureSet
from contract.messages import ScoredRow, read_scored_row
from contract.profiles.entity_updates import Arrival
from contract.profiles.record import FAMILIES
from contract.settings.reading import Settings
from training.analysis.skew import SkewComparison, SkewReport, is_sampled
from training.feedback.chunked_reader import ChunkedReader
from training.feedback.decoding import decode_or_none
from training.feedback.topic_events import decode_event, read_records
from training.report.console import print_json, print_lines
from transport.kafka_times import KafkaTimes

EXIT_DIFFERENT: Final = 1


class EventLog(NamedTuple):
    """The events of some users in the order of their Kafka timestamps, and the partitions of each kind's topic."""

    arrivals: list[Arrival]
    partitions: dict[str, int]
    truncated: list[str]  # partitions without their first records


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--share", type=float, default=0.01, help="of users, by a hash; 1 compares all features")
    parser.add_argument("--rows", type=int, default=20_000, help="the latest rows of these users, at most")


def run(args: Namespace, settings: Settings, features: FeatureSet) -> int:
    """Compare once; exit code 1 if a value differs that should be exact."""
    check_arguments(args)
    started_s = time.monotonic()
    left_out = Counter[str]()
    rows = read_rows(settings, args.share, args.rows, left_out)
    erased = read_erased_users(settings)
    log = read_log(settings, args.share)
    comparison = SkewComparison(
        features=features,
        partitions=log.partitions,
        is_whole=args.share == 1,
        entity_kinds=settings.entity_kinds(),
    )
    comparable = [row for row in rows if row.user_id not in erased]
    left_out["of erased people"] += len(rows) - len(comparable)
    report = comparison.run(comparable, log.arrivals, settings.topics.kinds_by_topic())
    report.left_out.update(+left_out)
    print_report(report, log)
    seconds = round(time.monotonic() - started_s, 2)
    print_json(**report.to_json(), events=len(log.arrivals), begins_late=log.truncated, seconds=seconds)
    return EXIT_DIFFERENT if report.exact.differing else 0


def check_arguments(args: Namespace) -> None:
    """Raises `BadConfig` for an impossible share or number of rows."""
    errors = list[str]()
    if not 0 < args.share <= 1:
        errors.append(f"`--share` should be above 0 and at most 1. Found {args.share:g}.")
    if args.rows < 1:
        errors.append(f"`--rows` should be 1 or more. Found {args.rows}.")
    if errors:
        raise BadConfig(errors)


def print_report(report: SkewReport, log: EventLog) -> None:
    """Print a summary for the terminal."""
    if log.truncated:
        print_lines(
            f"{', '.join(log.truncated)} lack their first records: features that depend on them cannot be recomputed "
            f"and will differ."
        )
    for counts, label in (
        (report.exact, "features of the event's own partition"),
        (report.timing, "features that depend on timing"),
    ):
        print_lines(f"{sum(counts.differing.values())} of {counts.values} values differ for {label}.")


def read_rows(settings: Settings, share: float, limit: int, left_out: Counter[str]) -> deque[ScoredRow]:
    """The latest rows of the sampled users."""
    rows = deque[ScoredRow](maxlen=limit)
    for record in read_records(settings, "scored"):
        if (row := decode_or_none(read_scored_row, record.value)) is None:
            left_out["unreadable"] += 1
            continue
        if is_sampled(row.user_id, share):
            rows.append(row)
    return rows


def read_erased_users(settings: Settings) -> set[str]:
    """The erased users: their history has changed since their rows were scored."""
    user_ids = set[str]()
    kafka_times, reader = KafkaTimes(), make_readers(settings.intake)["erasures"]
    for record in read_records(settings, "erasures"):
        event = decode_event(reader, record, kafka_times)
        if isinstance(event, UserEvent):
            user_ids.add(event.user_id)
    return user_ids


def read_log(settings: Settings, share: float) -> EventLog:
    """The sampled users' events that profiles aggregate."""
    timed = list[tuple[int, Arrival]]()
    partitions = dict[str, int]()
    truncated = list[str]()
    kafka_times, readers = KafkaTimes(), make_readers(settings.intake, settings.tasks)
    for kind in FAMILIES:
        latest_ms = dict[int, int]()  # by partition: a running maximum keeps the partition's order
        for record in read_records(settings, kind):
            partition = record.topic_partition.partition
            if partition not in latest_ms and record.offset > 0:
                truncated.append(str(record.topic_partition))
            latest_ms[partition] = max(latest_ms.get(partition, 0), record.kafka_ms)
            event = decode_event(readers[kind], record, kafka_times)
            if isinstance(event, UserEvent) and is_sampled(event.user_id, share):
                arrival = Arrival(f"{kind}/{partition}", record.offset, event, *record.topic_partition)
                timed.append((latest_ms[partition], arrival))
        partitions[kind] = count_partitions(settings, kind)
    timed.sort(key=lambda entry: entry[0])  # stable: a partition keeps its order
    return EventLog([arrival for _, arrival in timed], partitions, truncated)


def count_partitions(settings: Settings, kind: str) -> int:
    reader = ChunkedReader(kafka=settings.kafka, topic=settings.topics.topic_name(kind), limit=1)
    try:
        return reader.count_partitions()
    finally:
        reader.close()
