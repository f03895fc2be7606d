"""Protobuf without generated classes: the classes of messages are made from the descriptors that a registry keeps."""

import base64
from typing import Any

from confluent_kafka.schema_registry import prefix_schema_id_deserializer
from confluent_kafka.schema_registry.protobuf import ProtobufDeserializer
from confluent_kafka.schema_registry.serde import SchemaId
from google.protobuf import descriptor_pool
from google.protobuf.descriptor import Descriptor
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.json_format import MessageToDict
from google.protobuf.message_factory import GetMessageClass

SERIALIZED = "serialized"  # the form of a schema that is a descriptor instead of its text


class ProtobufReader:
    """Reads messages of one schema, which may hold several types of them."""

    def __init__(self, client: Any, schema_id: int) -> None:
        schema = client.get_schema(schema_id, None, SERIALIZED)
        pool = DescriptorPool()
        self._file = add_file(pool, client, f"schema-{schema_id}.proto", schema)
        self._pool = pool
        self._deserializers: dict[tuple[int, ...], Any] = {}

    def __call__(self, data: bytes, ctx: Any) -> dict[str, Any]:
        schema_id = SchemaId("PROTOBUF")
        prefix_schema_id_deserializer(data, ctx, schema_id)
        indexes = tuple(schema_id.message_indexes or (0,))
        deserializer = self._deserializers.get(indexes)
        if deserializer is None:
            message_class = GetMessageClass(self._find_message(indexes))
            deserializer = self._deserializers[indexes] = ProtobufDeserializer(message_class)
        message = deserializer(data, None)
        document: dict[str, Any] = MessageToDict(
            message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
        )
        return document

    def _find_message(self, indexes: tuple[int, ...]) -> Descriptor:
        """The type of message at these places, from the file inwards."""
        file = self._pool.FindFileByName(self._file)
        descriptor: Descriptor = list(file.message_types_by_name.values())[indexes[0]]
        for index in indexes[1:]:
            descriptor = descriptor.nested_types[index]
        return descriptor


def add_file(pool: DescriptorPool, client: Any, name: str, schema: Any) -> str:
    """Add a schema's file, and those that it imports, to the pool; returns its name there."""
    file = FileDescriptorProto.FromString(base64.b64decode(schema.schema_str))
    file.name = name
    references = {reference.name: reference for reference in schema.references or ()}
    for imported in file.dependency:
        if has_file(pool, imported):
            continue
        if reference := references.get(imported):
            registered = client.get_version(reference.subject, reference.version, False, SERIALIZED)
            add_file(pool, client, imported, registered.schema)
        else:
            add_known(pool, imported)
    pool.Add(file)
    return name


def add_known(pool: DescriptorPool, name: str) -> None:
    """Add a file that comes with Protobuf, such as google/protobuf/timestamp.proto."""
    file = FileDescriptorProto()
    descriptor_pool.Default().FindFileByName(name).CopyToProto(file)
    for imported in file.dependency:
        if not has_file(pool, imported):
            add_known(pool, imported)
    pool.Add(file)


def has_file(pool: DescriptorPool, name: str) -> bool:
    try:
        pool.FindFileByName(name)
    except KeyError:
        return False
    return True
