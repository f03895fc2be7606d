"""Forgetting: carries erasures out, between two batches, on what this worker alone writes.

Each worker deletes from its own sources' slices, the claims of its own partitions, and the caches that its lane writes;
then it marks how far it is, for each partition that it holds. It answers and folds nothing that an erasure covers from
the moment it has read it, so nothing comes back. `worker.confirming` tells when all have done so.
"""

import logging
import time
from collections.abc import Callable, Mapping
from typing import Final

from contract.erasures import Erasures
from contract.errors import ShopstreamError
from contract.memory import Merged
from worker.caches import Caches
from worker.claims import Claims
from worker.erasure_log import ErasureLog
from worker.erasure_marks import NOWHERE, ErasureMarks, Reached, holder
from worker.intake import Place
from worker.lanes import Lane
from worker.positions import Positions
from worker.slice_eraser import SliceEraser

log = logging.getLogger(__name__)
MARKED_EVERY_S: Final = 10.0


class FoldAgain(ShopstreamError):
    """What an erased person did after the erasure had been folded with what came before it: it is folded alone now."""


class Forgetting:
    """What one score worker does about erasures."""

    def __init__(
        self,
        *,
        lane: Lane,
        erasure_log: ErasureLog,
        eraser: SliceEraser,
        marks: ErasureMarks,
        claims: Claims,
        caches: Caches,
        positions: Positions,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._lane, self._log, self._eraser, self._marks = lane, erasure_log, eraser, marks
        self._claims, self._caches, self._positions = claims, caches, positions
        self._clock_s = clock_s
        self._fresh: set[str] = set()
        self._tended = False
        self._marked_s = float("-inf")

    @property
    def erasures(self) -> Erasures:
        return self._log.erasures

    def load(self) -> bool:
        """Read on until all that was there at first is read; whether it is."""
        self._fresh |= self._log.follow()
        return self._log.ready

    def begin(self, sources: Mapping[Place, str], merged: Merged) -> None:
        """Before partitions are folded on: forget what was not yet forgotten in their slices.

        `merged` is what Redis holds, and follows what is written. Raises `StaleState` or `Unavailable`.
        """
        self._tended = False
        if not self._log.last or not sources:
            return
        marks = self._marks.read()
        behind = self._behind([marks.get(holder(self._lane.name, place), NOWHERE) for place in sources])
        until_ms = self.erasures.until_ms
        known = {user: ms for user, ms in until_ms.items() if user not in behind}
        self._eraser.erase(known, sources, merged, doubted=False)
        self._eraser.erase({user: until_ms[user] for user in behind}, sources, merged, doubted=True)

    def tend(self) -> bool:
        """Carry out what has come since; whether something has to be folded again, which is the caller's to begin.

        Raises `StaleState` or `Unavailable`; what was not carried out then is, the next time.
        """
        self._fresh |= self._log.follow()
        now_s = self._clock_s()
        if not self._fresh and self._tended and now_s < self._marked_s + MARKED_EVERY_S:
            return False
        places = list(self._positions.committed)
        until_ms = self.erasures.until_ms
        fresh = {f"user:{user}": until_ms[f"user:{user}"] for user in self._fresh}
        again = self._eraser.erase(fresh, self._positions.sources, self._positions.merged, doubted=True)
        self._forget_answers(fresh, places)
        self._marks.write([holder(self._lane.name, place) for place in places], self.reached())
        if fresh:
            log.info("Forgot %d people in what this worker writes.", len(fresh))
        self._fresh, self._tended, self._marked_s = set(), True, now_s
        return again

    def reached(self) -> Reached:
        """How far the topic of erasures is read, as it stands in marks."""
        return {self._marks.name(place): at for place, at in self._log.read.items()}

    def _forget_answers(self, fresh: Mapping[str, int], places: list[Place]) -> None:
        """Claims and caches: of who is new, and of who has not been forgotten by every holder of these partitions."""
        behind = dict(fresh)
        if not self._tended and self._log.last:
            marks = self._marks.read()
            found = self._behind([marks.get(holder(self._lane.name, place), NOWHERE) for place in places])
            behind |= {user: self.erasures.until_ms[user] for user in found}
        users = {user.removeprefix("user:"): ms for user, ms in behind.items()}
        if not users:
            return
        if "orders" in self._lane.folds:  # the lane that decides; the other one makes lists and rankings
            self._claims.forget(users, lambda topic, n, offset: self._positions.is_answered(Place(topic, n), offset))
        else:
            self._caches.forget(users)

    def _behind(self, marks: list[Reached]) -> set[str]:
        """Users (`user:ID`) whose erasure lies beyond some of these marks."""
        least = {
            place: min((mark.get(self._marks.name(place), 0) for mark in marks), default=0) for place in self._log.read
        }
        return {f"user:{user}" for user, one in self._log.last.items() if one.offset >= least.get(one.place, 0)}
