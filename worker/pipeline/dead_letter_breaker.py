"""Flood: when most of what comes in is bad, something upstream is broken: stop instead of filling the dead letters."""

from contract.errors import ShopstreamError


class TooManyDeadLetters(ShopstreamError):
    """More records were bad than the settings allow: the worker ends, nothing of it is lost, a human looks."""


class DeadLetterBreaker:
    """Counts records and dead letters in windows of `window` records."""

    def __init__(self, *, share_max: float, window: int) -> None:
        self._share_max, self._window = share_max, window
        self._records = self._bad = 0

    def record(self, records: int, bad: int) -> None:
        """Raise `TooManyDeadLetters` when a whole window has held more than its share of bad records."""
        self._records += records
        self._bad += bad
        if self._records < self._window:
            return
        records, bad, self._records, self._bad = self._records, self._bad, 0, 0
        if bad > self._share_max * records:
            raise TooManyDeadLetters(
                f"At most {self._share_max:.0%} of records should be dead letters. Found {bad} of the last {records}."
            )
