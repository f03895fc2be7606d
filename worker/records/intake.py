"""The readers of a process: by the settings, with what they leave out or doubt as metrics and log lines."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Final

from contract.events.reading import EventReaders, make_readers
from contract.mapping.units import name_unit_settings
from contract.settings.mapping import read_maps
from contract.settings.reading import Settings
from worker.ops import metrics

log = logging.getLogger(__name__)
WARN_EVERY_S: Final = 60.0


class IntakeCounts:
    """Counts ignored and doubtful fields; warns of each doubtful one once a minute.

    `unit_settings`: what declares the unit of a field in maps, by kind and field.
    """

    def __init__(
        self,
        clock_s: Callable[[], float] = time.monotonic,
        unit_settings: Mapping[tuple[str, str], Sequence[str]] = MappingProxyType({}),
    ) -> None:
        self._clock_s, self._unit_settings = clock_s, unit_settings
        self._next_warning_s: dict[tuple[str, str, str], float] = {}

    def count_ignored(self, kind: str, field: str) -> None:
        metrics.FIELDS_IGNORED.labels(kind, field).inc()

    def count_doubtful(self, kind: str, field: str, unit: str) -> None:
        metrics.FIELDS_DOUBTFUL.labels(kind, field, unit).inc()
        now_s = self._clock_s()
        if now_s < self._next_warning_s.get((kind, field, unit), now_s):
            return
        self._next_warning_s[kind, field, unit] = now_s + WARN_EVERY_S
        if unit == "no_rate":
            log.warning(
                "Amounts of %s should be in a currency of `intake.rates`. Found others, taken as they are.", kind
            )
        else:
            names = [*self._unit_settings.get((kind, field), ()), "intake.times"]
            log.warning(
                "`%s` of %s should be in the unit that %s declares. Found times that look like `%s`.",
                field,
                kind,
                " or ".join(f"`{name}`" for name in names),
                unit,
            )


def make_event_readers(settings: Settings) -> EventReaders:
    """The readers of all kinds, which count in the metrics of this process."""
    counts = IntakeCounts(unit_settings=name_unit_settings(read_maps(settings.map)))
    return make_readers(settings.intake, settings.tasks, counts.count_ignored, counts.count_doubtful)
