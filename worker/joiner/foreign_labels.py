"""Warns of labels that name another user than the event that they judge: their events become negatives by silence."""

import logging
import time
from collections.abc import Callable, Sequence
from typing import Final

from contract.joining.output import ForeignLabel

log = logging.getLogger(__name__)
WARN_EVERY_S: Final = 60.0


class ForeignLabelLog:
    """Warns once a minute for each task, with the number since the last warning and the latest label."""

    def __init__(self, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._clock_s = clock_s
        self._next_warning_s: dict[str, float] = {}
        self._counts: dict[str, int] = {}

    def report(self, labels: Sequence[ForeignLabel]) -> None:
        for label in labels:
            self._counts[label.task] = self._counts.get(label.task, 0) + 1
        now_s = self._clock_s()
        for label in {label.task: label for label in labels}.values():
            if now_s >= self._next_warning_s.get(label.task, now_s):
                self._next_warning_s[label.task] = now_s + WARN_EVERY_S
                warn(label, self._counts.pop(label.task))


def warn(label: ForeignLabel, count: int) -> None:
    log.warning(
        "`user_id` of a label should be that of its order, of a guest `guest:ID`. Found another one in %d labels of "
        "`%s`, the latest %s of the event %s: they are not joined, and their events may be learned as negatives.",
        count,
        label.task,
        label.event_id,
        label.row_id,
    )
