"""Avro by the functions that are made from schemas: the same documents and the same errors as by fastavro alone."""

import io
import json
import random
import re
from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("fastavro", reason="the packages of the group `schemas` are not installed")

import fastavro
from fastavro.utils import generate_many

from bench.guarantees.poison.corpus import make_corpus
from bench.guarantees.poison.framed import AVRO, GOOD_AVRO, splice
from transport.schemas import avro
from transport.schemas.avro import open_avro
from transport.schemas.avro_compiler import compile_avro

ADDRESS = re.compile("0x[0-9a-f]+")
FRAME = b"\0\0\0\0\1"
RECORDS, MUTATIONS = 15, 40  # of each schema, and of each of its records
LINE = {
    "type": "record",
    "name": "Line",
    "fields": [
        {"name": "sku", "type": "string"},
        {"name": "count", "type": "int"},
        {"name": "price", "type": ["null", "double", "string"]},
    ],
}
ORDER = {
    "type": "record",
    "name": "Order",
    "namespace": "acme",
    "fields": [
        {"name": "id", "type": ["null", "string"], "default": None},
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "lines", "type": {"type": "array", "items": LINE}},
        {"name": "first", "type": ["null", "Line"]},
        {"name": "prices", "type": {"type": "map", "values": {"type": "array", "items": "float"}}},
        {"name": "is_gift", "type": "boolean"},
        {"name": "colour", "type": {"type": "enum", "name": "Colour", "symbols": ["RED", "BLUE"]}},
        {"name": "note", "type": "bytes"},
        {"name": "last", "type": "Line"},
    ],
}
FLAT = {"type": "record", "name": "Flat", "fields": [{"name": "n", "type": "long"}, {"name": "s", "type": "string"}]}
SCHEMAS = (ORDER, FLAT, {"type": "map", "values": "boolean"}, "double", ["string", {"type": "array", "items": "int"}])


def leave_out(*names: str) -> dict[str, Any]:
    """The schema of the odd records without some fields."""
    return {**AVRO, "fields": [field for field in AVRO["fields"] if field["name"] not in names]}


def write(schema: Any, value: Any) -> bytes:
    out = io.BytesIO()
    fastavro.schemaless_writer(out, fastavro.parse_schema(schema), value)
    return FRAME + out.getvalue()


def mutate(data: bytes, rng: random.Random) -> bytes:
    """The data after their framing with a byte changed, left out or added, or cut."""
    place, byte = (
        rng.randrange(len(FRAME), len(data) + 1),
        rng.choice((0, 1, 2, 126, 127, 128, 255, rng.randrange(256))),
    )
    changed = rng.choice(
        (
            data[:place],
            data[:place] + bytes([byte]) + data[place + rng.randrange(2) :],
            data[:place] + data[place + 1 :],
        )
    )
    return changed + b"\0" * rng.choice((0, 0, 0, 40))


def find_outcome(read: Callable[[bytes, str], Any], data: bytes) -> str:
    """The document as text, so that `1` is not `True`; or the error, without addresses of objects."""
    try:
        return repr(read(data, "acme"))
    except Exception as error:
        return ADDRESS.sub("", repr(error))


def open_both(schema: Any, monkeypatch: pytest.MonkeyPatch) -> tuple[Callable[[bytes, str], Any], ...]:
    """The reader of a schema, and one that leaves all to fastavro."""
    read = open_avro(json.dumps(schema))
    with monkeypatch.context() as patch:
        patch.setattr(avro, "compile_avro", lambda schema: None)
        return read, open_avro(json.dumps(schema))


@pytest.mark.parametrize("schema", SCHEMAS)
def test_good_data_are_read_without_fastavro(schema: Any) -> None:
    read = compile_avro(fastavro.parse_schema(avro.leave_milliseconds(schema)))
    assert read
    for value in generate_many(schema, RECORDS):
        read(write(schema, value))


@pytest.mark.parametrize("schema", SCHEMAS)
def test_data_are_read_as_by_fastavro_however_they_are_changed(
    schema: Any, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    random.seed(seed)  # of what fastavro generates
    rng, (read, read_by_fastavro) = random.Random(seed), open_both(schema, monkeypatch)
    for value in generate_many(schema, RECORDS):
        data = write(schema, value)
        for changed in (data, *(mutate(data, rng) for _ in range(MUTATIONS))):
            assert find_outcome(read, changed) == find_outcome(read_by_fastavro, changed), changed


def test_odd_records_are_read_as_by_fastavro(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    # given the part of the schema that is compiled
    schema = leave_out("amount", "shipped_on", "card_id")
    good = GOOD_AVRO.replace(b"\x04\x07\xcf\0\x08", b"\0\x08").replace(b"card\0\0", b"card")
    read, read_by_fastavro = open_both(schema, monkeypatch)
    assert compile_avro(fastavro.parse_schema(avro.leave_milliseconds(schema)))
    assert read(FRAME + good, "acme")["payment_method"] == "card"
    # then
    for odd in list(make_corpus())[seed % 20 :: 20]:
        data = FRAME + splice(good, odd.value or b"")
        assert find_outcome(read, data) == find_outcome(read_by_fastavro, data), data


@pytest.mark.parametrize(
    "data",
    [
        b"\x04\x02a\x02b\0",  # a list in one block
        b"\x02\x02a\x02\x02b\0",  # in two
        b"\x03\x08\x02a\x02b\0",  # with its size in bytes, and a number that is negative
        b"\x84\x00\x02a\x02b\0",  # with a number that is longer than it has to be
        b"\x04\x02a\x02b\x80\x00",  # so, of the last block
        b"\x04\x02a\x81\x80\x00b\0",
        b"\x02\x80\x02" + b"x" * 128 + b"\0",  # a long text
        b"\x02\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01x\0",
        b"\x02\x01\0",
        b"\x02\x04\xc3\xa9\0",
        b"\x02\x02\xff\0",
    ],
)
def test_a_list_is_read_as_by_fastavro_however_it_is_written(data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    read, read_by_fastavro = open_both({"type": "array", "items": "string"}, monkeypatch)
    assert find_outcome(read, FRAME + data) == find_outcome(read_by_fastavro, FRAME + data)


def make_deep(levels: int) -> Any:
    return {"type": "array", "items": make_deep(levels - 1)} if levels else "int"


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "record", "name": "Node", "fields": [{"name": "next", "type": ["null", "Node"]}]},
        {"type": "record", "name": "Empty", "fields": []},
        {"type": "array", "items": "null"},
        {"type": "long", "logicalType": "timestamp-micros"},
        make_deep(30),
        {"type": "record", "name": "Wide", "fields": [{"name": f"f{n}", "type": "int"} for n in range(3_000)]},
    ],
)
def test_a_schema_without_a_function_is_left_to_fastavro(schema: Any) -> None:
    assert compile_avro(fastavro.parse_schema(schema)) is None
