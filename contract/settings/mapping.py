"""[map.NAME]: how records of a shop's own form become events: topics, kinds, and a source for each field.

`read_maps` turns the tables of `shop.toml` into `MapTable`s and lists every mistake; `contract.mapping` compiles them.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, get_args

import msgspec

from contract.errors import BadConfig
from contract.events.model import KINDS, Event
from contract.events.times import ANY_ZONE, TIME_UNITS, is_time_unit
from contract.features.sources import describe_nearest
from contract.mapping.paths import BadPath, parse_path

MAPPED_KINDS: Final = ("clicks", "impressions", "orders", "reviews", "searches", "products", "labels")
ENVELOPES: Final = ("cloudevents", "debezium")
MONEY_UNITS: Final = ("major", "minor")
MONEY_FIELDS: Final = ("amount", "unit_price", "price")
CHANGES: Final = {"c": "created", "r": "read by a snapshot", "u": "updated", "d": "deleted"}
MAP_NAMES: Final = ("topics", "kind", "envelope", "changes", "fields")
FIELD_NAMES: Final = ("path", "join", "with", "header", "key", "constant", "default", "unit", "table")
JOIN_WITH: Final = "/"
KIND_NAMES: Final = ("path", "header", "key", "table")


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldSource:
    """Where the value of one field comes from: the first of `paths` that is present, a header, the key, a constant.

    `join_with`: the values at all paths are one text, with this between them; absent if one of them is.
    `key`: True for the whole key, or a path in a key that is JSON. `unit`: of a time or an amount of money. `table`:
    theirs -> ours; a value that it lacks stays as it is. `default`: the value where none is present.
    """

    paths: tuple[str, ...] = ()
    join_with: str | None = None
    header: str | None = None
    key: str | bool = False
    constant: object = None
    default: object = None
    unit: str | None = None
    table: Mapping[str, object] = field(default_factory=dict)


FieldSources = dict[str, "FieldSource | dict[str, FieldSource]"]


@dataclass(frozen=True, slots=True, kw_only=True)
class MapTable:
    """One map. `kinds`: their type -> kind, at `type_source`; without a type source all records are of `kind`.

    `topics`: none of a map for files alone.
    `changes`: which operations of a Debezium envelope are read. `fields`: the sources by our field; of lines and
    attributes, a table of sources.
    """

    name: str
    topics: tuple[str, ...]
    kind: str = ""
    type_source: FieldSource | None = None
    kinds_by_type: Mapping[str, str] = field(default_factory=dict)
    envelope: str = ""
    changes: tuple[str, ...] = ()
    fields: FieldSources = field(default_factory=dict)

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of events that it makes."""
        return tuple(dict.fromkeys(self.kinds_by_type.values())) if self.type_source else (self.kind,)


def read_maps(tables: Mapping[str, Any]) -> tuple[MapTable, ...]:
    """The maps that tables declare; raises `BadConfig` with every mistake of every table."""
    errors: list[str] = []
    maps = tuple(_MapReader(name, table, errors).read() for name, table in tables.items())
    if not errors:
        errors += find_conflicts(maps)
    if errors:
        raise BadConfig(errors)
    return maps


def find_conflicts(maps: Iterable[MapTable]) -> Iterator[str]:
    """Maps of one topic between which a record's type does not decide."""
    by_topic: dict[str, list[MapTable]] = {}
    for table in maps:
        for topic in table.topics:
            by_topic.setdefault(topic, []).append(table)
    for topic, tables in by_topic.items():
        names = ", ".join(f"`map.{table.name}`" for table in tables)
        if len(tables) > 1 and not all(table.type_source for table in tables):
            yield f"Maps of one topic should each have a kind by type. Found {names} of {topic} with a fixed kind."
        if len({table.envelope for table in tables}) > 1:
            yield f"Maps of one topic should have the same envelope. Found different ones in {names} of {topic}."
        sources: dict[tuple[object, ...], str] = {}
        for table in tables:
            for their_type in table.kinds_by_type:
                assert table.type_source
                place = (table.type_source.paths, table.type_source.header, table.type_source.key, their_type)
                if other := sources.get(place):
                    yield (
                        f"A type should be in one map of a topic. Found `{their_type}` in `map.{other}` and "
                        f"`map.{table.name}` of {topic}."
                    )
                sources[place] = table.name


def list_fields(kind: str) -> dict[str, tuple[str, ...]]:
    """The fields that a map may fill -> the fields within one of its entries; none for all but lines."""
    return {info.name: _list_nested(info.type) for info in msgspec.structs.fields(KINDS[kind])}


def list_required(kind: str) -> tuple[str, ...]:
    return tuple(info.name for info in msgspec.structs.fields(KINDS[kind]) if info.required)


