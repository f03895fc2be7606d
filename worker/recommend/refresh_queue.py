"""Queue of users whose recommendation list needs a refresh, each at most once per `refresh_ms`."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

from contract.events.model import Order, UserEvent
from contract.profiles.entity_updates import Arrival

PURCHASERS_MAX: Final = 10_000  # users whose purchases are kept until their next list


@dataclass(slots=True)
class RefreshQueue:
    """Holds, for each user that waits for a list, the latest event and the items bought since the last list.

    `due` returns at most `batch_max` users, those that wait longest first. Beyond `waiting_max` users the queue drops
    those that wait longest.
    """

    refresh_ms: int
    batch_max: int
    waiting_max: int
    _events: dict[str, Arrival] = field(default_factory=dict)
    _bought: dict[str, set[str]] = field(default_factory=dict)
    _refreshed_ms: dict[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        """The number of users that wait."""
        return len(self._events)

    def push(self, arrivals: Iterable[Arrival]) -> int:
        """Queue the users of these events; returns the number of users that were dropped."""
        for arrival in arrivals:
            event = arrival.event
            if isinstance(event, UserEvent) and event.user_id:  # a guest has no list
                self._events[event.user_id] = arrival  # a user that waits already keeps the position
                if isinstance(event, Order):
                    self.record_purchase(event)
        evicted = max(0, len(self._events) - self.waiting_max)
        for user in list(islice(self._events, evicted)):
            del self._events[user]
        return evicted

    def record_purchase(self, order: Order) -> None:
        """Exclude the items of an order from the user's next list."""
        self._bought.setdefault(order.user_id, set()).update(line.item_id for line in order.lines)
        while len(self._bought) > PURCHASERS_MAX:
            del self._bought[next(iter(self._bought))]

    def forget(self, is_reread: Callable[[Arrival], bool]) -> None:
        """Remove the users whose latest event will be read again."""
        self._events = {user: arrival for user, arrival in self._events.items() if not is_reread(arrival)}

    def due(self, now_ms: int) -> list[str]:
        """The users whose list may be refreshed now, those that wait longest first."""
        users: list[str] = []
        until_ms = now_ms - self.refresh_ms
        for user in self._events:
            if self._refreshed_ms.get(user, until_ms) <= until_ms:
                users.append(user)
                if len(users) == self.batch_max:
                    break
        return users

    def pop(self, user: str, now_ms: int) -> tuple[Arrival, set[str]]:
        """Remove a user; returns the latest event and the items bought since the last list."""
        self._refreshed_ms.pop(user, None)
        self._refreshed_ms[user] = now_ms  # last, so that the times stay in ascending order
        self._drop_expired(now_ms)
        return self._events.pop(user), self._bought.pop(user, set())

    def _drop_expired(self, now_ms: int) -> None:
        """Drop refresh times that no longer delay a refresh."""
        while self._refreshed_ms:
            oldest = next(iter(self._refreshed_ms))
            if now_ms - self._refreshed_ms[oldest] < self.refresh_ms:
                break
            del self._refreshed_ms[oldest]
