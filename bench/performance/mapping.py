"""`python -m bench map`: time of a mapped nested order, of Avro, of Protobuf and of our own JSON.

One record of each form holds the same order of three lines; each is read to an event, as a worker does. The forms take
turns, so that noise affects all. Avro and Protobuf need the packages of the group `schemas`; without, they are null.
"""

import argparse
import gc
import importlib.util
import json
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec

from bench.results.report import print_missed, print_progress, print_result
from contract.mapping.event_topics import EventTopics
from contract.settings.servers import RegistrySettings, TopicSettings
from transport.record_reader import RecordReader
from transport.records import Record, TopicPartition

RATIO_MAX: Final = 2.0  # the aim
OWN: Final[dict[str, Any]] = {
    "event_id": "5001",
    "ts_ms": 1_796_008_800_000,
    "user_id": "u-77",
    "lines": [{"item_id": f"SKU-{n}", "quantity": 1, "unit_price": 19.9, "seller_id": "s-1"} for n in range(3)],
    "amount": 59.7,
    "currency": "EUR",
    "payment_method": "card",
    "card_id": "c-1",
    "device_id": "d-1",
    "ip": "203.0.113.9",
    "shipping_country": "DE",
    "billing_country": "DE",
    "platform": "web",
}
NESTED: Final[dict[str, Any]] = {
    "id": "5001",
    "created_at": "2026-11-30T04:20:00+01:00",
    "customer": {"id": "u-77", "email": "ann@example.com", "created_at": "2024-01-30T04:20:00+01:00"},
    "line_items": [
        {"sku": f"SKU-{n}", "quantity": 1, "price": 19.9, "vendor": "s-1", "title": "A thing"} for n in range(3)
    ],
    "total_price": 59.7,
    "currency": "EUR",
    "gateway": "card",
    "payment": {"card": {"fingerprint": "c-1"}},
    "client": {"device": "d-1", "ip": "203.0.113.9"},
    "shipping_address": {"country_code": "DE", "city": "Berlin", "zip": "10115"},
    "billing_address": {"country_code": "DE", "city": "Berlin", "zip": "10115"},
    "source_name": "web",
}
MAP: Final[dict[str, Any]] = {
    "topics": ["acme.json", "acme.avro", "acme.protobuf"],
    "kind": "orders",
    "fields": {
        "event_id": "id",
        "ts_ms": {"path": "created_at", "unit": "iso"},
        "user_id": ["customer.id", "customer.email"],
        "lines": {
            "item_id": "line_items[].sku",
            "quantity": "line_items[].quantity",
            "unit_price": "line_items[].price",
            "seller_id": "line_items[].vendor",
        },
        "amount": "total_price",
        "currency": "currency",
        "payment_method": "gateway",
        "card_id": "payment.card.fingerprint",
        "device_id": "client.device",
        "ip": "client.ip",
        "shipping_country": "shipping_address.country_code",
        "billing_country": "billing_address.country_code",
        "platform": "source_name",
    },
}


class MapFigures(msgspec.Struct, frozen=True, kw_only=True):
    """Medians of the time of one record, in microseconds, and their ratios to our own JSON."""

    own_us: float
    mapped_us: float
    avro_us: float | None
    protobuf_us: float | None
    mapped_to_own: float
    avro_to_own: float | None

    @property
    def missed_aims(self) -> list[str]:
        ratios = {"a mapped order": self.mapped_to_own, "Avro": self.avro_to_own}
        return [
            f"{name} in {RATIO_MAX:g} times our own" for name, ratio in ratios.items() if ratio and ratio > RATIO_MAX
        ]


def measure(records: int, repetitions: int) -> MapFigures:
    reads = open_reads()
    times_us: dict[str, list[float]] = {name: [] for name in reads}
    gc.collect()
    gc.disable()  # as a worker does while it reads a batch
    try:
        for _ in range(repetitions):
            for name, read in reads.items():
                times_us[name].append(time_read(read, records))
    finally:
        gc.enable()
    medians = {name: round(statistics.median(times), 3) for name, times in times_us.items()}
    own_us, avro_us = medians["own"], medians.get("avro")
    return MapFigures(
        own_us=own_us,
        mapped_us=medians["mapped"],
        avro_us=avro_us,
        protobuf_us=medians.get("protobuf"),
        mapped_to_own=round(medians["mapped"] / own_us, 3),
        avro_to_own=round(avro_us / own_us, 3) if avro_us else None,
    )


