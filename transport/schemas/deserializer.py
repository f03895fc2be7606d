"""Values in the framing of a schema registry (a zero byte, the id of the schema, the data) to plain documents.

The client of the registry and the deserializers are those of confluent-kafka, with its extras, which the dependency
group `schemas` installs. Only this package imports them.
"""

import re
from collections.abc import Callable
from typing import Any, Final

import msgspec

from contract.errors import BadConfig, BadEvent, Unavailable
from contract.events.bounds import check_depth
from contract.events.decoding import refuse
from contract.events.mending import mend
from contract.events.model import RECORD_BYTES_MAX
from contract.mapping.envelopes import FRAMING_BYTES, check_record, is_framed, parse
from contract.settings.servers import RegistrySettings

RETRIED_STATUS: Final = (401, 403, 407, 408, 429)  # also those of a wrong password, which says nothing of a record
TRANSPORT: Final = "TransportError"  # of the client's HTTP library, which is httpx2 or httpx
OBJECT: Final = re.compile(r"<[\w.]+ object at 0x[0-9a-f]+>")  # an address is another one each time
Read = Callable[[bytes, str], Any]


class Deserializer:
    """Reads framed values; asks the registry once for each schema. Raises `BadConfig` without the extras."""

    def __init__(self, settings: RegistrySettings) -> None:
        try:
            from confluent_kafka.schema_registry import SchemaRegistryClient
        except ImportError as error:
            raise BadConfig(
                [
                    "A schema registry should be read with the packages of `shopstream[schemas]` "
                    f"(pip install '.[schemas]' in a checkout). Found none: {error}."
                ]
            ) from error
        try:
            self.client: Any = SchemaRegistryClient.new_client({**settings.client, "url": settings.url})
        except (TypeError, ValueError) as error:
            text = f"`registry` should have an address as https://HOST:PORT and options that its client takes: {error}"
            raise BadConfig([f"{text.rstrip('.')}."]) from error
        self._url = settings.url
        self._readers: dict[int, Read] = {}

    def check(self) -> None:
        """Raise `Unavailable` unless the registry answers this user."""
        try:
            self.client.get_subjects()
        except Exception as error:  # of the registry, and of the HTTP client
            raise Unavailable(f"The schema registry {self._url} should answer. Found: {error!r}") from error

    def read(self, topic: str, value: bytes) -> object:
        """The document of a framed value. Raises `BadEvent`, or `Unavailable` where the registry does not answer."""
        if len(value) > RECORD_BYTES_MAX:
            raise BadEvent("too_large", f"A record should hold at most {RECORD_BYTES_MAX} bytes. Found {len(value)}.")
        if not is_framed(value):
            raise BadEvent("not_json", "A record of a schema registry should begin with its framing. Found none.")
        schema_id = int.from_bytes(value[1:FRAMING_BYTES], "big")
        try:
            read = self._readers.get(schema_id)
            if read is None:
                read = self._readers[schema_id] = open_reader(self.client, schema_id, self.client.get_schema(schema_id))
            return read(value, topic)
        except BadEvent:
            raise
        except Exception as error:  # the client and the deserializers raise errors of many libraries
            if is_passing(error):
                raise Unavailable(f"The schema registry {self._url} should answer. Found: {error!r}") from error
            error_text = OBJECT.sub("the data", f"{type(error).__name__}: {error}")
            text = f"A record should be data of schema {schema_id} of {self._url}. Found {error_text}"
            raise BadEvent("bad_schema", text) from error


def is_passing(error: BaseException | None) -> bool:
    """Whether an error, or one that led to it, says that the registry did not answer or refused the password."""
    while error is not None:
        status = getattr(error, "http_status_code", 0)
        is_of_network = isinstance(error, OSError) or any(base.__name__ == TRANSPORT for base in type(error).__mro__)
        if status >= 500 or status in RETRIED_STATUS or is_of_network:
            return True
        error = error.__cause__ or error.__context__
    return False


def open_reader(client: Any, schema_id: int, schema: Any) -> Read:
    """The function that reads the data of one schema: of bytes with their framing, and the topic.

    Avro without rules and references is read by fastavro, as confluent-kafka's deserializer does in the end, which
    takes four times as long.
    """
    if schema.schema_type == "PROTOBUF":
        from transport.schemas.protobuf import ProtobufReader

        return ProtobufReader(client, schema_id).read
    if schema.schema_type == "AVRO" and not schema.rule_set and not schema.references:
        from transport.schemas.avro import open_avro

        return open_avro(schema.schema_str)
    return open_deserializer(client, schema.schema_type)


def open_deserializer(client: Any, schema_type: str) -> Read:
    """confluent-kafka's own deserializer, which applies rules and resolves references."""
    from confluent_kafka.schema_registry.avro import AvroDeserializer
    from confluent_kafka.schema_registry.json_schema import JSONDeserializer
    from confluent_kafka.serialization import MessageField, SerializationContext

    from transport.schemas.avro import to_plain

    deserializer: Any
    if schema_type == "JSON":
        deserializer = JSONDeserializer(None, schema_registry_client=client)
    else:
        deserializer = AvroDeserializer(client)
    contexts: dict[str, Any] = {}

    def read(value: bytes, topic: str) -> Any:
        if schema_type == "JSON":
            value = value[:FRAMING_BYTES] + make_strict(value[FRAMING_BYTES:])
        context = contexts.get(topic)
        if context is None:
            context = contexts[topic] = SerializationContext(topic, MessageField.VALUE)
        return to_plain(deserializer(value, context))

    return read


def make_strict(payload: bytes) -> bytes:
    """A document that is UTF-8 and JSON, with whole characters; raises `BadEvent`.

    The deserializer takes more: other encodings, NaN, half surrogates, any depth.
    """
    mended = mend(payload)
    check_record(mended)
    check_depth(mended)
    try:
        mended.decode()
        msgspec.json.decode(mended)
    except msgspec.ValidationError:  # a number that no float can hold
        parse(mended)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        refuse(error)
    return mended
