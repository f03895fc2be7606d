"""Erasures of guests, which follow from those of the users who logged in: records of the erasures topic."""

from collections.abc import Sequence

from contract.events.guests import to_guest_user
from contract.events.model import Erasure
from contract.messages import to_json
from contract.profiles.entity_updates import Arrival
from contract.profiles.erasures import Erasures
from contract.profiles.logins import find_login
from worker.kafka.outgoing import OutgoingRecord


def make_erasure(event_id: str, guest_id: str, until_ms: int) -> Erasure:
    """The erasure of a guest. Its confirmation has the id of the event that it follows from."""
    return Erasure(event_id=event_id, ts_ms=until_ms, user_id=to_guest_user(guest_id))


def is_new(erasure: Erasure, erasures: Erasures) -> bool:
    """Whether an erasure covers more than is known."""
    return not erasures.covers(erasure.user_id, erasure.ts_ms)


def to_record(erasure: Erasure, topic: str) -> OutgoingRecord:
    """An erasure as a record, keyed like that of any user."""
    return OutgoingRecord(topic, erasure.user_id, to_json(erasure))


def find_late_erasures(arrivals: Sequence[Arrival], erasures: Erasures, topic: str) -> list[OutgoingRecord]:
    """The erasures of the guests of these logins, which an erasure of the user covers and which come only now.

    Such a login is recorded nowhere, so this is the only moment at which its guest is known.
    """
    logins = [(arrival.event.event_id, login) for arrival in arrivals if (login := find_login(arrival.event))]
    guest_erasures = [make_erasure(event_id, guest, at_ms) for event_id, (_, guest, at_ms) in logins]
    return [to_record(erasure, topic) for erasure in guest_erasures if is_new(erasure, erasures)]
