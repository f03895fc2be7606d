"""`python -m worker map try`: what a map reads of given records, before any worker runs.

Records come from a file of JSON lines or of one JSON document, or from the end of a topic.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import msgspec

from contract.errors import BadConfig, BadEvent
from contract.events.model import KINDS, Event
from contract.events.times import EPOCH
from contract.events.values import name_type
from contract.features.sources import describe_nearest
from contract.mapping.builder import Document
from contract.mapping.event_topics import EventTopics
from contract.mapping.topic_map import TopicMap
from contract.settings.mapping import list_required, suggest
from contract.settings.reading import Settings
from transport.log_reader import LogReader
from transport.record_reader import RecordReader, Skipped, open_record_reader
from transport.records import Record, TopicPartition
from worker.records.intake import make_event_readers

MISSING_PART: Final = re.compile(r"missing required field `(?P<part>\w+)` - at `\$\.(?P<field>\w+)")
PLACE: Final = re.compile(r"at `\$\.(?P<field>\w+)(?:\[(?P<entry>\d+)\](?:\.(?P<part>\w+))?)?")  # of a violation
TABLE_SUFFIXES: Final = (".csv", ".tsv", ".parquet", ".gz")  # which commands of training read
KCAT_NAMES: Final = {"topic", "partition", "offset", "tstype", "ts", "broker", "headers", "key", "payload"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """What becomes of one record: an event of `kind`, a record that is `skipped`, or a dead letter with its `reason`.

    `absent`: optional fields without a value, and the user where it is unknown. `ignored`: what the map has read for
    fields that the event has not.
    """

    place: str
    kind: str = ""
    event: Mapping[str, Any] = field(default_factory=dict)
    absent: tuple[str, ...] = ()
    ignored: Mapping[str, str] = field(default_factory=dict)
    skipped: str = ""
    reason: str = ""
    detail: str = ""


def try_map(settings: Settings, source: str, name: str | None, count: int, *, as_json: bool) -> int:
    """Print what becomes of the first records of a file, or of the last ones of a topic; 1 if any is a dead letter."""
    path, chosen = Path(source), choose_map(settings, name)
    topics = chosen.event_topics()
    if path.is_file():
        chosen = name_topics(chosen)
        records: Iterable[Record] = read_file(path, choose_topic(chosen.event_topics()), count)
    elif source in topics.kinds:
        records = read_topic(settings, source, count)
    else:
        nearest = describe_nearest(source, topics.kinds)
        raise BadConfig([f"`{source}` should be a file, or the topic of a kind or of a map. Found neither{nearest}."])
    reader = open_record_reader(chosen, make_event_readers(chosen))
    trials = [try_record(reader, record) for record in records]
    if not trials:
        raise BadConfig([f"{source} should be a file or a topic with records. Found none there."])
    print(json.dumps([msgspec.to_builtins(trial) for trial in trials], indent=2) if as_json else format_trials(trials))
    return int(any(trial.reason for trial in trials))


def choose_map(settings: Settings, name: str | None) -> Settings:
    """The settings with the named map only, or as they are; raises `BadConfig` for a name that no map has."""
    if name is None:
        return settings
    if name not in settings.map:
        raise BadConfig([f"`--map` should name a map: {suggest(name, settings.map)}"])
    return settings.model_copy(update={"map": {name: settings.map[name]}})


def name_topics(settings: Settings) -> Settings:
    """The settings with a topic, under which its records are shown, for each map that has none."""
    tables = {
        name: table if table.get("topics") else {**table, "topics": f"map.{name}"}
        for name, table in settings.map.items()
    }
    return settings.model_copy(update={"map": tables})


def choose_topic(topics: EventTopics) -> str:
    """The topic whose maps read the records of a file."""
    maps = {frozenset(table.name for table in topic_map.tables) for topic_map in topics.maps.values()}
    if len(maps) != 1:
        names = ", ".join(dict.fromkeys(table.name for m in topics.maps.values() for table in m.tables))
        raise BadConfig([f"`--map` should name the map of the records in a file. Found the maps {names or 'none'}."])
    return next(iter(topics.maps))


def read_file(path: Path, topic: str, count: int) -> Iterator[Record]:
    """One record for each line, or for each entry of one JSON list; a file of one document is one record.

    A line may be what `kcat -J` writes of a record, with its key and headers.
    """
    if path.suffix in TABLE_SUFFIXES:
        raise BadConfig(
            [
                f"{path} should be JSON Lines or a JSON list, not packed. Found {path.suffix}: `python -m training "
                f"history map.NAME={path} --out FOLDER` reads CSV and Parquet, packed or not, and reports what it "
                "refuses and why."
            ]
        )
    text = path.read_bytes()
    try:
        whole = msgspec.json.decode(text)
        values = [msgspec.json.encode(part) for part in whole] if isinstance(whole, list) else [text.strip()]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        values = [line for line in text.splitlines() if line.strip()]
    for number, value in enumerate(values[:count]):
        yield read_line(TopicPartition(topic, 0), number, value)


def read_line(partition: TopicPartition, number: int, line: bytes) -> Record:
    try:
        whole = msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        whole = None
    if not isinstance(whole, dict) or not {"topic", "payload"} <= whole.keys() <= KCAT_NAMES:
        return Record(partition, number, None, line, (), -1)
    texts = given if isinstance(given := whole.get("headers"), list) else []
    headers = [(str(name), to_bytes(value)) for name, value in zip(texts[::2], texts[1::2], strict=False)]
    return Record(partition, number, to_bytes(whole.get("key")), to_bytes(whole["payload"]), headers, -1)


def to_bytes(value: object) -> bytes | None:
    if value is None:
        return None
    return value.encode() if isinstance(value, str) else msgspec.json.encode(value)


def read_topic(settings: Settings, topic: str, count: int) -> list[Record]:
    """The last records of a topic, over its partitions."""
    reader = LogReader(kafka=settings.kafka)
    try:
        ranges = reader.fetch_offset_ranges([topic])
        starts = {partition: max(low, high - count) for partition, (low, high) in ranges.items()}
        ends = {partition: high for partition, (_, high) in ranges.items()}
        records = [record for part in reader.read(ends, starts) for record in part]
    finally:
        reader.close()
    return sorted(records, key=lambda record: record.kafka_ms)[-count:]


def try_record(reader: RecordReader, record: Record) -> Trial:
    """What becomes of one record."""
    place = record.topic_partition.log_text(record.offset)
    if reader.is_tombstone(record):
        return Trial(place=place, skipped="It deletes what its key names.")
    kind = ""
    try:
        kind, document = reader.find_kind(record) if not reader.is_plain(record.topic_partition.topic) else ("", {})
        kind, event = (kind, reader.readers[kind].read_document(document)) if kind else reader.read(record)
    except Skipped as skipped:
        return Trial(place=place, skipped=str(skipped))
    except BadEvent as error:
        return Trial(place=place, kind=kind, reason=error.reason, detail=describe(reader, record, kind, error))
    fields = to_fields(event)
    absent = tuple(name for name in KINDS[kind].__struct_fields__ if is_absent(name, fields.get(name)))
    read = document if isinstance(document, dict) else {}
    return Trial(
        place=place,
        kind=kind,
        event={name: value for name, value in fields.items() if value is not None},
        absent=absent,
        ignored={name: show(read[name]) for name in absent if read.get(name) is not None},
    )


def is_absent(name: str, value: object) -> bool:
    """Whether an event has no such field, or is one of an unknown user."""
    return value is None or (name == "user_id" and value == "")


def describe(reader: RecordReader, record: Record, kind: str, error: BadEvent) -> str:
    """The detail of a dead letter, with the paths at which the map looked, and what it found there."""
    topic_map = reader.topics.maps.get(record.topic_partition.topic)
    if not kind or topic_map is None:
        return str(error)
    _, document = reader.find_kind(record)
    fields = document if isinstance(document, dict) else {}
    if match := MISSING_PART.search(str(error)):
        return f"{error} Nothing found at {describe_source(topic_map, kind, match['field'], match['part'])}."
    if error.reason != "missing_field":
        return f"{error}{describe_value(topic_map, kind, fields, str(error))}"
    places = [f"{name} at {describe_source(topic_map, kind, name)}" for name in find_missing(kind, fields)]
    return f"{error} Nothing found for {'; '.join(places)}." if places else str(error)


def describe_value(topic_map: TopicMap, kind: str, document: Document, message: str) -> str:
    """The value that a message is about, as the map has read it, and where."""
    match = PLACE.search(message)
    if match is None or match["field"] not in document:
        return ""
    name, value = match["field"], document[match["field"]]
    part = match["part"]
    if part and isinstance(value, list) and isinstance(entry := value[int(match["entry"])], dict):
        value = entry.get(part)
    return f". Found {show(value)} at {describe_source(topic_map, kind, name, part)}."


def show(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, default=name_type)


def find_missing(kind: str, document: Document) -> list[str]:
    return [name for name in list_required(kind) if document.get(name) is None]


def describe_source(topic_map: TopicMap, kind: str, name: str, part: str | None = None) -> str:
    """The paths of a field, or of a part of its entries."""
    declared = [table.fields[name] for table in topic_map.tables if kind in table.kinds and name in table.fields]
    named = [source if isinstance(source, dict) else {part: source} for source in declared]
    sources = [source for parts in named for name_of_part, source in parts.items() if part in (None, name_of_part)]
    paths = dict.fromkeys(path for source in sources for path in source.paths)
    return ", ".join(f"`{path}`" for path in paths) or "its source"


def to_fields(event: Event) -> dict[str, Any]:
    fields: dict[str, Any] = msgspec.to_builtins(event)
    return fields


def format_trials(trials: list[Trial]) -> str:
    """A table of the records, and a summary of what is absent."""
    lines = []
    for trial in trials:
        outcome = trial.kind if trial.event else "skipped" if trial.skipped else f"dead letter: {trial.reason}"
        lines.append(f"{trial.place}  {outcome}")
        lines += [f"    {name:22}  {show_field(name, value)}" for name, value in trial.event.items()]
        lines += [f"    {name:22}  ignored, since it cannot be read: {text}" for name, text in trial.ignored.items()]
        absent = [name for name in trial.absent if name not in trial.ignored]
        lines += [f"    absent: {', '.join(absent)}"] if absent else []
        lines += [f"    {trial.skipped or trial.detail}"] if not trial.event else []
    return "\n".join([*lines, "", *summarize(trials)])


def show_field(name: str, value: object) -> str:
    """A value of an event; a time in UTC too, by which a wrong zone or unit is seen."""
    text = json.dumps(value, ensure_ascii=False)
    if not name.endswith("_ms") or not isinstance(value, int):
        return text
    try:
        return f"{text}  {(EPOCH + timedelta(milliseconds=value)).isoformat(timespec='milliseconds')}"
    except OverflowError:
        return f"{text}  after the year 9999"


def summarize(trials: list[Trial]) -> Iterator[str]:
    kinds = Counter(trial.kind for trial in trials if trial.event)
    yield f"{len(trials)} records: " + ", ".join(
        [f"{count} {kind}" for kind, count in kinds.items()]
        + [f"{sum(bool(trial.skipped) for trial in trials)} skipped"]
        + [f"{sum(bool(trial.reason) for trial in trials)} dead letters"]
    )
    for kind, total in kinds.items():
        absent = Counter(name for trial in trials if trial.kind == kind for name in trial.absent)
        if always := [name for name, count in absent.items() if count == total]:
            yield f"{kind}: never present: {', '.join(always)}"
