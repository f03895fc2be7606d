"""Scored rows of historic events, as a worker would have logged them: orders, searches and displayed lists."""

from collections.abc import Mapping, Sequence
from typing import Final

from contract.events.model import Click, Impression, Order, Product, Search
from contract.features.declaration import FeatureSet
from contract.features.encoder import Encoder, UnknownItem, list_entities
from contract.features.packing import PackedBlock, pack, split_rows
from contract.graphs import DECIDE, RECOMMEND, SEARCH
from contract.messages import ScoredRow, ScoredRowBuilder
from contract.profiles.entity_updates import Arrival
from contract.profiles.store import FoldedBatch

SEARCH_ITEMS_MAX: Final = 100  # items of a search that are encoded


class ScoredRowLog:
    """Builds the rows of folded batches, which arrive in order of time; `catalogue` has the products as of the batch.

    As in the worker, a list is encoded with the user's state after the last click or order before it. So an impression
    must not follow a click or order of its user in the same batch.
    """

    def __init__(self, *, features: FeatureSet, catalogue: Mapping[str, Product]) -> None:
        self._encoder = Encoder(features)
        self._catalogue = catalogue
        self._row_builder = ScoredRowBuilder(features.digest, "")
        self._latest_groups: dict[str, dict[str, PackedBlock]] = {}  # by user, after their last click or order

    def build_rows(self, memory: FoldedBatch) -> dict[int, ScoredRow]:
        """The rows of a batch, by the index of their arrival."""
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
        blocks = split_rows(self._encoder.encode_before(memory, rows, DECIDE.event_groups))
        arrivals = memory.updates.arrivals
        return {
            row: self._row_builder.build("order", arrivals[row], groups, entities=entities)
            for row, groups, entities in zip(rows, blocks, list_entities(memory, rows), strict=True)
        }

    def _build_search_rows(self, memory: FoldedBatch, rows: list[int]) -> dict[int, ScoredRow]:
        search_rows = dict[int, ScoredRow]()
        blocks = split_rows(self._encoder.encode_before(memory, rows, SEARCH.event_groups))
        for groups, row in zip(blocks, rows, strict=True):
            arrival = memory.updates.arrivals[row]
            items = (arrival.event.items or ())[:SEARCH_ITEMS_MAX] if isinstance(arrival.event, Search) else ()
            if items:
                groups = groups | {"item": self._pack_items(items)}
                search_rows[row] = self._row_builder.build("search", arrival, groups, items=items)
        return search_rows

    def _build_list_row(self, memory: FoldedBatch, row: int) -> ScoredRow:
        """The row of a list; a user without clicks or orders is encoded as before the list was displayed."""
        arrival = memory.updates.arrivals[row]
        assert isinstance(arrival.event, Impression)
        groups = self._latest_groups.get(arrival.event.user_id)
        if groups is None:
            (groups,) = split_rows(self._encoder.encode_before(memory, [row], RECOMMEND.event_groups))
        items = tuple(dict.fromkeys(arrival.event.items))
        return self._row_builder.build(
            "recommendation",
            arrival,
            groups | {"item": self._pack_items(items)},
            event_id=arrival.event.recommendation_id,
            items=items,
        )

    def _update_latest_groups(self, memory: FoldedBatch, arrivals: Sequence[Arrival]) -> None:
        """Encode each user who clicked or ordered in this batch, as of its end."""
        events = [event for arrival in arrivals if isinstance(event := arrival.event, Click | Order)]
        last = {event.user_id: event for event in events if event.user_id}
        blocks = split_rows(self._encoder.encode_after(memory, list(last.values()), RECOMMEND.event_groups))
        self._latest_groups.update(zip(last, blocks, strict=True))

    def _pack_items(self, items: Sequence[str]) -> PackedBlock:
        return pack(self._encoder.encode_items([self._catalogue.get(item) or UnknownItem(item) for item in items]))


def find_events(arrivals: Sequence[Arrival], kind: type) -> list[int]:
    """The indices of the arrivals whose event is of a kind."""
    return [number for number, arrival in enumerate(arrivals) if isinstance(arrival.event, kind)]


def shows_list(arrival: Arrival) -> bool:
    """Whether an arrival is the impression of a list."""
    return isinstance(arrival.event, Impression) and bool(arrival.event.recommendation_id and arrival.event.items)
