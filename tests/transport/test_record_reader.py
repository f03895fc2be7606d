"""The shorter way from a record to its event: the same events and the same errors as by the map's document."""

from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any

import pytest

from bench.guarantees.poison.corpus import make_corpus
from bench.guarantees.poison.documents import list_line_fields, make_fields, write_object
from bench.guarantees.poison.mutations import Mutator
from bench.guarantees.poison.record_forms import OddRecord
from contract.errors import BadEvent
from contract.events.model import KINDS
from contract.events.reading import make_readers
from contract.mapping.event_topics import EventTopics
from contract.settings.intake import IntakeSettings
from contract.settings.mapping import MAPPED_KINDS
from contract.settings.servers import TopicSettings
from contract.tasks import Task
from transport.record_reader import RecordReader
from transport.records import Record, TopicPartition

MUTATED = 1_500
TASKS = (Task("fraud", "binary", ("order",), "decide"),)
ID_FIELDS = ("event_id", "user_id", "item_id")
Outcome = tuple[object, ...]


def map_kind(kind: str, prefix: str, **others: object) -> dict[str, Any]:
    """A map of one kind that looks up each field by its own name, below a prefix."""
    fields: dict[str, Any] = {name: f"{prefix}{name}" for name in make_fields(kind, "")}
    if kind == "orders":
        fields["lines"] = {name: f"{prefix}lines[].{name}" for name in list_line_fields(kind)}
    if "attributes" in fields:
        fields["attributes"] = {name: f"{prefix}attributes.{name}" for name in ("browser", "age", "x")}
    return {"topics": f"acme.{kind}", "kind": kind, "fields": {**fields, **others}}


def open_maps(prefix: str = "", **others: object) -> EventTopics:
    own = {
        kind: {name: source for name, source in others.items() if name in KINDS[kind].__struct_fields__}
        for kind in MAPPED_KINDS
    }
    return EventTopics(TopicSettings(), {kind: map_kind(kind, prefix, **own[kind]) for kind in MAPPED_KINDS})


class Reading:
    """Reads records one way or the other, and keeps what is ignored."""

    def __init__(self, topics: EventTopics, intake: IntakeSettings) -> None:
        self.ignored: list[object] = []
        note = self.ignored.append
        readers = make_readers(
            intake, TASKS, on_ignored=lambda *field: note(field), on_doubtful=lambda *field: note(field)
        )
        self._reader = RecordReader(topics, readers)

    def read_either_way(self, record: Record) -> Outcome:
        return self._note(lambda: self._reader.read(record))

    def read_by_document(self, record: Record) -> Outcome:
        def read() -> tuple[str, object]:
            kind, document = self._reader.find_kind(record)
            return kind, self._reader.readers[kind].read_document(document)

        return self._note(read)

    def read_typed(self, record: Record) -> object:
        return self._reader.read_typed(record)

    def _note(self, read: Any) -> Outcome:
        self.ignored.clear()
        try:
            kind, event = read()
        except BadEvent as error:
            return error.reason, str(error), *self.ignored
        return kind, event, *self.ignored


def place(odd: OddRecord, prefix: bytes = b"") -> Record:
    value = odd.value
    if value and prefix:
        value = b'{"%s": %s}' % (prefix, value)
    return Record(TopicPartition(f"acme.{odd.kind}", 0), 0, odd.key, value, odd.headers, -1)


def list_odd(seed: int) -> Iterable[OddRecord]:
    records = chain(list(make_corpus())[seed % 20 :: 20], Mutator(seed).make(MUTATED))
    return (odd for odd in records if odd.kind in MAPPED_KINDS)


def list_good() -> Iterator[OddRecord]:
    for kind in MAPPED_KINDS:
        document = make_fields(kind, f"{kind}-1")
        yield OddRecord("good", kind, None, write_object(document))
        numbers = {name: b"5001" for name in ID_FIELDS if name in document}
        yield OddRecord("good", kind, None, write_object({**document, **numbers}))


PLAIN = open_maps()
NESTED = open_maps(
    "order.",
    user_id=["order.user_id", "order.session_id", "order.card_id"],
    ts_ms={"path": "order.ts_ms", "unit": "ms"},
    currency={"path": "order.currency", "default": "EUR"},
    platform={"constant": "web"},
    account_created_ms={"path": "order.account_created_ms", "unit": "iso"},
)
CASES = ((PLAIN, b""), (NESTED, b"order"))


@pytest.mark.parametrize(("topics", "prefix"), CASES)
def test_good_events_of_each_kind_are_read_the_shorter_way(topics: EventTopics, prefix: bytes) -> None:
    reading = Reading(topics, IntakeSettings())
    for odd in list_good():
        record = place(odd, prefix)
        assert reading.read_typed(record) == reading.read_by_document(record)[:2]  # else the next test compares nothing


@pytest.mark.parametrize(("topics", "prefix"), CASES)
@pytest.mark.parametrize("intake", [IntakeSettings(), IntakeSettings(times={"orders": "s"}, money={"orders": "minor"})])
def test_odd_records_are_read_the_same_way_as_by_their_document(
    topics: EventTopics, prefix: bytes, intake: IntakeSettings, seed: int
) -> None:
    reading, typed = Reading(topics, intake), 0
    for odd in list_odd(seed):
        record = place(odd, prefix)
        expected = reading.read_by_document(record)
        assert reading.read_either_way(record) == expected, (odd.form, odd.kind, record.value)
        typed += reading.read_typed(record) is not None
    assert typed > MUTATED // 10
