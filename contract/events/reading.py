"""Reading records: bytes become an event, or `BadEvent` says why not, whatever the bytes.

Most records have the form that docs/events.md names. They are decoded straight into their struct, and what a type
cannot say (placeholders, addresses, codes, times) is looked up. Any other record is decoded into a plain document that
`contract.events.document` reads field by field. Both give the same event for a record in that form.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Final, NoReturn, TypeAlias

import msgspec

from contract.errors import BadEvent
from contract.events.bounds import check_depth
from contract.events.document import DocumentReader, MoneyConverter, OnDoubtful, OnIgnored
from contract.events.labels import LabelReader
from contract.events.mending import has_constant, load, load_damaged, mend
from contract.events.model import KINDS, RECORD_BYTES_MAX, Event
from contract.events.plain_form import PlainForm
from contract.events.violations import classify_violation
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


def decode_document(value: bytes) -> object:
    """The plain document of a record; raises `BadEvent`.

    A text that is not UTF-8 is a `DamagedText`, a number that no float can hold is infinity, and NaN is itself: whether
    that matters depends on their fields.
    """
    check_depth(value)
    try:
        if not value.isascii():
            value.decode()
        return msgspec.json.decode(value)
    except msgspec.ValidationError:
        return decode_unusual(load, value)
    except UnicodeDecodeError as error:
        return decode_unusual(load_damaged, value, error)
    except (msgspec.DecodeError, RecursionError) as error:
        if (mended := mend(value)) != value:
            return decode_document(mended)
        if has_constant(value):
            return decode_unusual(load, value, error)
        refuse(error)


def decode_unusual(load_value: Callable[[bytes], object], value: bytes, cause: Exception | None = None) -> object:
    """The document by a slower decoder; raises `BadEvent`, for `cause` where the value is no document at all."""
    try:
        return load_value(value)
    except RecursionError as error:
        refuse(error)
    except ValueError as error:
        refuse(cause or error)


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
