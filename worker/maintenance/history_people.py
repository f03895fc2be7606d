"""Adds the people of a history to the samples of items, which belong to all generations of the state alike.

Samples do not depend on order or repetition, so this may be done again, and needs no position in the history.
"""

from collections.abc import Callable, Iterable
from itertools import islice
from typing import Final

from contract.history.format import HistoricEvent
from contract.history.sources import history_source
from contract.profiles.entity_kinds import BUILT_IN_KINDS, EntityKinds
from contract.profiles.entity_updates import Arrival, UpdateBatch, to_updates
from contract.profiles.erasures import NO_ERASURES, Erasures
from worker.people.redis_store import TTL_MS

COUNTED_KINDS: Final = ("clicks", "orders")
BATCH_EVENTS: Final = 5_000


def count_people(
    events: Iterable[HistoricEvent],
    add: Callable[[UpdateBatch], object],
    *,
    digest: str,
    last_ms: int,
    erasures: Erasures = NO_ERASURES,
    entity_kinds: EntityKinds = BUILT_IN_KINDS,
) -> int:
    """Pass the clicks and orders of a history to `add`, in batches; returns their number.

    Those more than 60 days before `last_ms`, the end of the history, weigh nothing and are left out. `digest`: of the
    history.
    """
    recent = (h for h in events if h.kind in COUNTED_KINDS and last_ms - TTL_MS < h.event.ts_ms <= last_ms)
    arrivals = (
        Arrival(history_source(kind, digest, 0), number, event, kind) for number, (kind, event) in enumerate(recent)
    )
    count = 0
    while batch := list(islice(arrivals, BATCH_EVENTS)):
        add(to_updates(batch, erasures=erasures, kinds=entity_kinds))
        count += len(batch)
    return count
