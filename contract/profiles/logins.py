"""Who logged in on which guest's device, and when: the logins of an entity, one record for each source.

An event with both a user and a guest tells a login. It is recorded twice, each time with its own entity: a user's
record has the guests' ids, a guest's record a short tag of each user, which names no one. Both are written with the
bucket of their entity; nothing is moved or copied. Reading a history joins them: see `contract.profiles.guest_items`.

A record is a function of the set of its logins, so replays and the order of events change nothing: of a user, the
latest login of each of the latest guests; of a guest, the first and the latest login of each user, or, of more users
than `GUEST_USERS_MAX`, that it is shared. As slices are, it is begun again after the horizon.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple, TypeAlias

import msgspec

from contract.errors import BadProfile
from contract.events.guests import is_guest, to_guest_user
from contract.events.model import UserEvent
from contract.hashing import hash_id
from contract.profiles.erasures import Erasures
from contract.profiles.record import HORIZON_MS

LOGINS: Final = "logins:"  # before a source: the field of its record in the hash of the histories
LOGINS_LAYOUT: Final = 1
USER_GUESTS_MAX: Final = 128  # the latest ones of one source; an erasure of the user erases them too
GUEST_USERS_MAX: Final = 8  # of one source; a guest with more is no one's
TAG_BITS: Final = 20  # as many as are left of the hash of an erased user among links
SHARED: Final = ""
Row: TypeAlias = tuple[str, int, int]  # a guest's id or a user's tag, and the times of its first and latest login
Records: TypeAlias = Mapping[str, bytes]  # by source


class LoginsRecord(msgspec.Struct, frozen=True, array_like=True):
    """A record as it is stored, in MessagePack; `rows` ascend by their latest login."""

    layout: int
    rows: tuple[Row, ...]


encode: Final = msgspec.msgpack.Encoder().encode
decoder: Final = msgspec.msgpack.Decoder(LoginsRecord)


class LoginWrite(NamedTuple):
    """A login to record with an entity (`user:ID`, of a user or a guest) and source: the `other` one, and the time."""

    entity: str
    source: str
    offset: int
    other: str
    at_ms: int


def find_login(event: object) -> tuple[str, str, int] | None:
    """The user id, the guest id and the time of a login; None for an event that tells none. A guest has no guests."""
    if not isinstance(event, UserEvent) or event.guest_id is None or not event.user_id or is_guest(event.user_id):
        return None
    return event.user_id, event.guest_id, event.ts_ms


def list_logins(event: object, source: str, offset: int, erasures: Erasures) -> list[LoginWrite]:
    """What an event adds to logins; a record has no login that an erasure of its own entity covers."""
    if (login := find_login(event)) is None:
        return []
    user, guest, at_ms = login
    writes = [
        LoginWrite(f"user:{user}", source, offset, guest, at_ms),
        LoginWrite(f"user:{to_guest_user(guest)}", source, offset, tag_user(user), at_ms),
    ]
    return [write for write in writes if at_ms > erasures.until_ms.get(write.entity, -1)]


def tag_user(user_id: str) -> str:
    """A tag that tells the few users of one guest from each other, and names none of them."""
    return f"{hash_id(f'user:{user_id}') >> (63 - TAG_BITS):05x}"


def is_guest_entity(entity: str) -> bool:
    """Whether an entity (`user:ID`) is a guest."""
    return is_guest(entity.removeprefix("user:"))


def read_rows(record: bytes) -> tuple[Row, ...]:
    """The rows of a record; raises `BadProfile`."""
    if problem := find_logins_defect(record):
        raise BadProfile(f"Logins should be readable: {problem}.")
    return decoder.decode(record).rows


def find_logins_defect(record: bytes) -> str | None:
    """Why these bytes are no record of logins; None if they are one."""
    try:
        logins = decoder.decode(record)
    except msgspec.DecodeError as error:
        return f"logins should be a list of rows: {error}"
    if logins.layout != LOGINS_LAYOUT:
        return f"layout should be {LOGINS_LAYOUT}, is {logins.layout}"
    return None if logins.rows else "logins should have rows, have none"


def write_rows(rows: Sequence[Row]) -> bytes:
    """The record of these rows; empty for none."""
    return encode(LoginsRecord(LOGINS_LAYOUT, tuple(sorted(rows, key=lambda row: (row[2], row))))) if rows else b""


def group_logins(writes: Iterable[LoginWrite]) -> dict[tuple[str, str], list[LoginWrite]]:
    """Logins by entity and source, each in the order given."""
    groups = defaultdict[tuple[str, str], list[LoginWrite]](list)
    for write in writes:
        groups[write.entity, write.source].append(write)
    return groups


def add_logins(record: bytes, writes: Sequence[LoginWrite]) -> bytes:
    """The record of an entity and source after further logins of it; `record` is empty where it begins."""
    rows = {row[0]: row for row in read_rows(record)} if record else {}
    for write in writes:
        add_login(rows, write)
    return write_rows(list(rows.values()))


def add_login(rows: dict[str, Row], write: LoginWrite) -> None:
    newest = max((latest_ms for _, _, latest_ms in rows.values()), default=write.at_ms)
    if write.at_ms < newest - HORIZON_MS:
        return
    if write.at_ms > newest + HORIZON_MS:
        rows.clear()
    is_of_guest = is_guest_entity(write.entity)
    other = SHARED if SHARED in rows else write.other
    _, first_ms, latest_ms = rows.get(other, (other, write.at_ms, write.at_ms))
    latest_ms = max(latest_ms, write.at_ms)
    rows[other] = (other, min(first_ms, write.at_ms) if is_of_guest else latest_ms, latest_ms)
    if is_of_guest and len(rows) > GUEST_USERS_MAX:
        shared = SHARED, min(row[1] for row in rows.values()), max(row[2] for row in rows.values())
        rows.clear()
        rows[SHARED] = shared
    elif len(rows) > USER_GUESTS_MAX:
        del rows[min(rows.values(), key=lambda row: (row[2], row))[0]]


def has_erased_logins(record: bytes, until_ms: int) -> bool:
    """Whether a record has logins that an erasure of its entity covers, or is unreadable."""
    if find_logins_defect(record):
        return True
    return any(first_ms <= until_ms for _, first_ms, _ in read_rows(record))


def split_logins(fields: Mapping[str, bytes]) -> tuple[dict[str, bytes], dict[str, bytes]]:
    """The histories and the logins by source, of all fields of a hash."""
    histories, logins = dict[str, bytes](), dict[str, bytes]()
    for name, record in fields.items():
        if name.startswith(LOGINS):
            logins[name.removeprefix(LOGINS)] = record
        else:
            histories[name] = record
    return histories, logins
