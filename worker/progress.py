"""Progress: how far behind each partition is, and whether one stands still although there is something to read."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from worker import metrics
from worker.intake import Place


@dataclass(slots=True)
class Progress:
    """Compares positions with ends at each `note`; a partition with lag should move within `stall_s`."""

    stall_s: float
    _seen: dict[Place, tuple[int, float]] = field(default_factory=dict)  # position, and when it last moved
    stalled: str | None = None

    def note(self, positions: Mapping[Place, int], ends: Mapping[Place, int], now_s: float) -> None:
        stalled = None
        for place in self._seen.keys() - ends.keys():
            del self._seen[place]
            metrics.LAG.remove(place.topic, str(place.partition))  # whoever reads it now tells how far it is
        for place, end in ends.items():
            at = positions.get(place, 0)
            metrics.LAG.labels(place.topic, str(place.partition)).set(max(0, end - at))
            before, since = self._seen.get(place, (-1, now_s))
            self._seen[place] = (at, since if at == before and at < end else now_s)
            stands_s = now_s - self._seen[place][1]
            if stands_s > self.stall_s:
                stalled = f"{place.topic}/{place.partition} has stood at {at} of {end} for {stands_s:.0f} s."
        self.stalled = stalled
