"""What a record holds, and envelopes that are opened before its fields are looked up.

CloudEvents in binary mode has its attributes in headers, in structured mode in the document: a map sees the attributes
by name (`type`, `id`, `time`, `subject`) and the event under `data` in both modes. Debezium's document may be wrapped
into `schema` and `payload`; a map sees `before`, `after`, `op` and `source`.
"""

import base64
import binascii
from collections.abc import Callable, Mapping
from typing import Any, Final

from contract.errors import BadEvent
from contract.events.decoding import decode_document
from contract.events.model import RECORD_BYTES_MAX

FRAMING: Final = b"\0"  # of a schema registry: this byte, then the id of the schema in four
FRAMING_BYTES: Final = 5
DATA_BASE64: Final = "data_base64"
CE_PREFIX: Final = "ce_"  # what Kafka's binding puts before the name of an attribute
Opener = Callable[[Any, Mapping[str, bytes]], Any]


class Skipped(Exception):
    """A record that the map leaves out by its declaration; the message says why."""


def parse(value: bytes) -> Any:
    """The document of a record that is JSON; raises `BadEvent`."""
    check_record(value)
    return decode_document(value)


def check_record(value: bytes) -> None:
    """Raise `BadEvent` for a record that is empty, too large, or framed."""
    if not value:
        raise BadEvent("empty", "A record should hold one JSON document. Found no bytes.")
    if len(value) > RECORD_BYTES_MAX:
        raise BadEvent("too_large", f"A record should hold at most {RECORD_BYTES_MAX} bytes. Found {len(value)}.")
    if is_framed(value):
        raise BadEvent("not_json", describe_framing(value))


def is_framed(value: bytes) -> bool:
    """Whether a record begins as a schema registry's serializers write it; no JSON document does."""
    return value.startswith(FRAMING) and len(value) >= FRAMING_BYTES


def describe_framing(value: bytes) -> str:
    schema_id = int.from_bytes(value[1:FRAMING_BYTES], "big")
    return (
        f"A record should be JSON. Found that it begins with the framing of a schema registry (schema {schema_id}): "
        "set registry.url."
    )


def open_cloudevent(document: Any, headers: Mapping[str, bytes]) -> Any:
    """The attributes of a CloudEvent with its `data`; raises `BadEvent`."""
    if "ce_specversion" in headers:
        attributes = {
            name.removeprefix(CE_PREFIX): value.decode(errors="replace")
            for name, value in headers.items()
            if name.startswith(CE_PREFIX) and value is not None
        }
        return {**attributes, "data": document}
    if not isinstance(document, dict) or "specversion" not in document:
        raise BadEvent("missing_field", "A CloudEvent should have `specversion`, or the header `ce_specversion`.")
    if DATA_BASE64 in document:
        try:
            return {**document, "data": parse(base64.b64decode(document[DATA_BASE64], validate=True))}
        except (TypeError, ValueError, binascii.Error) as error:
            raise BadEvent(
                "wrong_type", "A CloudEvent's `data_base64` should be base64. Found something else."
            ) from error
    return document


def open_change(document: Any, headers: Mapping[str, bytes]) -> Any:
    """Debezium's envelope: of a deletion, `after` is the row before it; raises `BadEvent`."""
    if isinstance(document, dict) and "payload" in document and "op" not in document:
        document = document["payload"]
        if document is None:
            raise Skipped("It is the tombstone after a deletion.")
    if not isinstance(document, dict) or not isinstance(document.get("op"), str):
        raise BadEvent("missing_field", "A change should have the operation `op`. Found none.")
    return {**document, "after": document.get("before")} if document["op"] == "d" else document
