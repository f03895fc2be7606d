"""A document of a shop's file as an event of ours: the one place through which all documents of a history go."""

from collections import Counter
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, Final

import msgspec

from contract.errors import BadEvent
from contract.events.model import AHEAD_MS_MAX, Order, Product, clamp
from contract.events.reading import make_readers
from contract.history.format import KIND_ORDER, HistoricEvent, decode_line
from contract.mapping.topic_map import TopicMap
from contract.settings.intake import IntakeSettings
from contract.tasks import Task
from training.history.documents import Document, UnclearRow
from training.history.inputs import InputFile

RANKS: Final = {kind: rank for rank, kind in enumerate(KIND_ORDER)}
NO_KAFKA_TIME: Final = -1
DEFAULTS: Final = IntakeSettings()


class DocumentDecoder:
    """Decodes documents as workers decode records: by the same readers, and by `maps` (by name).

    `now_ms`: later events are refused. `ignored`: the optional values that could not be read, by kind and field.
    `doubtful`: those that look like another unit than declared, or have no rate; by kind, field and unit. Without any
    rates these are all amounts in another currency than the first of their kind.
    """

    def __init__(
        self,
        *,
        now_ms: int,
        intake: IntakeSettings = DEFAULTS,
        tasks: Iterable[Task] = (),
        maps: Mapping[str, TopicMap] = MappingProxyType({}),
    ) -> None:
        self._now_ms, self._maps = now_ms, maps
        self.ignored, self.doubtful = Counter[str](), Counter[str]()
        self._has_rates, self._currencies = bool(intake.rates), dict[str, str]()
        self._readers = make_readers(intake, tasks, on_ignored=self._count_ignored, on_doubtful=self._count_doubtful)

    def decode(self, file: InputFile, document: Document) -> HistoricEvent:
        """The event; raises `BadEvent`, or `Skipped` for a document of a type that its map does not read."""
        if isinstance(document, UnclearRow):
            detail = f"A row should have at most {document.names} cells, one for each name. Found {document.cells}."
            raise BadEvent("wrong_type", detail)
        kind, body = self._find_kind(file, document)
        if kind not in RANKS:
            raise BadEvent("wrong_type", f"The kind should be among {', '.join(KIND_ORDER)}. Found {kind!r}.")
        reader = self._readers[kind]
        event, _ = clamp(reader.read(body) if isinstance(body, bytes) else reader.read_document(body), NO_KAFKA_TIME)
        if event.ts_ms > self._now_ms + AHEAD_MS_MAX:
            raise BadEvent("bad_time", f"A historic event should not lie in the future. Found ts_ms = {event.ts_ms}.")
        if isinstance(event, Order | Product) and not self._has_rates:
            self._compare_currency(kind, event.currency)
        return HistoricEvent(kind, event)

    def _compare_currency(self, kind: str, currency: str) -> None:
        """Count an amount in another currency than the first of its kind: sums in profiles mix them."""
        if self._currencies.setdefault(kind, currency) != currency:
            self._count_doubtful(kind, "currency", "no_rate")

    def _count_ignored(self, kind: str, field: str) -> None:
        self.ignored[f"{kind}.{field}"] += 1

    def _count_doubtful(self, kind: str, field: str, unit: str) -> None:
        self.doubtful[f"{kind}.{field} {unit}"] += 1

    def _find_kind(self, file: InputFile, document: bytes | dict[str, Any]) -> tuple[str, bytes | dict[str, Any]]:
        """The kind of a document, and the document in our form."""
        if file.map:
            return self._maps[file.map].read(document)
        return (file.kind, document) if file.kind else split_line(document)


def split_line(document: object) -> tuple[str, bytes]:
    """The kind and the event of a line {"kind": ..., "event": ...}."""
    try:
        line = decode_line(document if isinstance(document, bytes) else b"")
    except UnicodeDecodeError as error:
        raise BadEvent("not_utf8", f"A line should be UTF-8. Found: {error.reason}.") from error
    except msgspec.MsgspecError as error:
        raise BadEvent("not_json", f'A line should be {{"kind": ..., "event": ...}}. Found: {error}') from error
    return line.kind, bytes(line.event)
