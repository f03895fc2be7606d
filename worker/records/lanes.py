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
    folded_kinds: tuple[str, ...]
    watched_kinds: tuple[str, ...] = ()
    inspected_kinds: tuple[str, ...] = ()
    confirmed_kinds: tuple[str, ...] = ()

    @property
    def kinds(self) -> tuple[str, ...]:
        return self.folded_kinds + self.watched_kinds + self.inspected_kinds + self.confirmed_kinds


LANES: Final = {
    lane.name: lane
    for lane in (
        Lane("orders", ("orders", "reviews", "judgements"), inspected_kinds=("labels",), confirmed_kinds=("erasures",)),
        Lane(
            "browsing", ("clicks", "impressions", "searches"), watched_kinds=("orders",), inspected_kinds=("products",)
        ),
    )
}
