"""Whose list is due: users who clicked or bought since theirs was made, each at most once per `refresh_ms`."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import islice

from contract.events import Order, UserEvent
from contract.profiles.entity_updates import Arrival

PURCHASERS_MAX = 10_000  # users whose purchases are remembered until their next list


@dataclass(slots=True)
class RefreshQueue:
    """Remembers, for each user that waits for a list, the event that it should reflect and what was just bought.

    At most `batch_max` lists are made at once; whoever waits longest comes first. Of more than `waiting_max` users
    those who wait longest give up.
    """

    refresh_ms: int
    batch_max: int
    waiting_max: int
    _events: dict[str, Arrival] = field(default_factory=dict)
    _bought: dict[str, set[str]] = field(default_factory=dict)
    _refreshed_ms: dict[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        """How many users wait."""
        return len(self._events)

    def push(self, arrivals: Iterable[Arrival]) -> int:
        """These events should be reflected by a list; how many users have given up waiting for theirs."""
        for arrival in arrivals:
            event = arrival.event
            if isinstance(event, UserEvent):
                self._events[event.user_id] = arrival  # who waits keeps their place
                if isinstance(event, Order):
                    self.record_purchase(event)
        evicted = max(0, len(self._events) - self.waiting_max)
        for user in list(islice(self._events, evicted)):
            del self._events[user]
        return evicted

    def record_purchase(self, order: Order) -> None:
        """What an order bought is not on the user's next list, whatever event brings that."""
        self._bought.setdefault(order.user_id, set()).update(line.item_id for line in order.lines)
        while len(self._bought) > PURCHASERS_MAX:
            del self._bought[next(iter(self._bought))]

    def due(self, now_ms: int) -> list[str]:
        """Users whose list may be made now, those who wait longest."""
        users, refreshed_ms, until_ms = list[str](), self._refreshed_ms, now_ms - self.refresh_ms
        for user in self._events:
            if refreshed_ms.get(user, until_ms) <= until_ms:
                users.append(user)
                if len(users) == self.batch_max:
                    break
        return users

    def pop(self, user: str, now_ms: int) -> tuple[Arrival, set[str]]:
        """The event that a user's list should reflect, and what they just bought; they are due no more."""
        self._refreshed_ms.pop(user, None)
        self._refreshed_ms[user] = now_ms  # in the order of time: whoever may be refreshed anyway is forgotten
        while (
            self._refreshed_ms
            and now_ms - self._refreshed_ms[oldest := next(iter(self._refreshed_ms))] >= self.refresh_ms
        ):
            del self._refreshed_ms[oldest]
        return self._events.pop(user), self._bought.pop(user, set())
