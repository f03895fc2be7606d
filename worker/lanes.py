"""Lanes: which topics one kind of worker reads, which of them it folds, and which it only watches.

A slice has one writer and a list one lane: orders are folded by the orders lane and only watched by browsing.
"""

from typing import Final, NamedTuple


class Lane(NamedTuple):
    """`folds`: kinds whose profiles this lane writes; `watches`: kinds that it only reacts to."""

    name: str
    folds: tuple[str, ...]
    watches: tuple[str, ...] = ()

    @property
    def kinds(self) -> tuple[str, ...]:
        return self.folds + self.watches


LANES: Final = {
    lane.name: lane
    for lane in (
        Lane("orders", ("orders", "reviews", "judgements")),
        Lane("browsing", ("clicks", "impressions", "searches"), ("orders",)),
    )
}
