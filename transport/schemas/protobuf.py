"""Protobuf without generated classes: the classes of messages are made from the descriptors that a registry keeps."""

import base64
import math
from collections.abc import Callable
from keyword import iskeyword
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

from contract.mapping.envelopes import FRAMING_BYTES

SERIALIZED: Final = "serialized"  # the form of a schema that is a descriptor instead of its text
KNOWN: Final = "google.protobuf."  # Timestamp, wrappers and the like, which have forms of their own in JSON
FIRST_MESSAGE: Final = b"\0"  # how the indexes of a file's first message are written
FIRST: Final[tuple[int, ...]] = (0,)
NO_CONTEXT: Final = SerializationContext("", MessageField.VALUE)
FRACTIONS: Final = (FieldDescriptor.TYPE_FLOAT, FieldDescriptor.TYPE_DOUBLE)
Convert = Callable[[Any], Any]


class ProtobufReader:
    """Reads messages of one schema, which may hold several types of them."""

    def __init__(self, client: Any, schema_id: int) -> None:
        self._schema = client.get_schema(schema_id, None, SERIALIZED)
        self._pool = DescriptorPool()
        self._file = add_file(self._pool, client, f"schema-{schema_id}.proto", self._schema)
        self._client, self._compiler = client, MessageCompiler()
        self._readers: dict[tuple[int, ...], Callable[[bytes, bytes], Any]] = {}

    def read(self, value: bytes, topic: str) -> Any:
        """The document of one message: fields by their names in the schema, also those that have their default."""
        if value.startswith(FIRST_MESSAGE, FRAMING_BYTES):
            indexes, payload = FIRST, value[FRAMING_BYTES + len(FIRST_MESSAGE) :]
        else:
            schema_id = SchemaId("PROTOBUF")
            payload = prefix_schema_id_deserializer(value, NO_CONTEXT, schema_id).read()
            indexes = tuple(schema_id.message_indexes or FIRST)
        read = self._readers.get(indexes)
        if read is None:
            read = self._readers[indexes] = self._open_reader(indexes)
        return read(value, payload)

    def _open_reader(self, indexes: tuple[int, ...]) -> Callable[[bytes, bytes], Any]:
        """The function from a framed value and its message to a document; only rules need the former."""
        descriptor = self._find_message(indexes)
        message_class, convert = GetMessageClass(descriptor), self._compiler.compile(descriptor)
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


class MessageCompiler:
    """Compiles the functions from messages to documents, as Python text: one for each type, which call each other.

    Protobuf's own conversion, to JSON by way of text, takes several times as long; a loop over fields twice.
    """

    def __init__(self) -> None:
        self._functions: dict[str, str] = {}  # name of the type -> of its function
        self._names: dict[str, Any] = {"isfinite": math.isfinite, "read_known": read_known}

    def compile(self, descriptor: Descriptor) -> Convert:
        function: Convert = self._names[self._find(descriptor)]
        return function

    def _find(self, descriptor: Descriptor) -> str:
        """The name of the function for a type."""
        if descriptor.full_name.startswith(KNOWN):
            return "read_known"
        if descriptor.full_name not in self._functions:
            name = self._functions[descriptor.full_name] = f"read_{len(self._functions)}"  # it may contain itself
            fields = ", ".join(f"{field.name!r}: {self._write_field(field)}" for field in descriptor.fields)
            exec(f"def {name}(message):\n    return {{{fields}}}", self._names)
        return self._functions[descriptor.full_name]

    def _write_field(self, field: FieldDescriptor) -> str:
        """The expression for a field of a message; None where a field with presence has none."""
        name = field.name
        value = f"getattr(message, {name!r})" if iskeyword(name) else f"message.{name}"
        if field.message_type and field.message_type.GetOptions().map_entry:
            part = self._write_value(field.message_type.fields_by_name["value"], "part")
            return f"{{str(key): {part} for key, part in {value}.items()}}"
        if field.is_repeated:
            return f"[{self._write_value(field, 'part')} for part in {value}]"
        if field.has_presence:
            return f"{self._write_value(field, value)} if message.HasField({name!r}) else None"
        return self._write_value(field, value)

    def _write_value(self, field: FieldDescriptor, value: str) -> str:
        if field.message_type:
            return f"{self._find(field.message_type)}({value})"
        if field.enum_type:
            names = f"names_{len(self._names)}"
            self._names[names] = {value.number: value.name for value in field.enum_type.values}
            return f"{names}.get({value}, {value})"
        if field.type == FieldDescriptor.TYPE_BYTES:
            return f"{value}.decode(errors='replace')"
        if field.type in FRACTIONS:
            return f"({value} if isfinite({value}) else None)"  # JSON has no other numbers
        return value


def read_known(message: Any) -> Any:
    return MessageToDict(message, preserving_proto_field_name=True)


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
