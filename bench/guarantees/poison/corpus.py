"""The corpus: on each topic of events, records of every odd kind; the same ones each time."""

import base64
import gzip
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, Final

import msgspec

from bench.guarantees.poison.documents import (
    LINE,
    Fields,
    list_line_fields,
    list_required,
    make_fields,
    with_line,
    write_object,
)
from bench.guarantees.poison.record_forms import RECORD_FORMS, Change, OddRecord
from bench.guarantees.poison.values import VALUES, Fragment, nest, quote
from contract.events.model import KINDS, RECORD_BYTES_MAX

TOPIC_KINDS: Final = tuple(KINDS)
LEVELS: Final = (*range(480, 511, 2), *range(900, 1_001, 10))  # near our own limit, and near Python's of recursion
ENTRIES: Final[Mapping[str, Fragment]] = {
    "an entity without an id": b'"user:"',
    "an entity without a kind": b'":u1"',
    "an entity of an unknown kind": b'"planet:mars"',
    "an entity with a long id": quote("user:" + "u" * 100_000),
    "an entity with an odd id": quote("item:{a}%:b\x00\U0001f600"),
    "an entity of two": b'"user:u1", "user:u1", "device:", "ip:2001:db8::1"',
}
ATTRIBUTES: Final = ("browser", "age", "gift", "taste", "email")  # that the features of `shops` read
LISTS: Final = ("lines", "items", "entities", "vector")
ATTRIBUTE_FORMS: Final[Mapping[str, Callable[[], Fragment]]] = {
    "256 attributes": lambda: write_object({f"a{number}": b"1" for number in range(256)}),
    "257 attributes": lambda: write_object({f"a{number}": b"1" for number in range(257)}),
    "5,000 attributes": lambda: write_object({f"a{number}": b"true" for number in range(5_000)}),
    "an attribute without a name": lambda: b'{"": 1}',
    "an attribute with a long name": lambda: write_object({"n" * 10_000: b"1"}),
    "attributes with odd names": lambda: b'{"a.b": 1, "$ref": 2, "__class__": 3, "a\\u0000b": 4, "\\ud83d\\ude00": 5}',
    "attributes that repeat a name": lambda: b'{"browser": 1, "browser": "x", "browser": null}',
}


def make_corpus() -> Iterator[OddRecord]:
    """All odd records of all topics; every event has an id of its own unless the id is what is odd."""
    for kind in TOPIC_KINDS:
        for number, (form, change) in enumerate(list_forms(kind)):
            document = make_fields(kind, f"{kind}-odd-{number}")
            yield change(form, kind, document)


def list_forms(kind: str) -> Iterator[tuple[str, Change]]:
    """The odd forms of one kind of event, each with the function from a valid document to the record."""
    for form, write in DOCUMENT_FORMS.items():
        yield form, as_value(write)
    yield from list_nested_forms(kind)
    yield from list_field_forms(kind)
    yield from list_line_forms(kind)
    for form, fragment in VALUES.items():
        yield (
            f"{form} as an attribute",
            as_value(set_field("attributes", write_object(dict.fromkeys(ATTRIBUTES, fragment)))),
        )
    for form, make in ATTRIBUTE_FORMS.items():
        yield form, as_value(set_field("attributes", make()))
    yield from RECORD_FORMS.items()


def list_nested_forms(kind: str) -> Iterator[tuple[str, Change]]:
    for levels in LEVELS:
        for place in ("unknown", "attributes", *list_required(kind)):
            yield "nested near a limit", as_value(set_field(place, nest(levels)))
            yield "nested near a limit", as_value(set_field(place, b'{"x":' * levels + b"1" + b"}" * levels))


def list_field_forms(kind: str) -> Iterator[tuple[str, Change]]:
    """Every odd value in every field, required fields left out, and lists of many lengths."""
    for name in list_required(kind):
        yield "without a required field", as_value(leave_out(name))
    for name in make_fields(kind, ""):
        yield "a name in another case", as_value(rename(name, name.title()))
        for form, fragment in VALUES.items():
            yield f"{form} in a field", as_value(set_field(name, fragment))
    for name in [name for name in LISTS if name in make_fields(kind, "")]:
        for count in (0, 1, 2_000, 2_001, 4_009):
            yield f"{count} entries", as_value(partial(repeat_entry, name, count))
        for form, fragment in {**VALUES, **ENTRIES}.items():
            yield f"{form} in a list", as_value(set_field(name, b"[" + fragment + b"]"))


