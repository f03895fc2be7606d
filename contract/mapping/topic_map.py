"""The maps of a topic: from a record of a shop's own form to the kind and the document of an event.

A topic without a map has no entry, so that its records cost nothing more.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from contract.errors import BadEvent
from contract.events.model import DELETABLE_KINDS
from contract.events.values import DamagedText, name_type
from contract.mapping.builder import Build, Document, Headers, Source, compile_fields, compile_source
from contract.mapping.envelopes import Opener, Skipped, open_change, open_cloudevent, parse
from contract.mapping.paths import to_text
from contract.mapping.shapes import DECODE_ERRORS, Place, find_shape, make_decode
from contract.mapping.sources import list_sources
from contract.mapping.typed_events import compile_event
from contract.settings.intake import IntakeSettings
from contract.settings.mapping import MapTable, list_fields

Choice = tuple[Source | None, Mapping[str, tuple[str, Build]]]
FIXED: Final = ""
NO_HEADERS: Final[Headers] = {}
DEFAULTS: Final = IntakeSettings()
OPENERS: Final[Mapping[str, Opener]] = {"cloudevents": open_cloudevent, "debezium": open_change}
CHANGES_READ: Final = {"products": frozenset("crud")}  # a row of any other kind is one event, not its later states
CHANGES_DEFAULT: Final = frozenset("cr")


def compile_maps(
    tables: Iterable[MapTable], placeholders: frozenset[str] = DEFAULTS.folded_placeholders
) -> dict[str, "TopicMap"]:
    """The map of each topic; `placeholders`: what stands for no id, in lower case."""
    by_topic: dict[str, list[MapTable]] = {}
    for table in tables:
        for topic in table.topics:
            by_topic.setdefault(topic, []).append(table)
    return {topic: TopicMap(topic_tables, placeholders) for topic, topic_tables in by_topic.items()}


class TopicMap:
    """How the records of one topic are read; `kinds`: of the events that they can become.

    `read_event`: the shorter way to the event of most records, where the map has one.
    """

    def __init__(self, tables: Sequence[MapTable], placeholders: frozenset[str] = DEFAULTS.folded_placeholders) -> None:
        self.tables = tuple(tables)
        self.kinds = tuple(dict.fromkeys(kind for table in tables for kind in table.kinds))
        self.has_deletions = tables[0].envelope == "debezium"
        self._open = OPENERS.get(tables[0].envelope)
        self._uses_headers = any(map(uses_headers, tables))
        self.read_event = compile_event(tables[0], placeholders) if len(tables) == 1 else None
        self._choices = [compile_choice(table, placeholders) for table in tables]
        shape = find_shape(tables)
        self._decode = make_decode(shape) if shape else parse
        self._shaped_choices = self._choices
        if shape:
            self._shaped_choices = [compile_choice(table, placeholders, shape) for table in tables]

    def read(
        self, value: bytes | object, key: bytes | None = None, headers: Sequence[Any] = ()
    ) -> tuple[str, Document]:
        """The kind and the document of a record, whose value is JSON or a decoded document.

        Raises `BadEvent` where it cannot be read, `Skipped` where it is none that the map reads.
        """
        if value is None:
            raise BadEvent("empty", "A record should hold a document. Found no bytes.")
        named = dict(headers) if headers and self._uses_headers else NO_HEADERS
        document, choices = value, self._choices
        if isinstance(value, bytes):
            try:
                document, choices = self._decode(value), self._shaped_choices
            except DECODE_ERRORS:  # of another shape
                document = parse(value)
        if self._open is not None:
            document = self._open(document, named)
        their_type = None
        for read_type, built in choices:
            if read_type is not None:
                their_type = read_type(document, key, named)
                type_text = to_text(their_type)
                if type_text is None or (chosen := built.get(type_text)) is None:
                    continue
                kind, build = chosen
            else:
                kind, build = built[FIXED]
            return kind, build(document, key, named)
        if their_type is None:
            raise BadEvent("missing_field", f"A record should have a type at {self._describe_types()}. Found none.")
        if isinstance(their_type, DamagedText):
            raise BadEvent(
                "not_utf8", f"A record's type at {self._describe_types()} should be UTF-8. Found other bytes."
            )
        shown_type = to_text(their_type) or name_type(their_type)
        raise Skipped(f"The type {shown_type!r:.80} is in no table of {', '.join(t.name for t in self.tables)}.")

    def _describe_types(self) -> str:
        sources = [table.type_source for table in self.tables if table.type_source]
        places = [f"`{path}`" for source in sources for path in source.paths]
        places += [f"the header `{source.header}`" for source in sources if source.header]
        return ", ".join(dict.fromkeys(places)) or "its key"


def compile_choice(table: MapTable, placeholders: frozenset[str], shape: Place | None = None) -> Choice:
    """Where a record's type is, and by type the kind and the builder of its document.

    Without such a place, all types are `FIXED`.
    """
    builders = {kind: (kind, compile_kind(table, kind, placeholders, shape)) for kind in table.kinds}
    if table.type_source is None:
        return None, {FIXED: builders[table.kind]}
    builders_by_type = {their_type: builders[kind] for their_type, kind in table.kinds_by_type.items()}
    return compile_source(table.type_source, shape), builders_by_type


def compile_kind(table: MapTable, kind: str, placeholders: frozenset[str], shape: Place | None = None) -> Build:
    """The builder of events of one kind; in a Debezium envelope only of the operations that are read of it."""
    build = compile_fields(table.fields, list_fields(kind), placeholders, shape)
    if table.envelope != "debezium":
        return build
    changes = frozenset(table.changes) or CHANGES_READ.get(kind, CHANGES_DEFAULT)

    def build_changed(document: Any, key: bytes | None, headers: Headers) -> Document:
        change = document["op"]
        if change not in changes:
            raise Skipped(f"The operation {change!r} is not among those that are read of {kind}.")
        event = build(document, key, headers)
        if change == "d" and kind in DELETABLE_KINDS:
            event["available"] = False
        return event

    return build_changed


def uses_headers(table: MapTable) -> bool:
    sources = [table.type_source] if table.type_source else []
    return table.envelope == "cloudevents" or any(source.header for source in [*sources, *list_sources(table.fields)])
