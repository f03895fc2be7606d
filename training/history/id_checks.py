"""Repeated events, and ids of a history that do not meet: clicks, orders and labels of what it does not have."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from contract.events.model import (
    IDENTITY_FIELDS,
    KIND_BY_TYPE,
    Click,
    Event,
    Impression,
    Label,
    Order,
    Product,
    Review,
    Search,
    digest_content,
)
from contract.hashing import hash_text
from training.history.hash_table import HashTable, Numbers, Pairs, Repeats

ORDERED_ITEMS: Final = "orders of unknown items"
CLICKED_ITEMS: Final = "clicks of unknown items"
JUDGED_EVENTS: Final = "labels of unknown events"
CLICKED_LISTS: Final = "clicks of unknown recommendation ids"
FOREIGN_LABELS: Final = "labels of another user than their event"
TARGETS: Final = {ORDERED_ITEMS: "items", CLICKED_ITEMS: "items", JUDGED_EVENTS: "judged", CLICKED_LISTS: "lists"}
HASH_DIGITS: Final = 16  # hexadecimal, of 64 bits
References = Iterator[tuple[str, str]]  # the name of a check or of its targets, and an id


class IdChecks:
    """Collects the ids of all events, on disk below `folder`; memory does not depend on their number."""

    def __init__(self, folder: Path) -> None:
        self._events = HashTable(folder, "events")
        self._targets = {name: HashTable(folder, name) for name in set(TARGETS.values())}
        self._references = {name: HashTable(folder, f"references-{n}") for n, name in enumerate(TARGETS)}

    def add(self, kind: str, event: Event, number: int) -> None:
        self._events.add(identify(kind, event), number, int(digest_content(event)[:HASH_DIGITS], 16))
        for name, ident in list_targets(event):
            self._targets[name].add(ident, number, hash_user(event) if name == TARGETS[JUDGED_EVENTS] else 0)
        for name, ident in list_references(event):
            self._references[name].add(ident, number, hash_user(event) if name == JUDGED_EVENTS else 0)

    def find_repeats(self) -> Repeats:
        """The records that repeat the kind and id of an earlier one."""
        return self._events.find_repeats()

    def find_unmet(self) -> dict[str, Numbers]:
        """The numbers of records with an id that no record has, by check; without the checks that found none."""
        unmet = {name: self._references[name].find_missing(self._targets[target]) for name, target in TARGETS.items()}
        return {name: numbers for name, numbers in unmet.items() if len(numbers)}

    def find_foreign_labels(self) -> Pairs:
        """The numbers of labels whose user is not that of the event that they judge, each with that event's."""
        return self._references[JUDGED_EVENTS].find_disagreeing(self._targets[TARGETS[JUDGED_EVENTS]])


def identify(kind: str, event: Event) -> str:
    """What two records of the same event have in common; a product has one event for each of its versions."""
    version = f" {event.ts_ms}" if isinstance(event, Product) else ""
    return f"{kind} {event.event_id}{version}"


def hash_user(event: Event) -> int:
    """The hash of an event's user; 0 without one: the joiner takes labels of any user for such an order."""
    user_id = getattr(event, "user_id", "")
    # With the prefix it differs from the hash of the same text as an id.
    return hash_text(f"user:{user_id}") if user_id else 0


def list_targets(event: Event) -> References:
    match event:
        case Product():
            yield "items", event.item_id
        case Order() | Review():
            yield "judged", event.event_id
        case Search():
            yield "judged", event.event_id
            yield "lists", event.event_id
        case Impression():
            yield "lists", event.recommendation_id or event.event_id


def list_references(event: Event) -> References:
    match event:
        case Order():
            for item in {line.item_id for line in event.lines}:
                yield ORDERED_ITEMS, item
        case Click():
            yield CLICKED_ITEMS, event.item_id
            if event.recommendation_id:
                yield CLICKED_LISTS, event.recommendation_id
        case Label():
            yield JUDGED_EVENTS, event.judged_event_id


def describe_unmet(name: str, event: Event) -> str:
    """The ids of an event that may not meet."""
    return ", ".join(ident for check, ident in list_references(event) if check == name)


def describe_foreign_label(label: Event, judged: Event) -> str:
    """The judged event, and both users; an unknown one is empty."""
    users = [getattr(event, "user_id", "") for event in (label, judged)]
    return f"{judged.event_id}: the label has the user `{users[0]}`, the event `{users[1]}`"


def describe_conflict(repeated: Event, first: Event) -> str:
    """The kind and id, and the fields that differ."""
    names = [
        name
        for name in first.__struct_fields__[len(IDENTITY_FIELDS) :]
        if getattr(repeated, name) != getattr(first, name)
    ]
    return f"{KIND_BY_TYPE[type(first)]} {first.event_id}: should have the same {', '.join(names)} as its first record"
