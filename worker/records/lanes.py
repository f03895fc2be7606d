"""Lanes: which topics the workers of one group read, and what they do with each.

A slice has one writer and a list one lane: orders are folded by the orders lane and only watched by the browsing lane.
A dead letter has one writer too: the lane that folds a kind of events, or the one that inspects it.
"""

from typing import Final, NamedTuple


class Lane(NamedTuple):
    """The kinds of events that one lane reads.

    `folded_kinds`: it writes their profiles. `watched_kinds`: it only reacts to them. `inspected_kinds`: others read
    them, and it writes their dead letters and nothing else. `confirmed_kinds`: every worker reads them for itself; the
    owner of a partition in this lane commits its offset once the request is carried out. `gathering_ms`: for so long
    a broker gathers records before it answers a fetch. Answers come that much later, and fetches cost less.
    """

    name: str
    folded_kinds: tuple[str, ...]
    watched_kinds: tuple[str, ...] = ()
    inspected_kinds: tuple[str, ...] = ()
    confirmed_kinds: tuple[str, ...] = ()
    gathering_ms: int = 0

    @property
    def kinds(self) -> tuple[str, ...]:
        return self.folded_kinds + self.watched_kinds + self.inspected_kinds + self.confirmed_kinds


LANES: Final = {
    lane.name: lane
    for lane in (
        Lane("orders", ("orders", "reviews", "judgements"), inspected_kinds=("labels",), confirmed_kinds=("erasures",)),
        Lane(
            "browsing",
            ("clicks", "impressions", "searches"),
            watched_kinds=("orders",),
            inspected_kinds=("products",),
            gathering_ms=20,
        ),
    )
}
