"""The pace: how many records the next batch may have, so that it is done within the latency that was asked for.

What a record costs is learned from batches that a backlog has filled; smaller ones are cheaper than they will be. A
batch that took too long halves the next one at once, and one that did not lets it grow again by and by.
"""

from typing import Final

SIZE_MIN: Final = 100
SIZE_START: Final = 500
GROWTH_MAX: Final = 1.25


class AdaptiveBatchSize:
    """Between `LEAST` and `batch_max` records, those that `latency_ms` is enough for."""

    def __init__(self, *, batch_max: int, latency_ms: int) -> None:
        self._size_max, self._latency_ms = batch_max, latency_ms
        self.records_max = min(SIZE_START, batch_max)

    def update(self, records: int, took_ms: float) -> None:
        """A batch of so many records took so long, from its poll to the last of its caches."""
        if records < self.records_max / 2:
            return
        wanted = records * self._latency_ms / max(took_ms, 1e-3)
        self.records_max = int(
            min(max(wanted, self.records_max / 2, SIZE_MIN), self.records_max * GROWTH_MAX, self._size_max)
        )
