"""Guests: who acts before a login, known by the id of a device or a session.

A guest acts as a user whose id is `guest:` and the guest's id, so that all that is made for users is made for guests.
User ids that begin so are those of guests: no other user may have one.
"""

from typing import Annotated, Final, TypeAlias

from msgspec import Meta

GUEST_PREFIX: Final = "guest:"
GuestId: TypeAlias = Annotated[str, Meta(min_length=1, max_length=120)]  # with the prefix, a user id is long enough


def to_guest_user(guest_id: str) -> str:
    """The user id under which a guest acts."""
    return GUEST_PREFIX + guest_id


def is_guest(user_id: str) -> bool:
    """Whether a user id is that of a guest."""
    return user_id.startswith(GUEST_PREFIX)
