"""From the document that a map made to an event: the one place where the two meet."""

from typing import Any

import msgspec

from contract.errors import BadEvent
from contract.events import KINDS, Event, classify_violation


def read_document(kind: str, document: object) -> Event:
    """The event of a document in our form; raises `BadEvent`."""
    try:
        return msgspec.convert(document, KINDS[kind], strict=False)
    except msgspec.ValidationError:
        pass  # an id may be a number, which few documents have
    try:
        return msgspec.convert(write_ids(document), KINDS[kind], strict=False)
    except msgspec.ValidationError as error:
        raise BadEvent(classify_violation(str(error)), str(error)) from error


def write_ids(value: Any) -> Any:
    """The document with whole numbers as text where an id is expected."""
    if not isinstance(value, dict):
        return value
    document = dict(value)
    for name, part in value.items():
        if name.endswith("_id") and type(part) is int:
            document[name] = str(part)
        elif name == "lines" and isinstance(part, list):
            document[name] = [write_ids(line) for line in part]
        elif name == "items" and isinstance(part, list):
            document[name] = [str(item) if type(item) is int else item for item in part]
    return document