def list_line_forms(kind: str) -> Iterator[tuple[str, Change]]:
    for name in list_line_fields(kind):
        yield "without a required field", as_value(partial(write_without, name))
        for form, fragment in VALUES.items():
            yield f"{form} in a line", as_value(partial(write_line, name, fragment))


def as_value(write: Callable[[Fields], bytes | None]) -> Change:
    return lambda form, kind, document: OddRecord(form, kind, b"u1", write(document))


def set_field(name: str, fragment: Fragment) -> Callable[[Fields], bytes]:
    return lambda document: write_object({**document, name: fragment})


def leave_out(name: str) -> Callable[[Fields], bytes]:
    return lambda document: write_object({field: value for field, value in document.items() if field != name})


def rename(name: str, other: str) -> Callable[[Fields], bytes]:
    return lambda document: write_object({other if field == name else field: v for field, v in document.items()})


def write_line(name: str, fragment: Fragment, document: Fields) -> bytes:
    return write_object(with_line(document, {**LINE, name: fragment}))


def write_without(name: str, document: Fields) -> bytes:
    return write_object(with_line(document, {field: value for field, value in LINE.items() if field != name}))


def repeat_entry(name: str, count: int, document: Fields) -> bytes:
    entry = {"lines": write_object(LINE), "entities": b'"user:u1"', "vector": b"0.5"}.get(name, b'"i1"')
    return write_object({**document, name: b"[" + b",".join([entry] * count) + b"]"})


def pad(document: Fields, size: int) -> bytes:
    """The document with a further field, of exactly this size."""
    value = write_object({**document, "padding": b'""'})
    return write_object({**document, "padding": b'"' + b"x" * (size - len(value)) + b'"'})


def to_plain(document: Fields) -> Any:
    return msgspec.json.decode(write_object(document))


def write_debezium(document: Fields, change: bytes) -> bytes:
    row = write_object(document)
    return b'{"payload": {"before": %s, "after": %s, "op": "%s", "ts_ms": 1, "source": {}}}' % (row, row, change)


def write_cloudevent(document: Fields) -> bytes:
    return b'{"specversion": "1.0", "id": "1", "type": "t", "source": "s", "data": %s}' % write_object(document)


