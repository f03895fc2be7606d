"""A document of a shop's file as an event of ours: the one place through which all documents of a history go."""

from typing import Any, Final

import msgspec

from contract.errors import BadEvent
from contract.events import AHEAD_MS_MAX, KINDS, Event, clamp, classify_violation, decode
from contract.history.format import KIND_ORDER, HistoricEvent, JsonLine

read_line: Final = msgspec.json.Decoder(JsonLine).decode
RANKS: Final = {kind: rank for rank, kind in enumerate(KIND_ORDER)}
NO_KAFKA_TIME: Final = -1


def decode_document(kind: str | None, document: bytes | dict[str, Any], now_ms: int) -> HistoricEvent:
    """The event; raises `BadEvent`. Without a `kind` the document is a line {"kind": ..., "event": ...}."""
    if kind is None:
        kind, document = split_line(document)
    if kind not in RANKS:
        raise BadEvent("wrong_type", f"The kind should be among {', '.join(KIND_ORDER)}. Found {kind!r}.")
    event, _ = clamp(decode(kind, document) if isinstance(document, bytes) else convert(kind, document), NO_KAFKA_TIME)
    if event.ts_ms > now_ms + AHEAD_MS_MAX:
        raise BadEvent("bad_time", f"A historic event should not lie in the future. Found ts_ms = {event.ts_ms}.")
    return HistoricEvent(kind, event)


def split_line(document: bytes | dict[str, Any]) -> tuple[str, bytes]:
    try:
        line = read_line(document if isinstance(document, bytes) else b"")
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise BadEvent("not_json", f'A line should be {{"kind": ..., "event": ...}}. Found: {error}') from error
    return line.kind, bytes(line.event)


def convert(kind: str, document: dict[str, Any]) -> Event:
    """The event that a row holds; text of a CSV is read as the field's type."""
    try:
        return msgspec.convert(document, KINDS[kind], strict=False)
    except msgspec.ValidationError as error:
        raise BadEvent(classify_violation(str(error)), str(error)) from error
    except RecursionError as error:
        raise BadEvent("too_deep", "A row should be nested a few levels deep. Found it too deep to read.") from error
