"""A topic in portions: what lies between two looks may be more than should be in memory at once."""

from collections.abc import Mapping

from contract.settings import Kafka
from training.feed import Feed


class Portions(Feed):
    """A feed that reads about `most` records of each partition at a time.

    `behind`: a partition without a position is read from so many records before its end, and not from its beginning.
    """

    def __init__(self, *, kafka: Kafka, topic: str, most: int, behind: int | None = None) -> None:
        super().__init__(kafka=kafka, topic=topic)
        self.most, self._behind = most, behind

    def _ask(self, positions: Mapping[str, int]) -> tuple[dict[int, int], dict[int, int]]:
        starts, ends = super()._ask(positions)
        if self._behind is not None:
            new = {p for p in starts if f"{self._topic}/{p}" not in positions}
            starts |= {p: max(starts[p], ends[p] - self._behind) for p in new}
        return starts, {p: min(end, starts[p] + self.most) for p, end in ends.items()}
