"""Values in the framing of a schema registry, against the client's mock; needs the packages of the group `schemas`."""

import datetime
import json
from decimal import Decimal
from typing import Any

import pytest

from contract.errors import BadEvent, Unavailable
from contract.mapping.event_topics import EventTopics
from contract.settings.servers import RegistrySettings, TopicSettings
from transport.record_reader import RecordReader
from transport.records import Record, TopicPartition
from transport.schemas.deserializer import Deserializer

pytest.importorskip("fastavro", reason="the packages of the group `schemas` are not installed")
pytest.importorskip("httpx2", reason="the packages of the group `schemas` are not installed")

TOPIC = "acme.clicks"
AVRO = {
    "type": "record",
    "name": "View",
    "fields": [
        {"name": "id", "type": "string"},
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "visitor", "type": {"type": "record", "name": "Visitor", "fields": [{"name": "id", "type": "long"}]}},
        {"name": "sku", "type": ["null", "string"], "default": None},
        {"name": "price", "type": {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}},
    ],
}
JSON_SCHEMA = {"title": "View", "type": "object", "properties": {"id": {"type": "string"}}, "required": ["id"]}
AT = datetime.datetime(2025, 11, 24, 16, tzinfo=datetime.UTC)
VIEW = {"id": "c1", "at": AT, "visitor": {"id": 7}, "sku": "A", "price": Decimal("19.90")}
MAP = {
    "topics": TOPIC,
    "kind": "clicks",
    "fields": {"event_id": "id", "ts_ms": "at", "user_id": "visitor.id", "item_id": "sku"},
}


@pytest.fixture
def deserializer(request: pytest.FixtureRequest) -> Deserializer:
    return Deserializer(RegistrySettings(url=f"mock://{abs(hash(request.node.name))}"))


def serialize_avro(deserializer: Deserializer, value: object) -> bytes:
    from confluent_kafka.schema_registry.avro import AvroSerializer
    from confluent_kafka.serialization import MessageField, SerializationContext

    serializer: Any = AvroSerializer(deserializer.client, json.dumps(AVRO))
    framed: bytes = serializer(value, SerializationContext(TOPIC, MessageField.VALUE))
    return framed


def test_avro_becomes_a_plain_document(deserializer: Deserializer) -> None:
    document = deserializer.read(TOPIC, serialize_avro(deserializer, VIEW))
    assert document == {
        "id": "c1",
        "at": 1_764_000_000_000,
        "visitor": {"id": 7},
        "sku": "A",
        "price": "19.90",
    }


def test_avro_is_mapped_like_json(deserializer: Deserializer) -> None:
    reader = RecordReader(EventTopics(TopicSettings(), {"views": MAP}), deserializer=deserializer)
    value = serialize_avro(deserializer, VIEW)
    kind, event = reader.read(Record(TopicPartition(TOPIC, 0), 0, None, value, (), -1))
    click: Any = event
    assert (kind, click.event_id, click.ts_ms, click.user_id, click.item_id) == (
        "clicks",
        "c1",
        1_764_000_000_000,
        "7",
        "A",
    )


def test_json_of_a_registry_is_read_and_plain_json_beside_it(deserializer: Deserializer) -> None:
    from confluent_kafka.schema_registry.json_schema import JSONSerializer
    from confluent_kafka.serialization import MessageField, SerializationContext

    serializer: Any = JSONSerializer(json.dumps(JSON_SCHEMA), deserializer.client)
    framed = serializer({"id": "c1"}, SerializationContext(TOPIC, MessageField.VALUE))
    assert deserializer.read(TOPIC, framed) == {"id": "c1"}
    reader = RecordReader(EventTopics(TopicSettings()), deserializer=deserializer)
    plain = b'{"event_id":"c1","ts_ms":1,"user_id":"u","item_id":"A"}'
    assert reader.read(Record(TopicPartition("shop.clicks", 0), 0, None, plain, (), -1))[1].event_id == "c1"


