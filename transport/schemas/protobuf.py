"""Protobuf without generated classes: the classes of messages are made from the descriptors that a registry keeps."""

import base64
import math
from collections.abc import Callable
from typing import Any, Final

from confluent_kafka.schema_registry import prefix_schema_id_deserializer
from confluent_kafka.schema_registry.protobuf import ProtobufDeserializer
from confluent_kafka.schema_registry.serde import SchemaId
from confluent_kafka.serialization import MessageField, SerializationContext
from google.protobuf import descriptor_pool
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.json_format import MessageToDict
from google.protobuf.message_factory import GetMessageClass

SERIALIZED: Final = "serialized"  # the form of a schema that is a descriptor instead of its text
KNOWN: Final = "google.protobuf."  # Timestamp, wrappers and the like, which have forms of their own in JSON
NO_CONTEXT: Final = SerializationContext("", MessageField.VALUE)
FRACTIONS: Final = (FieldDescriptor.TYPE_FLOAT, FieldDescriptor.TYPE_DOUBLE)
Convert = Callable[[Any], Any]


class ProtobufReader:
    """Reads messages of one schema, which may hold several types of them."""

    def __init__(self, client: Any, schema_id: int) -> None:
        self._schema = client.get_schema(schema_id, None, SERIALIZED)
        self._pool = DescriptorPool()
        self._file = add_file(self._pool, client, f"schema-{schema_id}.proto", self._schema)
        self._client = client
        self._readers: dict[tuple[int, ...], Callable[[bytes, bytes], Any]] = {}

    def read(self, value: bytes, topic: str) -> Any:
        """The document of one message: fields by their names in the schema, also those that have their default."""
        schema_id = SchemaId("PROTOBUF")
        payload = prefix_schema_id_deserializer(value, NO_CONTEXT, schema_id)
        indexes = tuple(schema_id.message_indexes or (0,))
        read = self._readers.get(indexes)
        if read is None:
            read = self._readers[indexes] = self._open_reader(indexes)
        return read(value, payload.read())

    def _open_reader(self, indexes: tuple[int, ...]) -> Callable[[bytes, bytes], Any]:
        """The function from a framed value and its message to a document; only rules need the former."""
        descriptor = self._find_message(indexes)
        message_class, convert = GetMessageClass(descriptor), compile_message(descriptor)
        if not self._schema.rule_set:
            return lambda value, payload: convert(message_class.FromString(payload))
        deserializer: Any = ProtobufDeserializer(
            message_class, {"use.deprecated.format": False}, schema_registry_client=self._client
        )
        return lambda value, payload: convert(deserializer(value, NO_CONTEXT))

    def _find_message(self, indexes: tuple[int, ...]) -> Descriptor:
        """The type of message at these places, from the file inwards."""
        file = self._pool.FindFileByName(self._file)
        descriptor: Descriptor = list(file.message_types_by_name.values())[indexes[0]]
        for index in indexes[1:]:
            descriptor = descriptor.nested_types[index]
        return descriptor


def compile_message(descriptor: Descriptor) -> Convert:
    """The function from a message to a document; protobuf's own, JSON by way of text, takes several times as long."""
    if descriptor.full_name.startswith(KNOWN):
        return lambda message: MessageToDict(message, preserving_proto_field_name=True)
    simple = [field.name for field in descriptor.fields if is_simple(field)]
    others = [(field.name, compile_field(field)) for field in descriptor.fields if not is_simple(field)]

    def convert(message: Any) -> dict[str, Any]:
        document = {name: getattr(message, name) for name in simple}
        for name, read in others:
            document[name] = read(message)
        return document

    return convert


def is_simple(field: FieldDescriptor) -> bool:
    """Whether a value of a field is part of a document as it is."""
    has_other_form = field.message_type or field.enum_type or field.type in (FieldDescriptor.TYPE_BYTES, *FRACTIONS)
    return not (has_other_form or field.is_repeated or field.has_presence)


def compile_field(field: FieldDescriptor) -> Convert:
    """The function from a message to the value of one of its fields; None where a field with presence has none."""
    name, convert = field.name, compile_value(field)
    if field.message_type and field.message_type.GetOptions().map_entry:
        convert_value = compile_value(field.message_type.fields_by_name["value"])
        return lambda message: {str(key): convert_value(value) for key, value in getattr(message, name).items()}
    if field.is_repeated:
        return lambda message: [convert(value) for value in getattr(message, name)]
    if field.has_presence:
        return lambda message: convert(getattr(message, name)) if message.HasField(name) else None
    return lambda message: convert(getattr(message, name))


def compile_value(field: FieldDescriptor) -> Convert:
    if field.message_type:
        descriptor, compiled = field.message_type, list[Convert]()

        def convert_message(message: Any) -> Any:
            if not compiled:  # on demand: a type of message may contain itself
                compiled.append(compile_message(descriptor))
            return compiled[0](message)

        return convert_message
    if field.enum_type:
        names = {value.number: value.name for value in field.enum_type.values}
        return lambda number: names.get(number, number)
    if field.type == FieldDescriptor.TYPE_BYTES:
        return lambda value: value.decode(errors="replace")
    if field.type in FRACTIONS:
        return lambda value: value if math.isfinite(value) else None
    return lambda value: value


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