DOCUMENT_FORMS: Final[Mapping[str, Callable[[Fields], bytes | None]]] = {
    "no value": lambda document: None,
    "no bytes": lambda document: b"",
    "spaces": lambda document: b" \n\t ",
    "one byte": lambda document: b"\x00",
    "null": lambda document: b"null",
    "true": lambda document: b"true",
    "a number": lambda document: b"42",
    "a text": lambda document: b'"text"',
    "an empty list": lambda document: b"[]",
    "an empty object": lambda document: b"{}",
    "a list of the event": lambda document: b"[" + write_object(document) + b"]",
    "the event in a text": lambda document: quote(write_object(document).decode()),
    "the event in an object": lambda document: b'{"event": ' + write_object(document) + b"}",
    "the event twice": lambda document: write_object(document) * 2,
    "lines of JSON": lambda document: write_object(document) + b"\n" + write_object(document) + b"\n",
    "a byte order mark": lambda document: b"\xef\xbb\xbf" + write_object(document),
    "UTF-16": lambda document: write_object(document).decode().encode("utf-16"),
    "UTF-16 without a mark": lambda document: write_object(document).decode().encode("utf-16-le"),
    "UTF-32": lambda document: write_object(document).decode().encode("utf-32"),
    "Latin-1": lambda document: write_object({**document, "extra": quote("é")}).decode().encode("latin-1"),
    "cut short": lambda document: write_object(document)[:-9],
    "only its beginning": lambda document: write_object(document)[:1],
    "a comma at the end": lambda document: write_object(document)[:-1] + b",}",
    "text behind the document": lambda document: write_object(document) + b" and more",
    "NUL behind the document": lambda document: write_object(document) + b"\x00",
    "single quotes": lambda document: write_object(document).replace(b'"', b"'"),
    "a comment": lambda document: b"/* event */ " + write_object(document),
    "names without quotes": lambda document: write_object(document).replace(b'"event_id"', b"event_id"),
    "NaN in an unknown field": lambda document: write_object({**document, "extra": b"NaN"}),
    "1e400 in an unknown field": lambda document: write_object({**document, "extra": b"1e400"}),
    "1e400 and half a surrogate pair": lambda document: write_object({**document, "x": b"1e400", "y": b'"\\ud800"'}),
    "1e400 and an integer of 60 digits": lambda document: write_object({**document, "x": b"1e400", "y": b"9" * 60}),
    "1e400 and 5,000 digits": lambda document: write_object({**document, "x": b"1e400", "y": b"9" * 5_000}),
    "1e400 in a deep document": lambda document: write_object({**document, "x": b"1e400", "y": nest(950)}),
    "an unknown field that is not UTF-8": lambda document: write_object({**document, "x": b'"\xff"'}),
    "a field twice": lambda document: write_object(document)[:-1] + b', "user_id": "u2"}',
    "a field twice, of two types": lambda document: write_object(document)[:-1] + b', "user_id": {}}',
    "a field twice, at last null": lambda document: write_object(document)[:-1] + b', "event_id": null, "ts_ms": null}',
    "an event id twice, at last 1e400": lambda document: write_object(document)[:-1] + b', "event_id": 1e400}',
    "spaces in names": lambda document: write_object(document).replace(b'"event_id"', b'" event_id"'),
    "escaped names": lambda document: write_object(document).replace(b'"event_id"', b'"\\u0065vent_id"'),
    "camel case": lambda document: write_object(document).replace(b'"event_id"', b'"eventId"'),
    "spaces between all parts": lambda document: msgspec.json.format(write_object(document), indent=4),
    "10,000 unknown fields": lambda document: write_object({**document, **{f"x{n}": b"0" for n in range(10_000)}}),
    "an unknown field without a name": lambda document: write_object({**document, "": b"1"}),
    "an unknown field with a long name": lambda document: write_object({**document, "n" * 100_000: b"1"}),
    "10,000 levels": lambda document: write_object({**document, "x": nest(10_000)}),
    "100,000 levels, not closed": lambda document: b"[" * 100_000,
    "10,000 objects deep": lambda document: b'{"x":' * 10_000 + b"1" + b"}" * 10_000,
    "256 KiB": lambda document: pad(document, RECORD_BYTES_MAX),
    "256 KiB and a byte": lambda document: pad(document, RECORD_BYTES_MAX + 1),
    "700 KiB": lambda document: pad(document, 700 * 1_024),
    "256 KiB of zeros": lambda document: bytes(RECORD_BYTES_MAX),
    "all bytes": lambda document: bytes(range(256)),
    "a frame of a schema registry": lambda document: b"\x00\x00\x00\x00\x07" + write_object(document),
    "a frame of Avro": lambda document: b"\x00\x00\x00\x00\x07\x02\x06abc\x80\x01",
    "a frame of Protobuf": lambda document: b"\x00\x00\x00\x00\x07\x00\x0a\x03abc",
    "a frame alone": lambda document: b"\x00\x00\x00\x00\x07",
    "half a frame": lambda document: b"\x00\x00\x07",
    "Protobuf": lambda document: b"\x0a\x03abc\x10\x96\x01",
    "Avro's file": lambda document: b"Obj\x01\x04\x14avro.codec\x08null",
    "Java's serialization": lambda document: b"\xac\xed\x00\x05sr\x00",
    "MessagePack": lambda document: msgspec.msgpack.encode(to_plain(document)),
    "gzip": lambda document: gzip.compress(write_object(document), mtime=0),
    "base64": lambda document: base64.b64encode(write_object(document)),
    "CSV": lambda document: b"event_id,ts_ms\nx,1\n",
    "XML": lambda document: b"<?xml version='1.0'?><event><id>1</id></event>",
    "a form": lambda document: b"event_id=1&user_id=u1",
    "YAML": lambda document: b"event_id: 1\nuser_id: u1\n",
    "a CloudEvent": write_cloudevent,
    "a CloudEvent with base64": lambda document: (
        b'{"specversion": "1.0", "type": "t", "data_base64": "%s"}' % base64.b64encode(write_object(document))
    ),
    "a CloudEvent with wrong base64": lambda document: b'{"specversion": "1.0", "data_base64": "\xc3\xa9="}',
    "a CloudEvent with a number for base64": lambda document: b'{"specversion": 1, "type": 1, "data_base64": 5}',
    "a change of Debezium": lambda document: write_debezium(document, b"u"),
    "a deletion of Debezium": lambda document: write_debezium(document, b"d"),
    "an unknown change of Debezium": lambda document: write_debezium(document, b"\\u0000"),
    "a change of Debezium without rows": lambda document: b'{"payload": {"op": "c", "before": null, "after": null}}',
    "a payload of another type": lambda document: b'{"schema": {}, "payload": [1]}',
    "a heartbeat of Debezium": lambda document: b'{"ts_ms": 1764000060000}',
    "a name of Python": lambda document: write_object({**document, "__class__": b'"x"', "__init__": b"{}"}),
}  # fmt: skip
