"""How many answers by the clock, such as lists, go with one batch: as many as its share of the time allows."""

from typing import Final

COUNT_MIN: Final = 8  # answers of a batch, however long they take: a share that is too small for any still ends
COUNT_START: Final = 64
GROWTH_MAX: Final = 2.0
STRETCH_MAX: Final = 3.0  # of the time of a batch, while answers are late and records are not
STRETCH_STEP: Final = 1.25


class RefreshLimit:
    """The number of answers by the clock of the next batch, from the measured cost of one.

    An idle lane gives them all of `latency_ms`; a lane with a backlog of records gives them `share` of it, and a
    lane between the two what its records leave. While that is too little, a lane without a backlog gives them more,
    step by step, up to `STRETCH_MAX` times as much: the fixed cost of a batch is then shared by more of them. The
    cost is measured on batches that had many, since in small batches one costs more. A batch that took too long
    lowers the number at once; otherwise it grows step by step.
    """

    def __init__(self, *, latency_ms: int, share: float) -> None:
        self._latency_ms, self._share = latency_ms, share
        self._cost_ms = latency_ms / COUNT_START
        self._last_max = COUNT_START
        self._stretch, self._has_backlog = 1.0, False

    def count_max(self, load: float) -> int:
        """Of a batch whose records take `load`, from 0 to 1, of what a full batch may have."""
        self._has_backlog = load >= 1.0
        budget_ms = self._stretch * self._latency_ms * (1 - (1 - self._share) * min(load, 1.0))
        self._last_max = max(COUNT_MIN, int(budget_ms / self._cost_ms))
        return self._last_max

    def update(self, answers: int, took_ms: float, *, are_late: bool = False) -> None:
        """Account for the answers of the last batch, which took `took_ms`. `are_late`: more are due than were given."""
        step = STRETCH_STEP if are_late and not self._has_backlog else 1 / STRETCH_STEP
        self._stretch = min(max(self._stretch * step, 1.0), STRETCH_MAX)
        if not answers:
            return
        cost_ms = max(took_ms / answers, 1e-3)
        if cost_ms > self._cost_ms and answers < self._last_max / 2:
            return
        self._cost_ms = max(cost_ms, self._cost_ms / GROWTH_MAX)