def test_protobuf_is_read_without_generated_classes(deserializer: Deserializer) -> None:
    from confluent_kafka.schema_registry.protobuf import ProtobufSerializer
    from confluent_kafka.serialization import MessageField, SerializationContext
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    # given a file with two types of messages, the second of them nested
    file = descriptor_pb2.FileDescriptorProto(name="view.proto", package="acme", syntax="proto3")
    outer = file.message_type.add(name="View")
    for number, (name, kind) in enumerate((("id", 9), ("at_ms", 3), ("is_new", 8)), 1):
        outer.field.add(name=name, number=number, type=kind, label=1)
    inner = outer.nested_type.add(name="Visitor")
    inner.field.add(name="user_id", number=1, type=9, label=1)
    outer.field.add(name="visitor", number=4, type=11, label=1, type_name=".acme.View.Visitor")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    view_class = message_factory.GetMessageClass(pool.FindMessageTypeByName("acme.View"))
    visitor_class = message_factory.GetMessageClass(pool.FindMessageTypeByName("acme.View.Visitor"))

    def serialize(message: Any) -> bytes:
        serializer: Any = ProtobufSerializer(type(message), deserializer.client, {"use.deprecated.format": False})
        framed: bytes = serializer(message, SerializationContext(TOPIC, MessageField.VALUE))
        return framed

    # when
    view = deserializer.read(TOPIC, serialize(view_class(id="c1", at_ms=5, visitor=visitor_class(user_id="u"))))
    visitor = deserializer.read(TOPIC, serialize(visitor_class(user_id="u")))
    # then
    assert view == {"id": "c1", "at_ms": 5, "is_new": False, "visitor": {"user_id": "u"}}
    assert visitor == {"user_id": "u"}


@pytest.mark.parametrize("value", [b"\0\0\0\x03\xe7data", b"{}", b"\0\0"])
def test_a_schema_that_is_unknown_or_a_frame_that_is_none_is_a_dead_letter(
    deserializer: Deserializer, value: bytes
) -> None:
    with pytest.raises(BadEvent, match="should"):
        deserializer.read(TOPIC, value)


def test_data_that_are_cut_are_a_dead_letter(deserializer: Deserializer) -> None:
    framed = serialize_avro(deserializer, VIEW)
    for end in range(5, len(framed)):
        with pytest.raises(BadEvent) as caught:
            deserializer.read(TOPIC, framed[:end])
        assert caught.value.reason == "bad_schema"


@pytest.mark.parametrize("values", ["double", "float", "boolean", "string", {"type": "map", "values": "double"}])
def test_the_same_cut_data_have_the_same_detail_each_time(deserializer: Deserializer, values: object) -> None:
    # given a map of Avro, cut anywhere
    schema = {
        "type": "record",
        "name": "Prices",
        "fields": [{"name": "by_sku", "type": {"type": "map", "values": values}}],
    }
    from confluent_kafka.schema_registry import Schema

    schema_id = deserializer.client.register_schema("prices", Schema(json.dumps(schema), "AVRO"))
    data = b"\x02\x02A\x02\x02B\x02\x02C"
    # when
    details = [
        find_details(deserializer, b"\0" + schema_id.to_bytes(4, "big") + data[:end]) for end in range(len(data))
    ]
    # then
    assert all(detail.startswith("A record should be data of schema") for pair in details for detail in pair)
    assert all(first == second and "0x" not in first for first, second in details)


def find_details(deserializer: Deserializer, value: bytes) -> list[str]:
    """The details of the dead letters of a record that is read twice, each time at another place of the memory."""
    details, held = list[str](), list[object]()
    for _ in range(2):
        with pytest.raises(BadEvent) as caught:
            deserializer.read(TOPIC, value)
        held.append(caught.value.__cause__)
        details.append(str(caught.value))
    return details


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b'{"id": "c1", "x": NaN}', "not_json"),
        (b'{"id": "\xff"}', "not_utf8"),
        (b'{"id": "c1", "x": ' + b"[" * 600 + b"]" * 600 + b"}", "too_deep"),
        (b"", "empty"),
        (b'{"id": 1}', "bad_schema"),
    ],
)
def test_json_of_a_registry_is_no_more_than_json(deserializer: Deserializer, payload: bytes, reason: str) -> None:
    from confluent_kafka.schema_registry import Schema

    schema_id = deserializer.client.register_schema("view-value", Schema(json.dumps(JSON_SCHEMA), "JSON"))
    with pytest.raises(BadEvent) as caught:
        deserializer.read(TOPIC, b"\0" + schema_id.to_bytes(4, "big") + payload)
    assert caught.value.reason == reason


