"""Queue of users whose recommendation list needs a refresh, each at most once per `refresh_ms`."""

from collections import Counter
from collections.abc import Callable, Collection, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import Final, NamedTuple

from contract.events.model import Order, UserEvent
from contract.profiles.entity_updates import Arrival
from transport.records import TopicPartition
from worker.recommend.recent_purchases import forget_purchases, select_later

PURCHASERS_MAX: Final = 10_000  # users whose purchases are kept until their next list


class WaitingUser(NamedTuple):
    """A user's latest event, the first one that waits for a list, and the time (ms) since which it waits.

    `is_again`: a list of this event may have been logged already, and lost before it was cached.
    """

    arrival: Arrival
    first: Arrival
    since_ms: int
    is_again: bool = False

    @property
    def first_partition(self) -> TopicPartition:
        return TopicPartition(self.first.topic, self.first.partition)


class TakenUser(NamedTuple):
    """A user taken from the queue, with the items bought since the last list and the times (ms) of the orders."""

    waiting: WaitingUser
    bought: Mapping[str, int]


@dataclass(slots=True)
class RefreshQueue:
    """Holds, for each user that waits for a list, the latest event and the items bought since the last list.

    Users are in the order in which the first event of each that waits was read. Beyond `waiting_max` users the queue
    drops those that wait longest.
    """

    refresh_ms: int
    waiting_max: int
    _waiting: dict[str, WaitingUser] = field(default_factory=dict)
    _bought: dict[str, dict[str, int]] = field(default_factory=dict)  # items with the times (ms) of the orders
    _refreshed_ms: dict[str, int] = field(default_factory=dict)
    _taken: dict[str, TakenUser] = field(default_factory=dict)  # by the last `take`
    _waiting_counts: Counter[TopicPartition] = field(default_factory=Counter)  # by the partition of the first event
    _again: set[str] = field(default_factory=set)  # users who were queued out of order, some of whom wait

    def __len__(self) -> int:
        """The number of users that wait."""
        return len(self._waiting)

    def __contains__(self, user: str) -> bool:
        """Whether a user waits."""
        return user in self._waiting

    def push(self, arrivals: Iterable[Arrival], now_ms: int, *, is_again: bool = False) -> int:
        """Queue the users of these events; returns the number of users that were dropped."""
        for arrival in arrivals:
            event = arrival.event
            if isinstance(event, UserEvent) and event.user_id:  # a guest has no list
                if held := self._waiting.get(event.user_id):  # a user that waits already keeps the position
                    self._waiting[event.user_id] = WaitingUser(arrival, held.first, held.since_ms)
                else:
                    self._add(event.user_id, WaitingUser(arrival, arrival, now_ms, is_again))
                if isinstance(event, Order):
                    self.record_purchase(event)
        evicted = max(0, len(self._waiting) - self.waiting_max)
        for user in list(islice(self._waiting, evicted)):
            self._remove(user)
        return evicted

    def record_purchase(self, order: Order) -> None:
        """Exclude the items of an order from the user's next list."""
        self._add_bought(order.user_id, {line.item_id: order.ts_ms for line in order.lines})
        while len(self._bought) > PURCHASERS_MAX:
            del self._bought[next(iter(self._bought))]

    def forget(self, is_reread: Callable[[Arrival], bool]) -> None:
        """Remove the users whose latest event will be read again."""
        self._keep({user: held for user, held in self._waiting.items() if not is_reread(held.arrival)})
        self._taken = {user: held for user, held in self._taken.items() if not is_reread(held.waiting.arrival)}

    def forget_erased(self, until_ms: Mapping[str, int]) -> None:
        """Forget what these users (by id) did up to these times; who waits because of that waits no longer."""
        forget_purchases(self._bought, until_ms)
        for user in self._waiting.keys() & until_ms.keys():
            if self._waiting[user].arrival.event.ts_ms <= until_ms[user]:
                self._remove(user)
        for user in self._taken.keys() & until_ms.keys():
            taken = self._taken[user]
            if taken.waiting.arrival.event.ts_ms <= until_ms[user]:
                del self._taken[user]
            else:
                self._taken[user] = taken._replace(bought=select_later(taken.bought, until_ms[user]))
        for user in self._refreshed_ms.keys() & until_ms.keys():
            del self._refreshed_ms[user]

    def release(self, partitions: Container[TopicPartition]) -> None:
        """Remove the users whose first event that waits is of these partitions."""
        self._keep({u: held for u, held in self._waiting.items() if held.first_partition not in partitions})
        self._taken = {u: held for u, held in self._taken.items() if held.waiting.first_partition not in partitions}

    def find_first(self, partitions: Collection[TopicPartition]) -> dict[TopicPartition, int]:
        """The offset of the first event that waits, or whose user was taken last, in each of these partitions."""
        first = dict[TopicPartition, int]()
        missing = {partition for partition in partitions if self._waiting_counts[partition] > 0}
        out_of_order = [self._waiting[user] for user in self._again if user in self._waiting]
        for held in chain((taken.waiting for taken in self._taken.values()), out_of_order):
            partition, offset = held.first_partition, held.first.offset
            first[partition] = min(offset, first.get(partition, offset))
        for held in self._waiting.values():  # the first one of a partition has its lowest offset
            if not missing:
                break
            if (partition := held.first_partition) in missing:
                missing.discard(partition)
                first[partition] = min(held.first.offset, first.get(partition, held.first.offset))
        return {partition: offset for partition, offset in first.items() if partition in partitions}

    def due(self, now_ms: int, count_max: int, among: Container[str] | None = None) -> list[str]:
        """At most `count_max` users whose list may be refreshed now, those that wait longest first.

        `among`: the entities (`user:id`) that may be chosen; None: all.
        """
        users: list[str] = []
        until_ms = now_ms - self.refresh_ms
        for user in self._waiting:
            if len(users) == count_max:
                break
            if self._refreshed_ms.get(user, until_ms) <= until_ms and (among is None or f"user:{user}" in among):
                users.append(user)
        return users

    def take(self, users: Sequence[str], now_ms: int) -> list[TakenUser]:
        """Remove users in order to refresh their lists."""
        self._taken = {user: self._take(user, now_ms) for user in users}
        self._drop_expired(now_ms)
        return list(self._taken.values())

    def put_back(self) -> None:
        """The users of the last `take` got no list: they wait again, where they were."""
        returned = dict[str, WaitingUser]()
        for user, (waiting, bought) in self._taken.items():
            newer = self._waiting.get(user)
            returned[user] = waiting._replace(arrival=newer.arrival) if newer else waiting
            self._refreshed_ms.pop(user, None)
            if bought:
                self._add_bought(user, bought)
        self._keep(returned | {user: held for user, held in self._waiting.items() if user not in returned})
        self._taken = {}

    def measure_wait_ms(self, now_ms: int) -> int:
        """How long the user that waits longest has waited; 0 if none waits."""
        first = next(iter(self._waiting.values()), None)
        return max(0, now_ms - first.since_ms) if first else 0

    def _take(self, user: str, now_ms: int) -> TakenUser:
        self._refreshed_ms.pop(user, None)
        self._refreshed_ms[user] = now_ms  # last, so that the times stay in ascending order
        return TakenUser(self._remove(user), self._bought.pop(user, {}))

    def _add(self, user: str, waiting: WaitingUser) -> None:
        self._waiting[user] = waiting
        self._waiting_counts[waiting.first_partition] += 1
        if waiting.is_again:
            self._again.add(user)

    def _add_bought(self, user: str, items: Mapping[str, int]) -> None:
        held = self._bought.setdefault(user, {})
        held.update({item: max(ts_ms, held.get(item, ts_ms)) for item, ts_ms in items.items()})

    def _remove(self, user: str) -> WaitingUser:
        waiting = self._waiting.pop(user)
        self._waiting_counts[waiting.first_partition] -= 1
        self._again.discard(user)
        return waiting

    def _keep(self, waiting: dict[str, WaitingUser]) -> None:
        self._waiting, self._waiting_counts, again = {}, Counter(), self._again
        for user, held in waiting.items():
            self._add(user, held)
        self._again |= again.intersection(waiting)

    def _drop_expired(self, now_ms: int) -> None:
        """Drop refresh times that no longer delay a refresh."""
        while self._refreshed_ms:
            oldest = next(iter(self._refreshed_ms))
            if now_ms - self._refreshed_ms[oldest] < self.refresh_ms:
                break
            del self._refreshed_ms[oldest]
