"""The lenient reading of one kind of record: a plain document becomes an event, field by field.

Required fields have to say what is agreed, in whatever type of JSON: an integer as an id, `1.0` as an integer and text
as a number are readings, not guesses. An optional field that cannot be read is absent, and counted.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from itertools import islice
from types import NoneType
from typing import Annotated, Any, Final, Literal, get_args, get_origin

import msgspec
from msgspec import Meta, Struct
from msgspec.structs import replace

from contract.errors import BadEvent
from contract.events.addresses import make_address_reader
from contract.events.bounds import Check, make_check
from contract.events.codes import count_decimals, read_country, read_currency
from contract.events.decoding import open_entries, open_text
from contract.events.guests import GuestId, to_guest_user
from contract.events.labels import LabelReader
from contract.events.model import (
    ATTRIBUTES_MAX,
    KINDS,
    LIST_ITEMS_MAX,
    WHOLE_MAX,
    Event,
    Id,
    Ids,
    Ip,
    Label,
    Line,
    Millis,
    Order,
    Product,
    Word,
)
from contract.events.times import TIME_SETTINGS, guess_unit, name_unit, read_time
from contract.events.values import (
    Unreadable,
    name_type,
    read_available,
    read_flag,
    read_integer,
    read_number,
    read_quantity,
    read_stock,
    read_text,
)
from contract.events.violations import classify_violation, place_violation
from contract.settings.intake import IntakeSettings

Read = Callable[[object], Any]
OnIgnored = Callable[[str, str], None]  # kind, field
OnDoubtful = Callable[[str, str, str], None]  # kind, field, what it looks like

MILLIS_MAX: Final = 2**53
MONEY_MAX: Final = 1e9
SINCE_2001_S: Final = 10**9  # what a time since then is in seconds
LABEL_VALUES: Final = (bool, int, float, str, Decimal)
check_id: Final = make_check(Id)
check_guest_id: Final = make_check(GuestId)
check_word: Final = make_check(Word)
ENTRIES: Final = Annotated[list[Any], Meta(max_length=LIST_ITEMS_MAX)]
LINES: Final = Annotated[list[Any], Meta(min_length=1, max_length=LIST_ITEMS_MAX)]


class Placeholder(Unreadable):
    """A text that stands for no id."""


@dataclass(frozen=True, slots=True)
class Field:
    """How a field is read: `read` gives a value of its type, `check` its bounds. `label`: its name in metrics.

    `may_be_placeholder`: a required id without which the event is answered all the same; it is then empty.
    """

    label: str
    read: Read
    check: Check
    is_required: bool
    may_be_placeholder: bool


class DocumentReader:
    """Reads documents of one kind; see `contract.events.reading.EventReader`."""

    def __init__(
        self, kind: str, intake: IntakeSettings, labels: LabelReader, on_ignored: OnIgnored, on_doubtful: OnDoubtful
    ) -> None:
        self._kind, self._labels = kind, labels
        self._on_ignored, self._on_doubtful = on_ignored, on_doubtful
        # An erasure that is read as of 1970 would erase nothing, and be confirmed.
        self._refused_ms = 0 if intake.doubtful_times == "refuse" else SINCE_2001_S if kind == "erasures" else math.inf
        self._placeholders = intake.folded_placeholders
        self._read_address = make_address_reader(intake.private_networks).read
        self._time_unit = intake.time_unit(kind)
        self._money = MoneyConverter(kind, intake, on_doubtful)
        self._line_fields = self._make_fields(Line, "lines.")
        self._fields = self._make_fields(KINDS[kind], "")

    def read(self, document: object) -> Event:
        """The event that a document holds; raises `BadEvent`."""
        values = self._read_fields(self._name_guest(document), self._fields, "$")
        struct = KINDS[self._kind]
        if struct is Label:
            values["task"], values["value"] = self._labels.read(values["task"], values["value"])
        return self._money.convert(struct(**values))

    def _name_guest(self, document: object) -> object:
        """The document; if it has the id of a guest and that of no user, with the id under which the guest acts."""
        if not isinstance(document, dict) or "guest_id" not in self._fields or document.get("guest_id") is None:
            return document
        if not self._is_no_id(document.get("user_id")):
            return document
        try:
            guest_id = check_guest_id(self._read_id(document["guest_id"]))
        except (Unreadable, msgspec.ValidationError):  # no guest either: an unknown user
            return {**document, "user_id": document.get("user_id") or ""}
        return {**document, "user_id": to_guest_user(guest_id)}

    def _is_no_id(self, value: object) -> bool:
        """Whether a value is absent, or a placeholder."""
        try:
            return value is None or not self._read_id(value)
        except Placeholder:
            return True
        except (Unreadable, msgspec.ValidationError):
            return False

    def _read_fields(self, document: object, fields: Mapping[str, Field], path: str) -> dict[str, Any]:
        if not isinstance(document, dict):
            raise BadEvent("wrong_type", f"Expected `object`, got `{name_type(document)}` - at `{path}`")
        values: dict[str, Any] = {}
        for name, value in document.items():
            field = fields.get(name)
            if field is None or (value is None and not field.is_required):
                continue
            try:
                values[name] = self._read_field(field, value, f"{path}.{name}")
            except BadEvent:
                if field.is_required:
                    raise
                self._on_ignored(self._kind, field.label)
        for name, field in fields.items():
            if field.is_required and name not in values:
                raise BadEvent("missing_field", f"Object missing required field `{name}` - at `{path}`")
        return values

    def _read_field(self, field: Field, value: object, path: str) -> object:
        """The value of a field; raises `BadEvent`."""
        try:
            if value is None and field.may_be_placeholder:
                raise Placeholder("Expected an id, got `null`")
            return field.check(field.read(value))
        except Placeholder as error:
            if not field.may_be_placeholder:
                raise BadEvent("placeholder_id", f"{error} - at `{path}`") from error
            self._on_ignored(self._kind, field.label)
            return ""
        except (Unreadable, msgspec.ValidationError) as error:
            message = place_violation(str(error), path)
            raise BadEvent(classify_violation(message), message) from error

    def _make_fields(self, struct: type[Struct], prefix: str) -> dict[str, Field]:
        may_be_placeholder = ("user_id", "lines.item_id") if self._kind != "erasures" else ()
        fields = {}
        for field in msgspec.structs.fields(struct):
            label, bounds = prefix + field.name, drop_none(field.type)
            read = self._find_reader(label, bounds)
            check = make_check(bounds)
            fields[field.name] = Field(label, read, check, field.required, label in may_be_placeholder)
        return fields

    def _find_reader(self, label: str, bounds: Any) -> Read:
        by_name: dict[str, Read] = {
            "lines": self._read_lines,
            "currency": lambda value: read_currency(read_text(value)),
            "shipping_country": self._read_country,
            "billing_country": self._read_country,
            "available": read_available,
            "lines.quantity": read_quantity,
            "lines.unit_price": lambda value: self._read_price(value, label),
            "vector": read_vector,
            "stock": read_stock,
            "value": read_label_value,
            "attributes": self._read_attributes,
            "ts_ms": lambda value: self._read_time(value, "ts_ms"),
            "account_created_ms": lambda value: self._read_time(value, "account_created_ms"),
        }
        by_type: tuple[tuple[Any, Read], ...] = (
            (Id, self._read_id),
            (GuestId, self._read_id),
            (Ids, lambda value: self._read_ids(value, label)),
            (Ip, self._read_ip),
            (Millis, lambda value: self._read_time(value, label)),
        )
        base = get_args(bounds)[0] if get_origin(bounds) is Annotated else bounds
        if label in by_name:
            return by_name[label]
        for known, read in by_type:
            if bounds == known:
                return read
        if get_origin(base) is Literal:
            return lambda value: read_text(value).strip().lower()
        return {str: read_text, int: read_integer, float: read_number, bool: read_flag}.get(base, read_plain(bounds))

    def _read_id(self, value: object) -> str:
        if isinstance(value, bool) and str(value).lower() in self._placeholders:
            raise Placeholder(f"Expected an id, got the placeholder `{str(value).lower()}`")
        text = read_text(value if isinstance(value, str) else read_whole(value))
        if text.strip().lower() in self._placeholders:
            raise Placeholder(f"Expected an id, got the placeholder {text!r}")
        return text

    def _read_ids(self, value: object, label: str) -> tuple[str, ...]:
        """The ids of a list, without those that are none."""
        entries, idents = msgspec.convert(open_text(value), ENTRIES), list[str]()
        for entry in entries:
            try:
                idents.append(check_id(self._read_id(entry)))
            except Unreadable:
                self._on_ignored(self._kind, label)
        return tuple(idents)

    def _read_ip(self, value: object) -> str:
        if isinstance(value, list):
            value = ",".join(read_text(entry) for entry in value)
        address = self._read_address(read_text(value))
        if address is None:
            raise Unreadable("Expected a public address")
        return address

    def _read_country(self, value: object) -> str:
        country = read_country(read_text(value), self._placeholders)
        if country is None:
            raise Unreadable("Expected a country")
        return country

    def _read_lines(self, value: object) -> tuple[Line, ...]:
        """The lines without those that take pieces back; if all do, the first one says what is wrong."""
        lines = list(enumerate(msgspec.convert(open_entries(value), LINES)))
        bought = [(number, line) for number, line in lines if not is_return(line)]
        for _ in range(len(lines) - len(bought) if bought else 0):
            self._on_ignored(self._kind, "lines.quantity")
        read = [self._read_fields(line, self._line_fields, f"$.lines[{number}]") for number, line in bought or lines]
        return tuple(Line(**values) for values in read)

    def _read_price(self, value: object, label: str) -> float:
        """A price; less than none, as of a voucher or a discount, is none, and counted."""
        price = read_number(value)
        if price < 0:
            self._on_ignored(self._kind, label)
            return 0.0
        return price

    def _read_attributes(self, value: object) -> dict[str, object]:
        """The first `ATTRIBUTES_MAX` attributes. Whether a value is of its type is found where a feature reads it."""
        attributes = msgspec.convert(open_text(value), dict[str, Any])
        if len(attributes) > ATTRIBUTES_MAX:
            self._on_ignored(self._kind, "attributes")
        return dict(islice(attributes.items(), ATTRIBUTES_MAX))

    def _read_time(self, value: object, label: str) -> int:
        ms = read_time(value, self._time_unit)
        guessed = guess_unit(ms) if ms >= 0 else ""
        if guessed:
            unit = name_unit(self._time_unit, guessed)
            self._on_doubtful(self._kind, label, unit)
            if ms > MILLIS_MAX:
                raise Unreadable(f"Expected `int` <= {MILLIS_MAX}, got what looks like {unit} (see {TIME_SETTINGS})")
            if ms >= self._refused_ms:
                raise BadEvent(
                    "bad_time",
                    f"`{label}` should be in {self._time_unit} (see {TIME_SETTINGS}). Found {value!r:.40}, which looks "
                    f"like {unit}.",
                )
        return ms


class MoneyConverter:
    """Converts the amounts of an event to the currency's own unit, and to the shop's currency by its rates."""

    def __init__(self, kind: str, intake: IntakeSettings, on_doubtful: OnDoubtful) -> None:
        self._kind, self._on_doubtful = kind, on_doubtful
        self._is_minor = intake.is_minor(kind)
        self._rates = {read_currency(code): rate for code, rate in intake.rates.items()}
        self.is_needed = KINDS[kind] in (Order, Product) and bool(self._is_minor or self._rates)

    def convert(self, event: Event) -> Event:
        """The event with its amounts converted; raises `BadEvent` where one is out of its bounds then.

        Amounts in a currency without a rate stay as they are, and are counted.
        """
        if not self.is_needed or not isinstance(event, Order | Product):
            return event
        factor = 10.0 ** -count_decimals(event.currency) if self._is_minor else 1.0
        if self._rates and event.currency not in self._rates:
            self._on_doubtful(self._kind, "currency", "no_rate")
        factor *= self._rates.get(event.currency, 1.0)
        if isinstance(event, Product):
            return replace(event, price=self._scale(event.price, factor, "price"))
        lines = tuple(replace(line, unit_price=self._scale(line.unit_price, factor, "lines")) for line in event.lines)
        return replace(event, lines=lines, amount=self._scale(event.amount, factor, "amount"))

    def _scale(self, amount: float, factor: float, label: str) -> float:
        scaled = round(amount * factor, 6)  # 1999 cents are 19.99, not 19.990000000000002
        if scaled > MONEY_MAX:
            raise BadEvent("out_of_range", f"Expected `float` <= {MONEY_MAX}, by its rate - at `$.{label}`")
        return scaled


def is_return(line: object) -> bool:
    """Whether a line of an order is of no pieces or of less, as returns are: nothing of it was bought."""
    try:
        return isinstance(line, dict) and read_number(line.get("quantity")) <= 0
    except Unreadable:
        return False


def read_whole(value: object) -> object:
    """A number that can be an id; raises `Unreadable` for a float with a fraction, or one that may be several ids."""
    if isinstance(value, float) and not (value.is_integer() and abs(value) <= WHOLE_MAX):
        raise Unreadable("Expected `str`, got `float`")
    return value


def read_label_value(value: object) -> object:
    if not isinstance(value, LABEL_VALUES):
        raise BadEvent(
            "bad_label", f"A label should be a number, true or false, or a word. Found `{name_type(value)}`."
        )
    if isinstance(value, str):
        return check_word(value)
    return value if isinstance(value, bool) else read_number(value)


def read_vector(value: object) -> tuple[float, ...]:
    return tuple(read_number(element) for element in msgspec.convert(open_text(value), ENTRIES))


def read_plain(bounds: Any) -> Read:
    """The reader of a type without a reading of its own, such as a vector: what msgspec takes for it."""
    return lambda value: msgspec.convert(value, bounds, strict=False)


def drop_none(annotation: Any) -> Any:
    """The type of a field that may be absent."""
    others = tuple(member for member in get_args(annotation) if member is not NoneType)
    if NoneType not in get_args(annotation):
        return annotation
    return others[0] if len(others) == 1 else msgspec.UNSET