def time_read(read: Callable[[], object], records: int) -> float:
    """Process time of one read, in microseconds."""
    began_ns = time.process_time_ns()
    for _ in range(records):
        read()
    return (time.process_time_ns() - began_ns) / records / 1_000


def open_reads() -> dict[str, Callable[[], object]]:
    """A function for each form, which reads the order in it."""
    topics = EventTopics(TopicSettings(), {"orders": MAP})
    plain = RecordReader(topics)
    values = {"own": ("shop.orders", json.dumps(OWN).encode()), "mapped": ("acme.json", json.dumps(NESTED).encode())}
    readers = dict.fromkeys(values, plain)
    if importlib.util.find_spec("fastavro") and importlib.util.find_spec("httpx2"):
        from transport.schemas.deserializer import Deserializer

        deserializer = Deserializer(RegistrySettings(url="mock://bench"))
        framed = RecordReader(topics, deserializer=deserializer)
        values["avro"] = ("acme.avro", serialize_avro(deserializer.client))
        values["protobuf"] = ("acme.protobuf", serialize_protobuf(deserializer.client))
        readers |= {"avro": framed, "protobuf": framed}
    else:
        print_progress("The packages of the group `schemas` are not installed: Avro and Protobuf are left out.")
    reads: dict[str, Callable[[], object]] = {}
    for name, (topic, value) in values.items():
        record, reader = Record(TopicPartition(topic, 0), 0, None, value, (), -1), readers[name]
        reader.read(record)  # compiles and fetches what is needed once
        reads[name] = lambda reader=reader, record=record: reader.read(record)  # type: ignore[misc]
    return reads


def serialize_avro(client: Any) -> bytes:
    from confluent_kafka.schema_registry.avro import AvroSerializer
    from confluent_kafka.serialization import MessageField, SerializationContext

    serializer: Any = AvroSerializer(client, json.dumps(to_avro("Order", NESTED)))
    value: bytes = serializer(NESTED, SerializationContext("acme.avro", MessageField.VALUE))
    return value


def to_avro(name: str, value: Any) -> Any:
    """The Avro schema of an example."""
    if isinstance(value, dict):
        fields = [{"name": field, "type": to_avro(f"{name}_{field}", part)} for field, part in value.items()]
        return {"type": "record", "name": name, "fields": fields}
    if isinstance(value, list):
        return {"type": "array", "items": to_avro(name, value[0])}
    return {str: "string", int: "long", float: "double"}[type(value)]


def serialize_protobuf(client: Any) -> bytes:
    from confluent_kafka.schema_registry.protobuf import ProtobufSerializer
    from confluent_kafka.serialization import MessageField, SerializationContext
    from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory

    file = descriptor_pb2.FileDescriptorProto(name="order.proto", package="acme", syntax="proto3")
    add_message(file, "Order", NESTED)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    message = message_factory.GetMessageClass(pool.FindMessageTypeByName("acme.Order"))()
    json_format.ParseDict(NESTED, message)
    serializer: Any = ProtobufSerializer(type(message), client, {"use.deprecated.format": False})
    value: bytes = serializer(message, SerializationContext("acme.protobuf", MessageField.VALUE))
    return value


def add_message(file: Any, name: str, example: dict[str, Any]) -> None:
    """Add the message of an example to a file, and those of its parts."""
    message = file.message_type.add(name=name)
    for number, (field, value) in enumerate(example.items(), 1):
        label = 3 if isinstance(value, list) else 1
        part = value[0] if isinstance(value, list) else value
        if isinstance(part, dict):
            add_message(file, f"{name}_{field}", part)
            message.field.add(name=field, number=number, type=11, label=label, type_name=f".acme.{name}_{field}")
        else:
            message.field.add(name=field, number=number, type={str: 9, int: 3, float: 1}[type(part)], label=label)


def parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench map", description=__doc__)
    parser.add_argument("--records", type=int, default=5_000, help="records of a form in one repetition (5000)")
    parser.add_argument("--repetitions", type=int, default=15, help="repetitions of each form (15)")
    parser.add_argument("--json", action="store_true", help="print the figures as one line of JSON")
    return parser.parse_args(argv)


def main(argv: Sequence[str]) -> int:
    """0: the aims are met; 1: they are not."""
    arguments = parse(argv)
    figures = measure(arguments.records, arguments.repetitions)
    print_result(figures, as_json=arguments.json)
    return int(print_missed(figures.missed_aims))
