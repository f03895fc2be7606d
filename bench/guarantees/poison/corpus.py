"""The corpus: on each topic of events, records of every odd kind; the same ones each time."""

import base64
import gzip
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Final, NamedTuple

import msgspec

from bench.guarantees.poison.documents import (
    BASE_MS,
    LINE,
    Fields,
    list_line_fields,
    list_required,
    make_fields,
    with_line,
    write_object,
)
from bench.guarantees.poison.values import VALUES, Fragment, nest, quote
from contract.events import KINDS, RECORD_BYTES_MAX
from contract.messages import DEAD_LETTER_HEADER

Headers = Sequence[tuple[str, bytes | None]]
TOPIC_KINDS: Final = tuple(KINDS)
LEVELS: Final = (*range(480, 511, 2), *range(900, 1_001, 10))  # near our own limit, and near Python's of recursion
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


class OddRecord(NamedTuple):
    """A record, and the name of its odd kind; `timestamp_ms` 0: the time of sending, -1: none."""

    form: str
    kind: str
    key: bytes | None
    value: bytes | None
    headers: Headers = ()
    timestamp_ms: int = 0


def make_corpus() -> Iterator[OddRecord]:
    """All odd records of all topics; every event has an id of its own unless the id is what is odd."""
    for kind in TOPIC_KINDS:
        for number, (form, change) in enumerate(list_forms(kind)):
            document = make_fields(kind, f"{kind}-odd-{number}")
            yield change(form, kind, document)


Change = Callable[[str, str, Fields], OddRecord]


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


def as_record(
    key: bytes | None = b"u1", headers: Headers = (), timestamp_ms: int = 0, *, is_bad: bool = True
) -> Change:
    """A record whose key, headers or time are odd; `is_bad`: its value is, too, so that a dead letter carries them."""

    def change(form: str, kind: str, document: Fields) -> OddRecord:
        value = write_object({**document, "event_id": b"null"} if is_bad else document)
        return OddRecord(form, kind, key, value, headers, timestamp_ms)

    return change


KEYS: Final[Mapping[str, bytes | None]] = {
    "no key": None,
    "an empty key": b"",
    "a key that is not UTF-8": b"\xff\xfe\x00",
    "a key of NUL": b"\x00",
    "a key that is JSON": b'{"id": "u1"}',
    "a key that is JSON cut short": b'{"id": ',
    "a key of 5,000 digits": b"9" * 5_000,
    "a key nested deeply": b"[" * 5_000,
    "a key of 100 KiB": b"k" * 100 * 1_024,
    "a key of another user": b"u2",
    "a key with spaces": b" u1 ",
    "a key of an integer": b"\x00\x00\x00\x07",
    "a key with a frame": b"\x00\x00\x00\x00\x07\x02u",
}
HEADERS: Final[Mapping[str, Headers]] = {
    "a header without a value": (("a", None),),
    "a header without a name": (("", b"x"),),
    "a header without both": (("", b""),),
    "a header of bytes": (("trace", b"\x00\xff\xfe"),),
    "a header of 100 KiB": (("long", b"x" * 100 * 1_024),),
    "a header with a long name": (("n" * 10_000, b"x"),),
    "a header with an odd name": (("é \U0001f600\n{}", b"x"),),
    "a header twice": (("a", b"1"), ("a", b"2"), ("a", None)),
    "1,000 headers": tuple((f"h{number}", b"v") for number in range(1_000)),
    "a header of dead letters": ((DEAD_LETTER_HEADER, b"{}"),),
    "a header of dead letters that is not JSON": ((DEAD_LETTER_HEADER, b"\xff"), (DEAD_LETTER_HEADER, None)),
    "headers of CloudEvents": (("ce_specversion", b"1.0"), ("ce_id", b"1"), ("ce_type", b"click")),
    "headers of CloudEvents without values": (("ce_specversion", None), ("ce_id", None), ("ce_type", None)),
    "headers of CloudEvents of bytes": (("ce_specversion", b"\xff"), ("ce_type", b"\xff"), ("ce_", b"x")),
    "headers of our own": (("shopstream-shard", None), ("shopstream-copy", b"\xff"), ("user", None), ("type", b"\xff")),
}
TIMES: Final[Mapping[str, int]] = {
    "no Kafka time": -1,
    "a Kafka time of 1970": 1,
    "a Kafka time of 2001": 1_000_000_000_000,
    "a Kafka time before the event's": BASE_MS - 86_400_000,
    "a Kafka time of the year 5138": 99_999_999_999_999,
    "the greatest Kafka time": 2**62,
}
RECORD_FORMS: Final[Mapping[str, Change]] = {
    **{form: as_record(key) for form, key in KEYS.items()},
    **{f"{form} of a good event": as_record(key, is_bad=False) for form, key in KEYS.items()},
    **{form: as_record(headers=headers) for form, headers in HEADERS.items()},
    **{f"{form} of a good event": as_record(headers=headers, is_bad=False) for form, headers in HEADERS.items()},
    **{form: as_record(timestamp_ms=ms, is_bad=False) for form, ms in TIMES.items()},
    "a tombstone": lambda form, kind, document: OddRecord(form, kind, b"i9", None),
    "a tombstone without a key": lambda form, kind, document: OddRecord(form, kind, None, None),
    "a tombstone with headers": lambda form, kind, document: OddRecord(
        form, kind, b"i9", None, HEADERS["a header twice"]
    ),
    "a good event": as_record(is_bad=False),
}
