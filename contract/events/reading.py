"""Reading records: bytes become an event, or `BadEvent` says why not, whatever the bytes.

Most records have the form that docs/events.md names. They are decoded straight into their struct, and what a type
cannot say (placeholders, addresses, codes, times) is looked up. Any other record is decoded into a plain document that
`contract.events.document` reads field by field. Both give the same event for a record in that form.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Final, TypeAlias

import msgspec

from contract.errors import BadEvent
from contract.events.bounds import check_depth
from contract.events.decoding import decode_document, refuse
from contract.events.document import DocumentReader, MoneyConverter, OnDoubtful, OnIgnored
from contract.events.labels import LabelReader
from contract.events.model import KINDS, RECORD_BYTES_MAX, Event
from contract.events.plain_form import PlainForm
from contract.settings.intake import IntakeSettings
from contract.tasks import Task

DECODERS: Final = {kind: msgspec.json.Decoder(struct) for kind, struct in KINDS.items()}
DEFAULTS: Final = IntakeSettings()


def ignore(*_: str) -> None:
    """Count nothing."""


class EventReader:
    """Reads records of one kind.

    `tasks`: the declared tasks, by which labels are read. `on_ignored(kind, field)` is called for each value that is
    taken as absent, `on_doubtful(kind, field, found)` for each that is read although it looks like something else.
    `takes`: whether an event whose fields have their types is the one that `read_document` gives.
    """

    def __init__(
        self,
        kind: str,
        intake: IntakeSettings = DEFAULTS,
        *,
        tasks: Iterable[Task] = (),
        on_ignored: OnIgnored = ignore,
        on_doubtful: OnDoubtful = ignore,
    ) -> None:
        labels = LabelReader(tasks)
        self._decode, self._struct = DECODERS[kind].decode, KINDS[kind]
        self._document_reader = DocumentReader(kind, intake, labels, on_ignored, on_doubtful)
        self._is_plain = PlainForm(kind, intake, labels).has
        is_declared = intake.time_unit(kind) != "ms"
        self._is_typed = not is_declared and not MoneyConverter(kind, intake, ignore).is_needed
        self.takes: Callable[[Event], bool] = self._is_plain if self._is_typed else lambda event: False

    def read(self, value: bytes | None) -> Event:
        """The event of a record's value; raises `BadEvent`."""
        if not value:
            raise BadEvent("empty", "A record should hold one JSON document. Found no bytes.")
        if len(value) > RECORD_BYTES_MAX:
            raise BadEvent("too_large", f"A record should hold at most {RECORD_BYTES_MAX} bytes. Found {len(value)}.")
        try:
            if not value.isascii():
                value.decode()  # msgspec does not validate strings of fields that it skips
            check_depth(value)
            if self._is_typed:
                event = self._decode(value)
                if self._is_plain(event):
                    return event
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            pass  # of another form, or none: the decoder of documents says which
        return self._document_reader.read(decode_document(value))

    def read_document(self, document: object) -> Event:
        """The event of a document that is already decoded; raises `BadEvent`."""
        if self._is_typed:
            try:
                event = msgspec.convert(document, self._struct)
                if self._is_plain(event):
                    return event
            except (msgspec.ValidationError, RecursionError, ValueError):  # the last of a decimal that is no number
                pass  # of another form
        try:
            return self._document_reader.read(document)
        except RecursionError as error:
            refuse(error)


EventReaders: TypeAlias = Mapping[str, EventReader]  # by kind


def make_readers(
    intake: IntakeSettings = DEFAULTS,
    tasks: Iterable[Task] = (),
    on_ignored: OnIgnored = ignore,
    on_doubtful: OnDoubtful = ignore,
) -> EventReaders:
    """A reader of each kind."""
    declared = tuple(tasks)
    return {
        kind: EventReader(kind, intake, tasks=declared, on_ignored=on_ignored, on_doubtful=on_doubtful)
        for kind in KINDS
    }


READERS: Final = make_readers()


def decode(kind: str, value: bytes | None) -> Event:
    """The event that `value` holds by the default settings, `kind` being a key of `KINDS`; raises `BadEvent`."""
    return READERS[kind].read(value)