def _list_nested(annotation: Any) -> tuple[str, ...]:
    """The fields of the structs in a list, however the list is annotated."""
    if isinstance(annotation, type) and issubclass(annotation, msgspec.Struct) and not issubclass(annotation, Event):
        return annotation.__struct_fields__
    return next((nested for part in get_args(annotation) if (nested := _list_nested(part))), ())


def suggest(name: str, accepted: Iterable[str]) -> str:
    """The accepted names, and the nearest one if one is near."""
    names = list(accepted)
    return f"{', '.join(names)}. Found none of that name{describe_nearest(name, names)}."


class _MapReader:
    """Reads one table of `[map]` and adds its mistakes to `errors`."""

    def __init__(self, name: str, table: object, errors: list[str]) -> None:
        self._name, self._errors = name, errors
        self._table: Mapping[str, Any] = table if isinstance(table, Mapping) else {}
        if not isinstance(table, Mapping):
            self._fail("", f"should be a table. Found {table!r}.")

    def read(self) -> MapTable:
        self._refuse_others("", self._table, MAP_NAMES)
        topics = self._read_texts("topics", given) if (given := self._table.get("topics", [])) != [] else ()
        kind, type_source, kinds_by_type = self._read_kind()
        envelope = self._table.get("envelope", "")
        if envelope and envelope not in ENVELOPES:
            self._fail("envelope", f"should be one of {suggest(str(envelope), ENVELOPES)}")
        table = MapTable(
            name=self._name,
            topics=topics,
            kind=kind,
            type_source=type_source,
            kinds_by_type=kinds_by_type,
            envelope=str(envelope),
            changes=self._read_changes(envelope),
        )
        fields = self._read_fields(table)
        return MapTable(**{**{name: getattr(table, name) for name in table.__slots__}, "fields": fields})

    def _read_kind(self) -> tuple[str, FieldSource | None, dict[str, str]]:
        value = self._table.get("kind")
        if isinstance(value, str):
            self._check_kind("kind", value)
            return value, None, {}
        if not isinstance(value, Mapping):
            self._fail("kind", f"should be a kind of events, or where the type of a record is. Found {value!r}.")
            return "", None, {}
        self._refuse_others("kind.", value, KIND_NAMES)
        source = self._read_source("kind", {name: part for name, part in value.items() if name != "table"})
        table = value.get("table")
        if not isinstance(table, Mapping) or not table:
            self._fail("kind.table", f"should give a kind of events for each of their types. Found {table!r}.")
            return "", source, {}
        for their_type, kind in table.items():
            self._check_kind(f"kind.table.{their_type}", kind)
        return "", source or FieldSource(), {str(their_type): str(kind) for their_type, kind in table.items()}

    def _check_kind(self, place: str, kind: object) -> None:
        if kind not in MAPPED_KINDS:
            self._fail(place, f"should be one of {suggest(str(kind), MAPPED_KINDS)}")

    def _read_changes(self, envelope: object) -> tuple[str, ...]:
        if "changes" not in self._table:
            return ()
        changes = self._read_texts("changes", self._table["changes"])
        if envelope != "debezium":
            self._fail("changes", 'should be given with envelope = "debezium" only. Found it without.')
        for change in changes:
            if change not in CHANGES:
                self._fail("changes", f"should be among {', '.join(CHANGES)}. Found {change!r}.")
        return changes

    def _read_fields(self, table: MapTable) -> FieldSources:
        tables = self._table.get("fields")
        if not isinstance(tables, Mapping):
            self._fail("fields", f"should give a source for each field. Found {tables!r}.")
            return {}
        kinds = [kind for kind in table.kinds if kind in MAPPED_KINDS]
        accepted = {name: nested for kind in kinds for name, nested in list_fields(kind).items()}
        fields: FieldSources = {}
        for name, value in tables.items():
            place = f"fields.{name}"
            if kinds and name not in accepted:
                self._fail(place, f"should be a field of {' or '.join(kinds)}: {suggest(name, accepted)}")
            elif accepted.get(name) or (name == "attributes" and isinstance(value, Mapping)):
                fields[name] = self._read_nested(place, value, accepted.get(name, ()))
            elif source := self._read_source(place, value):
                fields[name] = source
        for kind in kinds:
            by_guest = {"user_id"} if "guest_id" in tables else set()
            missing = [name for name in list_required(kind) if name not in tables.keys() | by_guest]
            if missing:
                self._fail("fields", f"should have every field that {kind} need. Found none for {', '.join(missing)}.")
        return fields

    def _read_nested(self, place: str, value: object, accepted: tuple[str, ...]) -> dict[str, FieldSource]:
        if not isinstance(value, Mapping):
            self._fail(place, f"should give a source for each field of a line, {', '.join(accepted)}. Found {value!r}.")
            return {}
        sources: dict[str, FieldSource] = {}
        for name, part in value.items():
            if accepted and name not in accepted:
                self._fail(f"{place}.{name}", f"should be one of {suggest(name, accepted)}")
            elif source := self._read_source(f"{place}.{name}", part):
                sources[name] = source
        self._check_list(place, [path for source in sources.values() for path in source.paths])
        return sources

    def _check_list(self, place: str, paths: Iterable[str]) -> None:
        """All fields of a line come from the entries of one list."""
        lists = dict.fromkeys(path.partition("[]")[0] for path in paths if "[]" in path)
        if len(lists) > 1:
            names = ", ".join(f"`{path}[]`" for path in lists)
            self._fail(place, f"should be read from the entries of one list. Found {names}.")

    def _read_source(self, place: str, value: object) -> FieldSource | None:
        if isinstance(value, str | list):
            value = {"path": value}
        if not isinstance(value, Mapping):
            self._fail(
                place, f"should be a path, a list of paths, or a table of {', '.join(FIELD_NAMES)}. Found {value!r}."
            )
            return None
        self._refuse_others(f"{place}.", value, FIELD_NAMES)
        if not {"path", "join", "header", "key", "constant"} & value.keys():
            self._fail(place, "should have a path, a header, a key, a constant or paths to join. Found none.")
            return None
        paths = self._read_texts(f"{place}.path", value["path"]) if "path" in value else ()
        if "join" in value or "with" in value:
            paths = self._read_join(place, value)
        self._check_paths(place, [*paths, *([value["key"]] if isinstance(value.get("key"), str) else [])])
        self._check_unit(place, value.get("unit"))
        table = value.get("table", {})
        if not isinstance(table, Mapping):
            self._fail(f"{place}.table", f"should be a table of their values and ours. Found {table!r}.")
            table = {}
        header = value.get("header")
        if header is not None and not isinstance(header, str):
            self._fail(f"{place}.header", f"should be the name of a header. Found {header!r}.")
        return FieldSource(
            paths=paths,
            join_with=value.get("with", JOIN_WITH) if "join" in value else None,
            header=header,
            key=value.get("key", False),
            constant=value.get("constant"),
            default=value.get("default"),
            unit=value.get("unit"),
            table={str(theirs): ours for theirs, ours in table.items()},
        )

    def _read_join(self, place: str, value: Mapping[str, Any]) -> tuple[str, ...]:
        """The paths whose values become one text."""
        if not isinstance(value.get("with", JOIN_WITH), str):
            self._fail(f"{place}.with", f"should be a text between the values of `join`. Found {value['with']!r}.")
        paths = value.get("join")
        if not isinstance(paths, list) or len(paths) < 2:
            self._fail(f"{place}.join", f"should be a list of two paths or more. Found {paths!r}.")
            return ()
        if others := [name for name in ("path", "header", "key", "constant", "unit") if name in value]:
            self._fail(place, f"should have `join` without {', '.join(others)}. Found both.")
        paths = self._read_texts(f"{place}.join", paths)
        if not place.startswith("fields.lines.") and (lists := [path for path in paths if "[]" in path]):
            self._fail(f"{place}.join", f"should name single values. Found the list `{lists[0]}`.")
        return paths

    def _check_paths(self, place: str, paths: Iterable[str]) -> None:
        for path in paths:
            try:
                parse_path(path)
            except BadPath as error:
                self._fail(place, str(error))

    def _check_unit(self, place: str, unit: object) -> None:
        name = place.rpartition(".")[2]
        is_time = name.endswith("_ms")
        units = (*TIME_UNITS, ANY_ZONE) if is_time else MONEY_UNITS if name in MONEY_FIELDS else ()
        if unit is not None and not (is_time_unit(str(unit)) if is_time else unit in units):
            accepted = (
                f"should be one of {suggest(str(unit), units)}" if units else "should be of a time or of money only."
            )
            self._fail(f"{place}.unit", accepted)

    def _read_texts(self, place: str, value: object) -> tuple[str, ...]:
        texts = [value] if isinstance(value, str) else value
        if not isinstance(texts, list) or not texts or not all(isinstance(text, str) and text for text in texts):
            self._fail(place, f"should be a text or a list of texts. Found {value!r}.")
            return ()
        return tuple(texts)

    def _refuse_others(self, place: str, table: Mapping[str, Any], accepted: tuple[str, ...]) -> None:
        for name in table:
            if name not in accepted:
                self._fail(f"{place}{name}", f"should be one of {suggest(name, accepted)}")

    def _fail(self, place: str, sentence: str) -> None:
        name = f"map.{self._name}.{place}".rstrip(".")
        self._errors.append(f"`{name}` {sentence}")
