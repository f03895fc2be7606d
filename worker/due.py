"""Whose list is due: users who clicked or bought since theirs was made, each at most once per `refresh_ms`."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from contract.events import Order, UserEvent
from contract.touches import Arrival

REMEMBERED_MAX = 10_000


@dataclass(slots=True)
class Due:
    """Remembers, for each user that waits for a list, the event that it should reflect and what was just bought."""

    refresh_ms: int
    _events: dict[str, Arrival] = field(default_factory=dict)
    _bought: dict[str, set[str]] = field(default_factory=dict)
    _refreshed_ms: dict[str, int] = field(default_factory=dict)

    def note(self, arrivals: Iterable[Arrival]) -> None:
        """These events should be reflected by a list."""
        for arrival in arrivals:
            event = arrival.event
            if isinstance(event, UserEvent):
                self._events[event.user_id] = arrival
            self.note_bought(arrival)

    def note_bought(self, arrival: Arrival) -> None:
        """What an order bought is not on the user's next list, whatever event brings that."""
        event = arrival.event
        if isinstance(event, Order):
            self._bought.setdefault(event.user_id, set()).update(line.item_id for line in event.lines)
            while len(self._bought) > REMEMBERED_MAX:
                del self._bought[next(iter(self._bought))]

    def ready(self, now_ms: int) -> list[str]:
        """Users whose list may be made now."""
        never = now_ms - self.refresh_ms
        return [user for user in self._events if now_ms - self._refreshed_ms.get(user, never) >= self.refresh_ms]

    def take(self, user: str, now_ms: int) -> tuple[Arrival, set[str]]:
        """The event that a user's list should reflect, and what they just bought; they are due no more."""
        self._refreshed_ms[user] = now_ms
        if len(self._refreshed_ms) > REMEMBERED_MAX:  # whoever may be refreshed anyway need not be remembered
            self._refreshed_ms = {u: at for u, at in self._refreshed_ms.items() if now_ms - at < self.refresh_ms}
        return self._events.pop(user), self._bought.pop(user, set())
