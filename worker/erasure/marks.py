"""Notices that a Redis went back to an earlier state, from before an erasure that this worker has executed there.

A snapshot, or a replica that lagged, may hold the person again while every merged offset is what it should be. So each
worker compares its progress with what it wrote: once a second, and with the confirmed offsets when it takes a partition
over. Where the data of persons lie on several servers, each of them has a copy of the progress, its mark.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from contract.hashing import BUCKETS
from contract.messages import to_json
from worker.erasure.progress import NO_OFFSETS, ErasureOffsets, ErasureProgress, decode_offsets, find_lower
from worker.ops import metrics
from worker.redis.client import RedisClient, WrongType
from worker.redis.cluster import RedisCluster

log = logging.getLogger(__name__)
WENT_BACK: Final = (
    "Redis should hold the erasure progress that was written. Found an earlier one: "
    "the erasures since then are executed and confirmed again."
)


class MarkPlace(NamedTuple):
    """Where a mark is: a hash with the fields of the progress hash."""

    client: RedisClient
    key: str


class ErasureMarks:
    """The progress of this worker's fields, as it should be in the progress hash and in all marks."""

    def __init__(
        self,
        *,
        progress: ErasureProgress,
        places: Sequence[MarkPlace],
        fetch_confirmed: Callable[[], ErasureOffsets],
    ) -> None:
        """`fetch_confirmed` returns the offsets up to which erasures are confirmed."""
        self.progress, self._marks = progress, places
        self._fetch_confirmed = fetch_confirmed
        self._written: dict[str, ErasureOffsets] = {}  # by field; what this worker does not own is left out

    def find_behind(self, fields: Sequence[str]) -> list[ErasureOffsets]:
        """For each field that is behind what was executed, the offsets from which on that has to be done again, once.

        Where Redis went back, another confirmation is requested; where it lost everything, no data came back. Raises
        `Unavailable`.
        """
        if not fields:
            self._written = {}
            return []
        stored, *marks = self._read_marks(fields)
        expected = {field: self._written[field] for field in fields if field in self._written}
        if taken_over := [field for field in fields if field not in expected and field in stored]:
            confirmed = self._fetch_confirmed()
            expected |= {field: raise_offsets(stored[field], confirmed) for field in taken_over}
        behind, reverted = dict[str, ErasureOffsets](), dict[str, ErasureOffsets]()
        for field, offsets_expected in expected.items():
            for offsets in (stored.get(field), *(mark.get(field) for mark in marks)):
                if lower := find_lower(offsets or NO_OFFSETS, offsets_expected):
                    behind[field] = lower_offsets(behind.get(field, offsets_expected), lower)
                    if offsets is not None:
                        reverted[field] = lower_offsets(reverted.get(field, NO_OFFSETS), lower)
        self._request_confirmation(reverted, stored)
        self._written = expected | behind
        return list(behind.values())

    def offsets(self, field: str) -> ErasureOffsets:
        """What Redis holds of an owned field, as of the last `find_behind` or `write`."""
        return self._written.get(field, NO_OFFSETS)

    def write(self, fields: Sequence[str], offsets: ErasureOffsets) -> None:
        """Record that erasures before these offsets are executed; raises `Unavailable`."""
        changed = [field for field in fields if self._written.get(field) != offsets]
        flat = [part for field in changed for part in (field, to_json(offsets))]
        if flat:
            for place in self._marks:
                place.client.pipeline([("HSET", place.key, *flat)])
            self.progress.write(changed, offsets)  # last: a mark below it has gone back
            self._written |= dict.fromkeys(changed, offsets)

    @property
    def _places(self) -> list[MarkPlace]:
        """The progress hash of the serving generation first."""
        return [MarkPlace(self.progress.client, self.progress.key), *self._marks]

    def _request_confirmation(
        self, reverted: Mapping[str, ErasureOffsets], stored: Mapping[str, ErasureOffsets]
    ) -> None:
        """First lower the progress: nothing is confirmed before it is executed again."""
        if not reverted:
            return
        log.warning(WENT_BACK)
        requests: ErasureOffsets = NO_OFFSETS
        for field, offsets in reverted.items():
            self.progress.write([field], lower_offsets(stored.get(field, NO_OFFSETS), offsets))
            requests = lower_offsets(requests, offsets)
        self.progress.request_confirmation(requests)

    def _read_marks(self, fields: Sequence[str]) -> list[dict[str, ErasureOffsets]]:
        """The fields of each mark, of those that it has."""
        marks = list[dict[str, ErasureOffsets]]()
        for client in dict.fromkeys(place.client for place in self._places):
            keys = [place.key for place in self._places if place.client is client]
            marks += [read_fields(values, fields) for values in read_hashes(client, keys, fields)]
        return marks


def read_hashes(client: RedisClient, keys: Sequence[str], fields: Sequence[str]) -> list[Any]:
    """The values of fields of each hash; a key of another type is deleted, and what it held counts as lost."""
    while True:
        try:
            return client.pipeline([("HMGET", key, *fields) for key in keys])
        except WrongType as error:
            metrics.UNREADABLE_KEYS.labels("erasures").inc(client.delete_other_type(error.key, "hash"))


def read_fields(values: Sequence[bytes | None], fields: Sequence[str]) -> dict[str, ErasureOffsets]:
    return {field: decode_offsets(value) for field, value in zip(fields, values, strict=True) if value is not None}


def raise_offsets(offsets: ErasureOffsets, others: ErasureOffsets) -> dict[str, int]:
    return {name: max(offsets.get(name, 0), others.get(name, 0)) for name in offsets.keys() | others.keys()}


def lower_offsets(offsets: ErasureOffsets, others: ErasureOffsets) -> dict[str, int]:
    """`offsets`, and `others` where these are lower or the only ones."""
    return {**offsets, **{name: min(offset, offsets.get(name, offset)) for name, offset in others.items()}}


def list_places(client: RedisClient, cache_client: RedisClient, prefix: str) -> list[MarkPlace]:
    """Where marks are needed besides the progress hash: a server that can go back without it.

    In a cluster that is each one: every bucket has a mark. `prefix`: of all keys, whatever generation serves.
    """
    places = []
    if isinstance(client, RedisCluster):
        places += [MarkPlace(client, f"{prefix}erasures:{{{bucket}}}") for bucket in range(BUCKETS)]
    if cache_client is not client:
        places.append(MarkPlace(cache_client, f"{prefix}erasures"))
    return places
