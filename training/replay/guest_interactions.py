"""Interactions of guests under the users who logged in afterwards, by the rule by which the worker reads histories."""

from collections import defaultdict
from collections.abc import Sequence

from contract.events.guests import is_guest, to_guest_user
from contract.events.model import Event
from contract.profiles.guest_items import Times, find_owner
from contract.profiles.logins import find_login

Interaction = tuple[str, str, int, str]  # user_id, item_id, ts_ms, action


class GuestInteractions:
    """The logins of a history, and whose the interactions of its guests are."""

    def __init__(self) -> None:
        self._logins = defaultdict[str, dict[str, Times]](dict)  # by the guest's user id, then by user id

    def add(self, event: Event) -> None:
        """Add an event of the history."""
        if login := find_login(event):
            user, guest, at_ms = login
            users = self._logins[to_guest_user(guest)]
            first_ms, latest_ms = users.get(user, (at_ms, at_ms))
            users[user] = min(first_ms, at_ms), max(latest_ms, at_ms)

    def assign(self, interactions: Sequence[Interaction]) -> list[Interaction]:
        """The interactions, those of guests with the user whose they are, if they are any user's."""
        return [(self._find_user(user, ts_ms), item, ts_ms, action) for user, item, ts_ms, action in interactions]

    def _find_user(self, user_id: str, ts_ms: int) -> str:
        users = self._logins.get(user_id) if is_guest(user_id) else None
        owner = find_owner(users, ts_ms) if users else user_id
        return owner if users and owner in users else user_id
