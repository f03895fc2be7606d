"""Conversions that are compiled from a schema; needs the packages of the group `schemas`."""

import datetime
import io
import json
from decimal import Decimal
from typing import Any

import pytest

pytest.importorskip("fastavro", reason="the packages of the group `schemas` are not installed")
pytest.importorskip("httpx2", reason="the packages of the group `schemas` are not installed")

import fastavro
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from transport.schemas.avro import open_avro, to_plain
from transport.schemas.protobuf import MessageCompiler

NAN, INFINITE = float("nan"), float("inf")
DAY = datetime.date(2026, 11, 30)
AT = datetime.datetime(2026, 11, 30, 4, 20, 0, 125_000, tzinfo=datetime.UTC)
AT_MS = 1_796_012_400_125
DECIMAL = {"type": "fixed", "name": "Cents", "size": 4, "logicalType": "decimal", "precision": 6, "scale": 2}
NODE = {
    "type": "record",
    "name": "Node",
    "fields": [{"name": "weight", "type": "double"}, {"name": "next", "type": ["null", "Node"]}],
}
AVRO_CASES: tuple[tuple[Any, Any, Any], ...] = (
    ("double", NAN, None),
    (["null", "float"], INFINITE, None),
    (["null", "float"], None, None),
    (["null", "double", "string"], NAN, None),
    ({"type": "array", "items": "double"}, [1.5, NAN], [1.5, None]),
    ({"type": "map", "values": "bytes"}, {"a": b"x"}, {"a": "x"}),
    ({"type": "map", "values": "long"}, {"a": 1}, {"a": 1}),
    ({"type": "fixed", "name": "Two", "size": 2}, b"ab", "ab"),
    ({"type": "enum", "name": "Colour", "symbols": ["RED"]}, "RED", "RED"),
    ({"type": "int", "logicalType": "date"}, DAY, "2026-11-30"),
    ({"type": "long", "logicalType": "timestamp-millis"}, AT, AT_MS),
    ({"type": "long", "logicalType": "timestamp-micros"}, AT, AT_MS),
    (["null", {"type": "long", "logicalType": "local-timestamp-millis"}], AT_MS, AT_MS),
    (["null", "string", {"type": "long", "logicalType": "timestamp-micros"}], AT, AT_MS),
    ({"type": "array", "items": {"type": "string", "logicalType": "uuid"}}, [], []),
    (NODE, {"weight": 1.0, "next": {"weight": NAN, "next": {"weight": INFINITE, "next": None}}}, None),
)


@pytest.mark.parametrize(("schema", "value", "expected"), AVRO_CASES)
def test_avro_of_each_type_becomes_one_of_jsons_types(schema: Any, value: Any, expected: Any) -> None:
    if schema is NODE:
        expected = {"weight": 1.0, "next": {"weight": None, "next": {"weight": None, "next": None}}}
    assert read_avro({"type": "record", "name": "R", "fields": [{"name": "a", "type": schema}]}, {"a": value}) == {
        "a": expected
    }


def test_a_type_that_is_referred_to_by_its_name_is_converted_as_where_it_is_defined() -> None:
    # given
    fields = [{"name": "a", "type": DECIMAL}, {"name": "b", "type": ["null", "Cents"]}, {"name": "n", "type": NODE}]
    schema = {"type": "record", "name": "R", "namespace": "acme", "fields": [*fields, {"name": "m", "type": "Node"}]}
    node = {"weight": NAN, "next": None}
    # when
    document = read_avro(schema, {"a": Decimal("1.50"), "b": Decimal("2.25"), "n": node, "m": node})
    # then
    plain = {"weight": None, "next": None}
    assert document == {"a": "1.50", "b": "2.25", "n": plain, "m": plain}


def test_a_document_without_a_schema_is_converted_by_the_types_of_its_values() -> None:
    assert to_plain({"a": [b"x", 1.5, NAN], "b": AT, "c": None}) == {"a": ["x", 1.5, None], "b": AT_MS, "c": None}


def read_avro(schema: Any, value: Any) -> Any:
    out = io.BytesIO()
    fastavro.schemaless_writer(out, fastavro.parse_schema(schema), value)
    return open_avro(json.dumps(schema))(b"\0\0\0\0\1" + out.getvalue(), "acme")


def test_protobuf_of_each_type_becomes_one_of_jsons_types() -> None:
    # given a type that contains itself, with names that are keywords
    file = descriptor_pb2.FileDescriptorProto(name="all.proto", package="acme", syntax="proto3")
    file.enum_type.add(name="Colour").value.add(name="RED", number=0)
    message = file.message_type.add(name="Node")
    entry = message.nested_type.add(name="PricesEntry")
    entry.options.map_entry = True
    entry.field.add(name="key", number=1, type=5, label=1)
    entry.field.add(name="value", number=2, type=1, label=1)
    fields: tuple[tuple[str, int, int, str], ...] = (
        ("from", 9, 1, ""),
        ("data", 12, 1, ""),
        ("weights", 2, 3, ""),
        ("colour", 14, 1, ".acme.Colour"),
        ("next", 11, 1, ".acme.Node"),
        ("prices", 11, 3, ".acme.Node.PricesEntry"),
        ("rate", 1, 1, ""),
    )
    for number, (name, kind, label, type_name) in enumerate(fields, 1):
        message.field.add(name=name, number=number, type=kind, label=label, type_name=type_name or None)
    message.oneof_decl.add(name="_note")
    message.field.add(name="note", number=9, type=9, label=1, proto3_optional=True, oneof_index=0)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    node: Any = message_factory.GetMessageClass(pool.FindMessageTypeByName("acme.Node"))
    # when
    value = node(data=b"x", weights=[1.5, NAN], colour=7, next=node(note="", rate=INFINITE), prices={3: NAN, 4: 2.5})
    document = MessageCompiler().compile(node.DESCRIPTOR)(value)
    # then
    empty: dict[str, Any] = {
        "from": "",
        "data": "",
        "weights": [],
        "colour": "RED",
        "next": None,
        "prices": {},
        "rate": None,
    }
    assert document == {
        "from": "",
        "data": "x",
        "weights": [1.5, None],
        "colour": 7,
        "next": {**empty, "note": ""},
        "prices": {"3": None, "4": 2.5},
        "rate": 0.0,
        "note": None,
    }
