"""`python -m training skew`: from the log of rows and of events to what differs between them."""

import time
from argparse import Namespace
from collections import Counter, deque
from collections.abc import Iterator
from typing import Final, NamedTuple

import msgspec

from contract.errors import BadConfig, BadEvent
from contract.events import UserEvent, clamp, decode
from contract.features import FeatureSet
from contract.profiles import FAMILIES
from contract.rows import Scored, read_scored
from contract.settings import Settings
from contract.touches import Arrival
from training.portions import Portions
from training.report import print_json, say
from training.skew import Comparison, Skew, is_drawn
from training.topic import Record

PORTION: Final = 20_000
DIFFER: Final = 1


class Log(NamedTuple):
    """The events of some users in the order in which Kafka was given them, and how each kind's topic is cut."""

    arrivals: list[Arrival]
    partitions: dict[str, int]
    cut: list[str]  # partitions whose first records are gone


def run(args: Namespace, settings: Settings, features: FeatureSet) -> int:
    """Compare once; exit code 1 where a value differs that must not."""
    check(args)
    begun, left_out = time.monotonic(), Counter[str]()
    rows = rows_of(settings, args.share, args.rows, left_out)
    erased = erased_users(settings)
    log = log_of(settings, args.share)
    comparison = Comparison(features=features, partitions=log.partitions, is_whole=args.share == 1)
    wanted = [row for row in rows if row.user_id not in erased]
    left_out["of erased people"] += len(rows) - len(wanted)
    found = comparison.run(wanted, log.arrivals, settings.topics.kinds())
    found.left_out.update(+left_out)
    tell(found, log)
    seconds = round(time.monotonic() - begun, 2)
    print_json(**found.told(), events=len(log.arrivals), begins_late=log.cut, seconds=seconds)
    return DIFFER if found.exact.differing else 0


def check(args: Namespace) -> None:
    """Raises `BadConfig` for a share or a number of rows that there cannot be."""
    errors = list[str]()
    if not 0 < args.share <= 1:
        errors.append(f"`--share` should be above 0 and at most 1. Found {args.share:g}.")
    if args.rows < 1:
        errors.append(f"`--rows` should be 1 or more. Found {args.rows}.")
    if errors:
        raise BadConfig(errors)


def tell(found: Skew, log: Log) -> None:
    """What a person should know of it."""
    if log.cut:
        say(f"{', '.join(log.cut)} begin late: what profiles knew from before cannot be recomputed, and will differ.")
    for counted, of in (
        (found.exact, "what rests on the event's own partition"),
        (found.timing, "what depends on timing"),
    ):
        say(f"{sum(counted.differing.values())} of {counted.values} values differ of {of}.")


def records(settings: Settings, kind: str) -> Iterator[Record]:
    """Every record of a kind's topic from its beginning to its present end."""
    portions = Portions(kafka=settings.kafka, topic=settings.topics.of(kind), most=PORTION)
    try:
        positions, is_last = dict[str, int](), False
        while not is_last:
            portion = portions.read(positions)
            yield from portion.records
            positions, is_last = portion.positions, portion.is_last
    finally:
        portions.close()


def rows_of(settings: Settings, share: float, most: int, left_out: Counter[str]) -> deque[Scored]:
    """The latest rows of the users that are drawn."""
    found = deque[Scored](maxlen=most)
    for record in records(settings, "scored"):
        try:
            row = read_scored(record.value)
        except msgspec.MsgspecError:
            left_out["unreadable"] += 1
            continue
        if is_drawn(row.user_id, share):
            found.append(row)
    return found


def erased_users(settings: Settings) -> set[str]:
    """Whose history is no longer what it was when rows were scored."""
    found = set[str]()
    for record in records(settings, "erasures"):
        event = event_of("erasures", record)
        if isinstance(event, UserEvent):
            found.add(event.user_id)
    return found


def log_of(settings: Settings, share: float) -> Log:
    """The events of the users that are drawn, which profiles count."""
    found, partitions, cut = list[tuple[int, Arrival]](), dict[str, int](), list[str]()
    for kind in FAMILIES:
        latest_ms = dict[int, int]()  # by partition, so that no order of times breaks the order of its log
        for record in records(settings, kind):
            if record.partition not in latest_ms and record.offset > 0:
                cut.append(f"{settings.topics.of(kind)}/{record.partition}")
            latest_ms[record.partition] = max(latest_ms.get(record.partition, 0), record.ms)
            event = event_of(kind, record)
            if isinstance(event, UserEvent) and is_drawn(event.user_id, share):
                source = f"{kind}/{record.partition}"
                arrival = Arrival(source, record.offset, event, settings.topics.of(kind), record.partition)
                found.append((latest_ms[record.partition], arrival))
        partitions[kind] = partitions_of(settings, kind)
    found.sort(key=lambda one: one[0])  # stable: records of one partition keep their order
    return Log([arrival for _, arrival in found], partitions, cut)


def partitions_of(settings: Settings, kind: str) -> int:
    portions = Portions(kafka=settings.kafka, topic=settings.topics.of(kind), most=1)
    try:
        return portions.partitions()
    finally:
        portions.close()


def event_of(kind: str, record: Record) -> object:
    """The event as a worker takes it; None for what is a dead letter there."""
    try:
        event, _ = clamp(decode(kind, record.value), record.ms)
    except BadEvent:
        return None
    return event
