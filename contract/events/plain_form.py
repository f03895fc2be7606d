"""Which events, decoded straight into their struct, the lenient reading would give just so.

Every record passes here. The checks are plain loops: `map` and generators took twice as long for as few ids as an event
has.
"""

import math
from collections.abc import Callable
from operator import attrgetter
from typing import Any, Final

import msgspec

from contract.errors import BadEvent
from contract.events.addresses import make_address_reader
from contract.events.codes import COUNTRY_CODES, read_country, read_currency
from contract.events.guests import GuestId
from contract.events.labels import LabelReader
from contract.events.model import KINDS, Id, Impression, Label, Order, Product, Search
from contract.events.times import PLAUSIBLE_MS
from contract.settings.intake import IntakeSettings

EARLIEST_MS: Final = PLAUSIBLE_MS.start
END_MS: Final = PLAUSIBLE_MS.stop
ID_TYPES: Final = (Id, Id | None, GuestId | None)
COUNTRIES: Final[frozenset[str | None]] = COUNTRY_CODES | {None}


class PlainForm:
    """The form of one kind of event in which nothing has to be read otherwise: no placeholder, codes in upper case."""

    def __init__(self, kind: str, intake: IntakeSettings, labels: LabelReader) -> None:
        struct = KINDS[kind]
        ids = [field.name for field in msgspec.structs.fields(struct) if field.type in ID_TYPES]
        self._get_ids = attrgetter(*ids)
        self._labels, self._placeholders = labels, intake.folded_placeholders
        self._read_address = make_address_reader(intake.private_networks).read
        checks_by_field: dict[str, Callable[[Any], bool]] = {
            "ip": self._has_address,
            "items": self._has_items,
            "lines": self._has_lines,
            "currency": has_currency,
            "vector": has_finite_vector,
            "shipping_country": self._has_countries,
            "account_created_ms": has_account_time,
        }
        self._checks = [check for field, check in checks_by_field.items() if field in struct.__struct_fields__]
        if kind == "labels":
            self._checks.append(self._has_label)

    def has(self, event: Any) -> bool:
        """Whether an event has this form."""
        if not EARLIEST_MS <= event.ts_ms < END_MS:
            return False
        placeholders = self._placeholders
        for ident in self._get_ids(event):
            if ident is not None and ident.strip().lower() in placeholders:
                return False
        for check in self._checks:  # noqa: SIM110 - a generator takes as long as the checks
            if not check(event):
                return False
        return True

    def _has_address(self, event: Any) -> bool:
        return event.ip is None or self._read_address(event.ip) == event.ip

    def _has_items(self, event: Impression | Search) -> bool:
        return event.items is None or self._placeholders.isdisjoint([item.strip().lower() for item in event.items])

    def _has_lines(self, order: Order) -> bool:
        placeholders = self._placeholders
        for line in order.lines:
            if line.item_id.strip().lower() in placeholders:
                return False
            if type(line.quantity) is float and line.quantity.is_integer():
                return False
            if line.seller_id is not None and line.seller_id.strip().lower() in placeholders:
                return False
        return True

    def _has_countries(self, order: Order) -> bool:
        shipping, billing = order.shipping_country, order.billing_country
        return (shipping in COUNTRIES or read_country(shipping, self._placeholders) == shipping) and (
            billing in COUNTRIES or read_country(billing, self._placeholders) == billing
        )

    def _has_label(self, label: Label) -> bool:
        try:
            return self._labels.read(label.task, label.value) == (label.task, label.value)
        except BadEvent:
            return False


def has_currency(event: Order | Product) -> bool:
    return read_currency(event.currency) == event.currency


def has_finite_vector(product: Product) -> bool:
    return product.vector is None or all(map(math.isfinite, product.vector))


def has_account_time(order: Order) -> bool:
    return order.account_created_ms is None or EARLIEST_MS <= order.account_created_ms < END_MS
