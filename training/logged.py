"""The rows that a worker would have logged for a batch of history: orders, searches, and lists that were shown."""

from collections.abc import Mapping, Sequence
from typing import Final

from contract.encoding import Encoder, Served, UnknownItem, apart, entities_of
from contract.events import Click, Impression, Order, Product, Search
from contract.features import FeatureSet
from contract.memory import Memory
from contract.rows import Packed, Scored, pack
from contract.touches import Arrival

SEARCHED_MAX: Final = 100  # items of a search that are looked at
ORDER_GROUPS: Final = ("user", "order", "context")
LIST_GROUPS: Final = ("user", "context")
SEARCH_GROUPS: Final = ("query", "user")


class Log:
    """Makes rows of folded batches, which come in the order of time; `catalogue` is read as it is then.

    A list is encoded as the worker encodes it: for the user as they were after the last click or order before it. So an
    impression must not come in one batch behind a click or order of its user.
    """

    def __init__(self, *, features: FeatureSet, catalogue: Mapping[str, Product]) -> None:
        self._encoder, self._catalogue = Encoder(features), catalogue
        self._served = Served(features.digest, "")
        self._latest: dict[str, dict[str, Packed]] = {}  # user -> as they are after their last click or order

    def rows(self, memory: Memory) -> dict[int, Scored]:
        """The row of each arrival of a batch that has one, by its number."""
        arrivals = memory.touches.arrivals
        made = {
            number: self._list(memory, number) for number in numbers(arrivals, Impression) if shown(arrivals[number])
        }
        made |= self._orders(memory, numbers(arrivals, Order))
        made |= self._searches(memory, numbers(arrivals, Search))
        self._remember(memory, arrivals)
        return made

    def _orders(self, memory: Memory, rows: list[int]) -> dict[int, Scored]:
        groups, arrivals = apart(self._encoder.before(memory, rows, ORDER_GROUPS)), memory.touches.arrivals
        return {
            row: self._served.row("order", arrivals[row], own, entities=entities)
            for row, own, entities in zip(rows, groups, entities_of(memory, rows), strict=True)
        }

    def _searches(self, memory: Memory, rows: list[int]) -> dict[int, Scored]:
        groups, found = apart(self._encoder.before(memory, rows, SEARCH_GROUPS)), dict[int, Scored]()
        for own, row in zip(groups, rows, strict=True):
            arrival = memory.touches.arrivals[row]
            items = (arrival.event.items or ())[:SEARCHED_MAX] if isinstance(arrival.event, Search) else ()
            if items:
                found[row] = self._served.row("search", arrival, own | {"item": self._items(items)}, items=items)
        return found

    def _list(self, memory: Memory, row: int) -> Scored:
        """A list's row; of a user who never clicked, as they were before it was shown."""
        arrival = memory.touches.arrivals[row]
        assert isinstance(arrival.event, Impression)
        groups = self._latest.get(arrival.event.user_id) or apart(self._encoder.before(memory, [row], LIST_GROUPS))[0]
        items = tuple(dict.fromkeys(arrival.event.items))
        return self._served.row(
            "recommendation",
            arrival,
            groups | {"item": self._items(items)},
            event_id=arrival.event.recommendation_id,
            items=items,
        )

    def _remember(self, memory: Memory, arrivals: Sequence[Arrival]) -> None:
        """Encode each user who clicked or bought, as they are now."""
        last = {event.user_id: event for arrival in arrivals if isinstance(event := arrival.event, Click | Order)}
        self._latest.update(
            zip(last, apart(self._encoder.after(memory, list(last.values()), LIST_GROUPS)), strict=True)
        )

    def _items(self, items: Sequence[str]) -> Packed:
        return pack(self._encoder.items([self._catalogue.get(item) or UnknownItem(item) for item in items]))


def numbers(arrivals: Sequence[Arrival], kind: type) -> list[int]:
    """Where a batch has events of a kind."""
    return [number for number, arrival in enumerate(arrivals) if isinstance(arrival.event, kind)]


def shown(arrival: Arrival) -> bool:
    """Whether an impression shows a list."""
    return isinstance(arrival.event, Impression) and bool(arrival.event.recommendation_id and arrival.event.items)
