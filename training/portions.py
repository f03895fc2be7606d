"""A topic in portions: what lies between two looks may be more than should be in memory at once."""

from collections.abc import Mapping

from contract.settings import Kafka
from training.feed import Feed


class Portions(Feed):
    """A feed that reads about `most` records of each partition at a time."""

    def __init__(self, *, kafka: Kafka, topic: str, most: int) -> None:
        super().__init__(kafka=kafka, topic=topic)
        self._most = most

    def _ask(self, positions: Mapping[str, int]) -> tuple[dict[int, int], dict[int, int]]:
        starts, ends = super()._ask(positions)
        return starts, {partition: min(end, starts[partition] + self._most) for partition, end in ends.items()}
