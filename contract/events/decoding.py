"""The plain document of a record in JSON, or of a text of it in JSON; `BadEvent` says why there is none."""

from typing import Any, NoReturn

import msgspec

from contract.errors import BadEvent
from contract.events.bounds import check_depth
from contract.events.mending import load, mend
from contract.events.violations import classify_violation


def decode_document(value: bytes) -> object:
    """The plain document of a record, also of one that was encoded twice; raises `BadEvent`.

    A text that is not UTF-8 is a `DamagedText`, a number that no float can hold is infinity, and NaN is itself: whether
    that matters depends on their fields.
    """
    document = decode_json(value)
    return decode_json(document.encode()) if isinstance(document, str) and document.lstrip()[:1] == "{" else document


def decode_json(value: bytes) -> object:
    check_depth(value)
    try:
        if not value.isascii():
            value.decode()
        return msgspec.json.decode(value)
    except msgspec.ValidationError:  # of a number: what follows it is not decoded yet
        return decode_mended(value)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return decode_mended(value, error)


def decode_mended(value: bytes, cause: Exception | None = None) -> object:
    """The document by a slower decoder; raises `BadEvent`, for `cause` where the value is no document at all."""
    mended = mend(value)
    check_depth(mended)
    try:
        return load(mended)
    except RecursionError as error:
        refuse(error)
    except ValueError as error:
        refuse(cause or error)


def open_text(value: Any) -> Any:
    """The list or object in a text, as columns of databases hold them; any other value as it is, and one without."""
    if not isinstance(value, str) or value.lstrip()[:1] not in ("[", "{"):
        return value
    try:
        return decode_json(value.encode())
    except BadEvent:
        return value


def open_entries(value: Any) -> Any:
    """A list of objects, also in a text; one object, as converters from XML write a list of one, as such a list."""
    opened = open_text(value)
    return [opened] if isinstance(opened, dict) else opened


def refuse(error: Exception) -> NoReturn:
    """Raise the `BadEvent` for an error of a decoder."""
    if isinstance(error, RecursionError):
        detail = "A record should be nested a few levels deep. Found it too deep to read."
        raise BadEvent("too_deep", detail) from error
    if isinstance(error, UnicodeDecodeError):
        detail = f"A record should be UTF-8. Found {error.reason} at byte {error.start}."
        raise BadEvent("not_utf8", detail) from error
    if isinstance(error, msgspec.ValidationError):
        raise BadEvent(classify_violation(str(error)), str(error)) from error
    raise BadEvent("not_json", str(error)) from error
