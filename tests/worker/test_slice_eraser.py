"""Erasing slices: whatever stood in Redis before, after it and a fold from where it says, nothing covered ever was."""

import bisect
import itertools
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TypeAlias

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contract.erasures import Erasures
from contract.events import AHEAD_MS_MAX, Erasure
from contract.hashing import BUCKETS
from contract.memory import Merged
from contract.touches import Arrival
from demo.servers.redis_server import RedisServer
from tests.contract.test_erasure_laws import erased_logs
from tests.contract.test_profile_laws import differences
from tests.oracle.feeding import Feeder, cut, entities_of, slices_of
from tests.oracle.logs import SOURCES, forgotten, oracle_of
from worker.intake import Place
from worker.profile_store import RedisProfiles
from worker.redis_client import RedisClient
from worker.slice_eraser import SliceEraser

PLACES = {Place(family, int(number)): f"{family}/{number}" for family, number in (s.split("/") for s in SOURCES)}
NewStore: TypeAlias = Callable[[], RedisProfiles]


class Clock:
    """When Kafka was given each record: as early as an event's time allows, and never before the one that precedes."""

    def __init__(self, arrivals: Sequence[Arrival]) -> None:
        self.times: dict[str, list[tuple[int, int]]] = {source: [] for source in SOURCES}
        for source, offset, event, *_ in arrivals:
            times = self.times[source]
            times.append((max(event.ts_ms - AHEAD_MS_MAX, times[-1][0] if times else 0), offset))

    def offsets_at(self, places: Iterable[Place], ms: int) -> Mapping[Place, int]:
        return {place: self.offset_at(self.times[PLACES[place]], ms) for place in places}

    @staticmethod
    def offset_at(times: Sequence[tuple[int, int]], ms: int) -> int:
        at = bisect.bisect_left(times, (ms, -1))
        return times[at][1] if at < len(times) else times[-1][1] + 1 if times else 0


@pytest.fixture(scope="module")
def new_store(redis_server: RedisServer) -> Iterator[NewStore]:
    client = RedisClient(url=redis_server.url, timeout_s=20)
    yield lambda: RedisProfiles(client=client, prefix=f"{uuid.uuid4().hex}:")
    client.close()
    redis_server.flush()


def folded(store: RedisProfiles, arrivals: Sequence[Arrival], sizes: Iterable[int] = (9,)) -> Merged:
    """Fold a log without any erasure, and bring every bucket up; returns what is merged."""
    feeder = Feeder(store)
    for batch in cut(arrivals, itertools.cycle(sizes)):
        feeder.feed(batch)
    after = feeder.after(arrivals, range(BUCKETS))
    store.merge({}, feeder.merged, after)
    return store.merged(SOURCES)


def fold_on(store: RedisProfiles, arrivals: Sequence[Arrival], merged: Merged, erasures: Erasures) -> None:
    """Fold what some bucket has not merged, as recovery does, now knowing whom to forget."""
    starts = {source: min(of.get(source, 0) for of in merged.values()) for source in SOURCES}
    Feeder(store, erasures).feed([arrival for arrival in arrivals if arrival.offset >= starts[arrival.source]])


@given(log=erased_logs(), sizes=st.lists(st.integers(1, 9), min_size=1), data=st.data())
@settings(max_examples=60, deadline=None)
def test_what_is_erased_and_folded_on_is_what_a_clean_pass_makes(
    new_store: NewStore, log: tuple[list[Arrival], list[Erasure]], sizes: list[int], data: st.DataObject
) -> None:
    # given a worker that learns of erasures with a part of the log in Redis
    arrivals, erasures = log
    store, known = new_store(), Erasures(erasures)
    merged = folded(store, arrivals[: data.draw(st.integers(0, len(arrivals)))], sizes)
    eraser = SliceEraser(profiles=store, offsets_at=Clock(arrivals).offsets_at)
    # when
    eraser.erase(known.until_ms, PLACES, merged, doubted=True)
    assert merged == store.merged(SOURCES)
    fold_on(store, arrivals, merged, known)
    # then
    found = {entity: dict(of) for entity, of in slices_of(store, entities_of(arrivals)).items()}
    assert differences(oracle_of(arrivals, erasures), found) == []
    # and whoever looks again finds nothing to do
    assert not eraser.erase(known.until_ms, PLACES, store.merged(SOURCES), doubted=False)
    again = {entity: dict(of) for entity, of in slices_of(store, entities_of(arrivals)).items()}
    assert again == found
    assert forgotten(erasures) == known.until_ms
