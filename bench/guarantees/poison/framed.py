"""Odd records in the framing of a schema registry: JSON, Avro and Protobuf, and schemas that cannot be read."""

import base64
import json
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Any, Final

PACKAGES: Final = ("fastavro", "httpx2", "google.protobuf")
JSON_ID, AVRO_ID, PROTOBUF_ID, BROKEN_ID, UNKNOWN_ID = 1, 2, 3, 4, 999
AVRO: Final[Mapping[str, Any]] = {
    "type": "record",
    "name": "Order",
    "fields": [
        {"name": "event_id", "type": "string"},
        {"name": "ts_ms", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "user_id", "type": ["null", "string", "long"]},
        {
            "name": "lines",
            "type": {
                "type": "array",
                "items": {
                    "type": "record",
                    "name": "Line",
                    "fields": [
                        {"name": "item_id", "type": "string"},
                        {"name": "quantity", "type": "int"},
                        {"name": "unit_price", "type": "double"},
                    ],
                },
            },
        },
        {"name": "amount", "type": {"type": "bytes", "logicalType": "decimal", "precision": 30, "scale": 2}},
        {"name": "currency", "type": {"type": "enum", "name": "Currency", "symbols": ["EUR", "USD"]}},
        {"name": "payment_method", "type": "bytes"},
        {"name": "shipped_on", "type": ["null", {"type": "int", "logicalType": "date"}]},
        {"name": "card_id", "type": ["null", {"type": "string", "logicalType": "uuid"}]},
        {"name": "attributes", "type": {"type": "map", "values": ["null", "double", "string", "boolean"]}},
    ],
}
GOOD_AVRO: Final = (  # of this schema, field by field
    b"\x02o" + b"\xc0\xd5\xe3\xed\xd6f" + b"\x02\x04u1" + b"\x02\x04i1\x04" + b"\0\0\0\0\0\0\xf0?" + b"\0"
    b"\x04\x07\xcf" + b"\0" + b"\x08card" + b"\0" + b"\0" + b"\x02\x02a\x02" + b"\0\0\0\0\0\0\xf0?" + b"\0"
)  # fmt: skip
PROTOBUF_FIELDS: Final[Sequence[tuple[str, int]]] = (
    ("event_id", 9),
    ("ts_ms", 3),
    ("user_id", 9),
    ("item_id", 9),
    ("rating", 1),
    ("text", 12),
)  # with their types, as in descriptors
GOOD_PROTOBUF: Final = b"\0" + b"\x0a\x01v\x10\xe0\xaa\xf1\xf6\xab3\x1a\x02u1\x22\x02i1\x29\0\0\0\0\0\0\x10@\x32\x02ok"


def are_packages_installed() -> bool:
    return all(find_spec(package.partition(".")[0]) for package in PACKAGES)


def register_schemas(client: Any) -> None:
    """Register the schemas in their order with the client's mock, which numbers them from 1."""
    from confluent_kafka.schema_registry import Schema
    from google.protobuf.descriptor_pb2 import FileDescriptorProto

    file = FileDescriptorProto(name="review.proto", syntax="proto3")
    message = file.message_type.add(name="Review")
    for number, (name, code) in enumerate(PROTOBUF_FIELDS, 1):
        message.field.add(name=name, number=number, type=code, label=1)
    message.field.add(name="inner", number=len(PROTOBUF_FIELDS) + 1, type=11, label=3, type_name=".Review")
    properties = {"user_id": {"type": ["string", "integer"]}, "item_id": {"type": "string", "maxLength": 200}}
    texts = (
        (json.dumps({"title": "Click", "type": "object", "properties": properties}), "JSON"),
        (json.dumps(AVRO), "AVRO"),
        (base64.b64encode(file.SerializeToString()).decode(), "PROTOBUF"),
        ("no schema", "AVRO"),
    )
    for number, (text, kind) in enumerate(texts, 1):
        assert client.register_schema(f"poison-{number}", Schema(text, kind)) == number


def frame(schema_id: int, payload: bytes) -> bytes:
    return b"\0" + schema_id.to_bytes(4, "big") + payload


def splice(good: bytes, odd: bytes) -> bytes:
    """Good data in which some bytes are replaced with a part of odd ones, by the odd ones' length."""
    place, size = len(odd) % len(good), len(odd) % 5
    return good[:place] + odd[len(odd) // 2 :][:size] + good[place + size % 3 :]


def in_json(value: bytes) -> bytes:
    return frame(JSON_ID, value)


def in_avro(value: bytes) -> bytes:
    return frame(AVRO_ID, splice(GOOD_AVRO, value))


def in_protobuf(value: bytes) -> bytes:
    return frame(PROTOBUF_ID, splice(GOOD_PROTOBUF, value))


def in_broken_schema(value: bytes) -> bytes:
    return frame(BROKEN_ID, value)


def in_unknown_schema(value: bytes) -> bytes:
    return frame(UNKNOWN_ID, value)


FRAMES: Final = {
    "clicks": in_json,
    "searches": in_json,
    "orders": in_avro,
    "reviews": in_protobuf,
    "labels": in_broken_schema,
    "products": in_unknown_schema,
}
