"""Limits of a batch: its size, from the latency that is asked for, and the share of dead letters that is tolerated."""

from typing import Final

from contract.errors import ShopstreamError

SIZE_MIN: Final = 100
SIZE_START: Final = 500
GROWTH_MAX: Final = 1.25


class AdaptiveBatchSize:
    """The number of records of the next batch, from `SIZE_MIN` to `batch_max`: they take about `latency_ms`.

    The cost of a record is measured on batches that a backlog has filled; in small batches a record costs more. A
    batch that took too long halves the size at once; otherwise it grows again step by step.
    """

    def __init__(self, *, batch_max: int, latency_ms: int) -> None:
        self._size_max, self._latency_ms = batch_max, latency_ms
        self.records_max = min(SIZE_START, batch_max)

    def update(self, records: int, took_ms: float, refreshing_ms: float = 0.0) -> None:
        """Account for a batch of `records` that took `took_ms` from the end of its poll to its last cache write.

        Of this, `refreshing_ms` went to lists. Their number has a limit of its own: fewer records would not make lists
        faster, and would leave events to wait in Kafka.
        """
        if records < self.records_max / 2:
            return
        wanted = records * self._latency_ms / max(took_ms - refreshing_ms, 1e-3)
        self.records_max = int(
            min(max(wanted, self.records_max / 2, SIZE_MIN), self.records_max * GROWTH_MAX, self._size_max)
        )


class TooManyDeadLetters(ShopstreamError):
    """More records were bad than the settings allow. The worker stops, and no record of the batch is lost."""


class DeadLetterBreaker:
    """A circuit breaker: counts dead letters in windows of `window` records, and stops the worker above `share_max`.

    Most records being bad means that something upstream is broken.
    """

    def __init__(self, *, share_max: float, window: int) -> None:
        self._share_max, self._window = share_max, window
        self._records = self._bad = 0

    def record(self, records: int, bad: int) -> None:
        """Raise `TooManyDeadLetters` when a full window has more than its share of bad records."""
        self._records += records
        self._bad += bad
        if self._records < self._window:
            return
        records, bad = self._records, self._bad
        self._records = self._bad = 0
        if bad > self._share_max * records:
            raise TooManyDeadLetters(
                f"At most {self._share_max:.0%} of records should be dead letters. Found {bad} of the last {records}."
            )
