"""Lanes: which topics one kind of worker reads, which of them it folds, and which it only watches or inspects.

A slice has one writer and a list one lane: orders are folded by the orders lane and only watched by browsing. A dead
letter has one writer too: the lane that folds a kind, or inspects it because its readers are many or read it again.
"""

from typing import Final, NamedTuple


class Lane(NamedTuple):
    """`folds`: kinds whose profiles this lane writes; `watches`: kinds that it only reacts to.

    `inspects`: kinds that others read, of which this lane writes the dead letters and nothing else. `confirms`: kinds
    that every worker reads for itself; who holds a partition here moves its position, when what is asked is done.
    """

    name: str
    folds: tuple[str, ...]
    watches: tuple[str, ...] = ()
    inspects: tuple[str, ...] = ()
    confirms: tuple[str, ...] = ()

    @property
    def kinds(self) -> tuple[str, ...]:
        return self.folds + self.watches + self.inspects + self.confirms


LANES: Final = {
    lane.name: lane
    for lane in (
        Lane("orders", ("orders", "reviews", "judgements"), inspects=("labels",), confirms=("erasures",)),
        Lane("browsing", ("clicks", "impressions", "searches"), watches=("orders",), inspects=("products",)),
    )
}