def test_half_surrogates_in_json_of_a_registry_are_replaced(deserializer: Deserializer) -> None:
    from confluent_kafka.schema_registry import Schema

    schema_id = deserializer.client.register_schema("view-value", Schema(json.dumps(JSON_SCHEMA), "JSON"))
    payload = b'{"id": "c\\ud800", "x": "\\ude00\\ud83d", "y": "\\ud83d\\ude00"}'
    document = deserializer.read(TOPIC, b"\0" + schema_id.to_bytes(4, "big") + payload)
    assert document == {"id": "c\ufffd", "x": "\ufffd\ufffd", "y": "\U0001f600"}


class Refused(Exception):
    """What the client raises for an answer of the registry."""

    def __init__(self, status: int) -> None:
        super().__init__(f"status {status}")
        self.http_status_code = status


def wrap(error: Exception) -> Exception:
    """The error of a deserializer that another one led to."""
    outer = ValueError("the schema cannot be resolved")
    outer.__cause__ = error
    return outer


@pytest.mark.parametrize("call", ["get_schema", "get_version"])
@pytest.mark.parametrize("is_wrapped", [False, True])
@pytest.mark.parametrize("cause", ["no connection", "no answer in time", 401, 403, 429, 500, 503])
def test_a_registry_that_does_not_answer_makes_no_dead_letter(
    deserializer: Deserializer, monkeypatch: pytest.MonkeyPatch, call: str, is_wrapped: bool, cause: str | int
) -> None:
    import httpx2
    from confluent_kafka.schema_registry import Schema, SchemaReference

    # given a schema with a reference, which the reader resolves by itself
    other = Schema('{"type": "record", "name": "Other", "fields": [{"name": "id", "type": "string"}]}', "AVRO")
    deserializer.client.register_schema("other-value", other)
    fields = '[{"name": "other", "type": "Other"}]'
    schema = Schema(
        f'{{"type": "record", "name": "View", "fields": {fields}}}',
        "AVRO",
        [SchemaReference("Other", "other-value", 1)],
    )
    schema_id = deserializer.client.register_schema("view-value", schema)
    value = b"\0" + schema_id.to_bytes(4, "big") + b"\x02a"
    errors = {"no connection": httpx2.ConnectError("refused"), "no answer in time": httpx2.ReadTimeout("late")}
    error = errors[cause] if isinstance(cause, str) else Refused(cause)

    def fail(*_: object, **__: object) -> None:
        raise wrap(error) if is_wrapped else error

    with monkeypatch.context() as patch:
        patch.setattr(deserializer.client, call, fail)
        # then it is to be tried again
        with pytest.raises(Unavailable):
            deserializer.read(TOPIC, value)
    # and is read once the registry answers
    assert deserializer.read(TOPIC, value) == {"other": {"id": "a"}}


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ('{"type": "unheard"}', "AVRO"),
        ("no schema", "AVRO"),
        ("no schema", "JSON"),
        ("no schema", "PROTOBUF"),
        ('syntax = "proto3"; import "missing.proto"; message View { missing.Type x = 1; }', "PROTOBUF"),
    ],
)
def test_a_schema_that_cannot_be_read_makes_dead_letters(deserializer: Deserializer, text: str, kind: Any) -> None:
    from confluent_kafka.schema_registry import Schema

    schema_id = deserializer.client.register_schema("view-value", Schema(text, kind))
    for _ in range(2):
        with pytest.raises(BadEvent) as caught:
            deserializer.read(TOPIC, b"\0" + schema_id.to_bytes(4, "big") + b"{}")
        assert caught.value.reason == "bad_schema"


def test_a_number_that_json_does_not_have_is_absent(deserializer: Deserializer) -> None:
    from confluent_kafka.schema_registry.avro import AvroSerializer
    from confluent_kafka.serialization import MessageField, SerializationContext

    schema = {"type": "record", "name": "Price", "fields": [{"name": "price", "type": "double"}]}
    serializer: Any = AvroSerializer(deserializer.client, json.dumps(schema))
    for price, expected in ((1.5, 1.5), (float("nan"), None), (float("inf"), None)):
        value = serializer({"price": price}, SerializationContext(TOPIC, MessageField.VALUE))
        assert deserializer.read(TOPIC, value) == {"price": expected}
