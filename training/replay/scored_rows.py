"""The rows that a worker would have logged for a batch of history: orders, searches, and lists that were shown."""

from collections.abc import Mapping, Sequence
from typing import Final

from contract.events import Click, Impression, Order, Product, Search
from contract.features.declaration import FeatureSet
from contract.features.encoder import Encoder, UnknownItem, list_entities
from contract.features.packing import PackedBlock, pack, split_rows
from contract.messages import ScoredRow, ScoredRowBuilder
from contract.profiles.entity_updates import Arrival
from contract.profiles.store import FoldedBatch

SEARCH_ITEMS_MAX: Final = 100  # items of a search that are looked at
ORDER_GROUPS: Final = ("user", "order", "context")
LIST_GROUPS: Final = ("user", "context")
SEARCH_GROUPS: Final = ("query", "user")


class ScoredRowLog:
    """Makes rows of folded batches, which come in the order of time; `catalogue` is read as it is then.

    A list is encoded as the worker encodes it: for the user as they were after the last click or order before it. So an
    impression must not come in one batch behind a click or order of its user.
    """

    def __init__(self, *, features: FeatureSet, catalogue: Mapping[str, Product]) -> None:
        self._encoder, self._catalogue = Encoder(features), catalogue
        self._row_builder = ScoredRowBuilder(features.digest, "")
        self._latest_groups: dict[
            str, dict[str, PackedBlock]
        ] = {}  # user -> as they are after their last click or order

    def build_rows(self, memory: FoldedBatch) -> dict[int, ScoredRow]:
        """The row of each arrival of a batch that has one, by its number."""
        arrivals = memory.updates.arrivals
        rows = {
            number: self._build_list_row(memory, number)
            for number in find_events(arrivals, Impression)
            if shows_list(arrivals[number])
        }
        rows |= self._build_order_rows(memory, find_events(arrivals, Order))
        rows |= self._build_search_rows(memory, find_events(arrivals, Search))
        self._update_latest_groups(memory, arrivals)
        return rows

    def _build_order_rows(self, memory: FoldedBatch, rows: list[int]) -> dict[int, ScoredRow]:
        groups, arrivals = split_rows(self._encoder.encode_before(memory, rows, ORDER_GROUPS)), memory.updates.arrivals
        return {
            row: self._row_builder.build("order", arrivals[row], own, entities=entities)
            for row, own, entities in zip(rows, groups, list_entities(memory, rows), strict=True)
        }

    def _build_search_rows(self, memory: FoldedBatch, rows: list[int]) -> dict[int, ScoredRow]:
        groups, search_rows = (
            split_rows(self._encoder.encode_before(memory, rows, SEARCH_GROUPS)),
            dict[int, ScoredRow](),
        )
        for own, row in zip(groups, rows, strict=True):
            arrival = memory.updates.arrivals[row]
            items = (arrival.event.items or ())[:SEARCH_ITEMS_MAX] if isinstance(arrival.event, Search) else ()
            if items:
                search_rows[row] = self._row_builder.build(
                    "search", arrival, own | {"item": self._pack_items(items)}, items=items
                )
        return search_rows

    def _build_list_row(self, memory: FoldedBatch, row: int) -> ScoredRow:
        """A list's row; of a user who never clicked, as they were before it was shown."""
        arrival = memory.updates.arrivals[row]
        assert isinstance(arrival.event, Impression)
        groups = (
            self._latest_groups.get(arrival.event.user_id)
            or split_rows(self._encoder.encode_before(memory, [row], LIST_GROUPS))[0]
        )
        items = tuple(dict.fromkeys(arrival.event.items))
        return self._row_builder.build(
            "recommendation",
            arrival,
            groups | {"item": self._pack_items(items)},
            event_id=arrival.event.recommendation_id,
            items=items,
        )

    def _update_latest_groups(self, memory: FoldedBatch, arrivals: Sequence[Arrival]) -> None:
        """Encode each user who clicked or bought, as they are now."""
        last = {event.user_id: event for arrival in arrivals if isinstance(event := arrival.event, Click | Order)}
        self._latest_groups.update(
            zip(last, split_rows(self._encoder.encode_after(memory, list(last.values()), LIST_GROUPS)), strict=True)
        )

    def _pack_items(self, items: Sequence[str]) -> PackedBlock:
        return pack(self._encoder.encode_items([self._catalogue.get(item) or UnknownItem(item) for item in items]))


def find_events(arrivals: Sequence[Arrival], kind: type) -> list[int]:
    """Where a batch has events of a kind."""
    return [number for number, arrival in enumerate(arrivals) if isinstance(arrival.event, kind)]


def shows_list(arrival: Arrival) -> bool:
    """Whether an impression shows a list."""
    return isinstance(arrival.event, Impression) and bool(arrival.event.recommendation_id and arrival.event.items)
