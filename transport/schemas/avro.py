"""Avro by fastavro, as documents of JSON's types: what has another type in Python is converted as its schema says."""

import datetime
import decimal
import io
import math
import uuid
from collections.abc import Callable, Mapping
from typing import Any, Final

import fastavro
import msgspec

from contract.mapping.envelopes import FRAMING_BYTES

Convert = Callable[[Any], Any]
MILLISECONDS: Final = ("timestamp-millis", "local-timestamp-millis")  # are integers in our unit as they are


def open_avro(schema_text: str) -> Callable[[bytes, str], Any]:
    """The function from a framed value, and its topic, to a document."""
    schema = fastavro.parse_schema(leave_milliseconds(msgspec.json.decode(schema_text)))
    convert = Converters().find(schema)

    def read(value: bytes, topic: str) -> Any:
        document = fastavro.schemaless_reader(io.BytesIO(value[FRAMING_BYTES:]), schema, None)
        return convert(document) if convert else document

    return read


def leave_milliseconds(schema: Any) -> Any:
    """A schema in which times in milliseconds are integers: fastavro would make `datetime`s of them."""
    if isinstance(schema, list):
        return [leave_milliseconds(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {name: leave_milliseconds(part) for name, part in schema.items()}
    if kept.get("logicalType") in MILLISECONDS:
        del kept["logicalType"]
    return kept


class Converters:
    """Compiles the conversions of a parsed schema; those of records change the record in place."""

    def __init__(self) -> None:
        self._by_name: dict[str, Convert | None] = {}

    def find(self, schema: Any) -> Convert | None:
        """The function from a value of a schema to one of JSON's types; None where it is one as it is."""
        if isinstance(schema, str):
            return self._by_name[schema] if schema in self._by_name else BY_TYPE.get(schema)
        if isinstance(schema, list):
            return self._find_union([part for part in schema if part != "null"])
        if "logicalType" in schema:
            if "name" in schema:
                self._by_name[schema["name"]] = to_plain
            return to_plain
        match schema["type"]:
            case "record" | "error":
                return self._find_record(schema)
            case "array":
                return in_list(convert) if (convert := self.find(schema["items"])) else None
            case "map":
                return in_table(convert) if (convert := self.find(schema["values"])) else None
            case "enum" | "fixed" as kind:
                self._by_name[schema["name"]] = BY_TYPE.get(kind)
                return BY_TYPE.get(kind)
        return self.find(schema["type"])

    def _find_union(self, members: list[Any]) -> Convert | None:
        converts = [self.find(member) for member in members]
        if len(members) != 1:
            return to_plain if any(converts) else None
        return unless_null(converts[0]) if converts[0] else None

    def _find_record(self, schema: dict[str, Any]) -> Convert | None:
        name, fields = schema["name"], schema["fields"]
        self._by_name[name] = to_plain  # within itself
        numbers = [field["name"] for field in fields if field["type"] in ("float", "double")]
        converts = {field["name"]: self.find(field["type"]) for field in fields if field["name"] not in numbers}
        others = [(field, convert) for field, convert in converts.items() if convert]

        def convert_record(record: dict[str, Any]) -> dict[str, Any]:
            for field in numbers:
                if not math.isfinite(record[field]):
                    record[field] = None
            for field, convert in others:
                record[field] = convert(record[field])
            return record

        self._by_name[name] = convert_record if numbers or others else None
        return self._by_name[name]


def in_list(convert: Convert) -> Convert:
    return lambda values: [convert(value) for value in values]


def in_table(convert: Convert) -> Convert:
    return lambda values: {name: convert(value) for name, value in values.items()}


def unless_null(convert: Convert) -> Convert:
    return lambda value: None if value is None else convert(value)


def to_plain(value: Any) -> Any:
    """A value of any type as one of JSON's: what logical types are decoded to becomes numbers and text."""
    kind = type(value)
    if kind is dict:
        return {name: part if type(part) in PLAIN else to_plain(part) for name, part in value.items()}
    if kind is list:
        return [part if type(part) in PLAIN else to_plain(part) for part in value]
    convert = CONVERSIONS.get(kind)
    return convert(value) if convert else value


def read_datetime(value: datetime.datetime) -> int:
    """Epoch milliseconds; of a local timestamp as if it were UTC."""
    return round((value if value.tzinfo else value.replace(tzinfo=datetime.UTC)).timestamp() * 1_000)


def read_bytes(value: bytes) -> str:
    return value.decode(errors="replace")


def read_float(value: float) -> float | None:
    """A number that JSON has."""
    return value if math.isfinite(value) else None


PLAIN: Final = frozenset({str, int, bool, type(None)})
BY_TYPE: Final[Mapping[str, Convert]] = {
    "float": read_float,
    "double": read_float,
    "bytes": read_bytes,
    "fixed": read_bytes,
}
CONVERSIONS: Final[Mapping[type, Convert]] = {
    datetime.datetime: read_datetime,
    datetime.date: datetime.date.isoformat,
    datetime.time: datetime.time.isoformat,
    decimal.Decimal: str,
    uuid.UUID: str,
    float: read_float,
    bytes: read_bytes,
}
