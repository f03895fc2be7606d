"""How long a run waits for what catches up: as long as something advances, since a busy machine is slow at everything.

A joiner that has got another one's shards reads their log again. With a fixed time, a run on a busy machine took one
that was still reading for one that stood still.
"""

import time
from collections.abc import Callable, Hashable
from typing import Final

SHARES: Final = 3  # what advances and never arrives is given up as well


class Patience:
    """Ends where nothing has changed for `still_s`, and after three times as long in any case."""

    def __init__(self, *, still_s: float, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._still_s, self._clock_s = still_s, clock_s
        self._begin_s = self._changed_s = clock_s()
        self._state: Hashable = None

    @property
    def spent_s(self) -> float:
        """Seconds since the beginning."""
        return self._clock_s() - self._begin_s

    def is_over(self, state: Hashable) -> bool:
        """Whether to give up; `state`: how far everything is now."""
        now_s = self._clock_s()
        if state != self._state:
            self._state, self._changed_s = state, now_s
        return now_s - self._changed_s > self._still_s or now_s - self._begin_s > SHARES * self._still_s
