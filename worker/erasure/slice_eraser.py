"""Deletes slices of erased users, bucket by bucket, under the guard of `merged`; only the owner of a source does it.

Events that an erasure covers have to be as if they were never folded. A slice that may contain one is deleted. If the
slice may also contain later events, the same script call sets `merged` of its bucket back to before them, so that
recovery folds them again, now with the erasure: there is no second way to build a slice. The user's latest items of a
source are deleted and folded again together with its slice, of which they are a part, and so are the logins of a guest;
those of a user are left to `worker.erasure.guest_eraser`, since they tell which guests to erase. Slices of a history
from before the topics have no owner and no log: every worker that executes an erasure deletes those of its user.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain, islice
from typing import Any, Final, NamedTuple

import numpy as np

from contract.errors import StaleState
from contract.events.model import AHEAD_MS_MAX
from contract.hashing import bucket_of
from contract.profiles.histories import is_history, read_entries
from contract.profiles.logins import LOGINS, has_erased_logins, is_guest_entity
from contract.profiles.record import RECORD, source_family
from contract.profiles.store import MergedOffsets
from transport.records import TopicPartition
from worker.state.history_registry import HistoryRegistry
from worker.state.profile_store import RedisProfileStore

# KEYS: merged:{bucket}, then the profile and the history of each user. ARGV: number of sources; for each its name, the
# expected offset ('' for none) and the new one ('' to keep it); then a user's number, the source to delete, and the
# field of the logins to delete, or the source again. Offsets are written first: in a script a full Redis refuses HSET,
# and not HDEL; a slice that is deleted at an offset that stays would never be folded again.
DELETE_SLICES: Final = """
local call = redis.call
local last = 3 * tonumber(ARGV[1]) + 1
for at = 2, last, 3 do
  if (call('HGET', KEYS[1], ARGV[at]) or '') ~= ARGV[at + 1] then return 0 end
end
for at = 2, last, 3 do
  if ARGV[at + 2] ~= '' then call('HSET', KEYS[1], ARGV[at], ARGV[at + 2]) end
end
for at = last + 1, #ARGV, 3 do
  for n = 2 * ARGV[at], 2 * ARGV[at] + 1 do call('HDEL', KEYS[n], ARGV[at + 1], ARGV[at + 2]) end
end
return 1
"""
PAGE_MAX: Final = 500
# In these families every event updates the slice, so its first and last timestamps identify its events. For orders and
# judgements (duplicates and other tasks are skipped) only the offset does.
FAMILIES_WITH_TIMES: Final = ("clicks", "impressions", "reviews", "searches")
OffsetsAt = Callable[[Iterable[TopicPartition], int], Mapping[TopicPartition, int]]


class SliceDeletion(NamedTuple):
    """A slice to delete; `needs_refold` if it may contain events later than the erasure."""

    user: str
    source: str
    until_ms: int
    offset: int
    needs_refold: bool


class SliceEraser:
    """Deletes slices that contain erased events. `offsets_at` returns the first offsets at or after a Kafka time."""

    def __init__(self, *, profiles: RedisProfileStore, offsets_at: OffsetsAt) -> None:
        self._profiles = profiles
        self._offsets_at = offsets_at

    def erase(
        self,
        until_ms: Mapping[str, int],
        sources: Mapping[TopicPartition, str],
        merged: MergedOffsets,
        *,
        include_ambiguous: bool,
    ) -> bool:
        """Delete the slices; whether events have to be folded again. `until_ms` is by entity.

        `merged` are the offsets that Redis should hold; they are updated as Redis is written. `include_ambiguous`: also
        delete slices that may contain erased events although their timestamps do not show it. Raises `StaleState` or
        `Unavailable`; idempotent.
        """
        needs_refold = False
        entities, historic = iter(until_ms.items()), HistoryRegistry(self._profiles).read() if until_ms else {}
        while page := dict(islice(entities, PAGE_MAX)):
            self._delete_historic(page, historic)
            deletions = list(self._find_deletions(page, sources.values(), include_ambiguous))
            if deletions:
                needs_refold |= self._delete(deletions, self._refold_offsets(deletions, sources), merged)
        return needs_refold

    def _delete_historic(self, until_ms: Mapping[str, int], sources: Iterable[str]) -> None:
        """Delete the slices of a history that contain erased events: they have no other writer, and no log."""
        deletions = list(self._find_deletions(until_ms, sources, include_ambiguous=False))
        if deletions:
            self._profiles.client.pipeline(
                [
                    ("HDEL", key, deletion.source, find_logins_field(deletion))
                    for deletion in deletions
                    for key in self._keys(deletion.user)
                ]
            )

    def _find_deletions(
        self, until_ms: Mapping[str, int], sources: Iterable[str], include_ambiguous: bool
    ) -> Iterable[SliceDeletion]:
        names = sorted(sources)
        if not names:
            return
        fields = [*names, *(LOGINS + source for source in names)]
        commands = list[tuple[str, ...]]()
        for user in until_ms:
            profile_key, history_key = self._keys(user)
            commands += [("HMGET", profile_key, *names), ("HMGET", history_key, *fields)]
        replies = iter(self._profiles.client.pipeline(commands))
        for user, until in until_ms.items():
            slices, held = next(replies), next(replies)
            histories, logins = held[: len(names)], held[len(names) :]
            for source, record, history, own in zip(names, slices, histories, logins, strict=True):
                deletion = record and plan_deletion(user, source, until, record, include_ambiguous)
                has_logins = own is not None and is_guest_entity(user)
                if deletion and not has_logins:
                    yield deletion
                elif (
                    deletion
                    or (history is not None and has_erased_entries(history, until))
                    or (has_logins and has_erased_logins(own, until))
                ):
                    yield SliceDeletion(user, source, until, 2**62, needs_refold=True)

    def _keys(self, user: str) -> tuple[str, str]:
        """The keys of a user's profile and history."""
        (history_key,) = self._profiles.keys.histories([user])
        return self._profiles.keys.profile(user), history_key

    def _refold_offsets(
        self, deletions: Sequence[SliceDeletion], sources: Mapping[TopicPartition, str]
    ) -> dict[str, int]:
        """The offset from which each source has to be folded again; without the sources that need no refold.

        An event's time is at most AHEAD_MS_MAX after its Kafka time, so all events of earlier records are erased.
        """
        since_ms: dict[str, int] = {}
        for deletion in deletions:
            if deletion.needs_refold:
                since_ms[deletion.source] = min(deletion.until_ms, since_ms.get(deletion.source, deletion.until_ms))
        partitions = {source: partition for partition, source in sources.items()}
        starts = dict[str, int]()
        for source, ms in since_ms.items():
            start = self._offsets_at([partitions[source]], max(0, ms - AHEAD_MS_MAX))[partitions[source]]
            if any(
                deletion.offset >= start
                for deletion in deletions
                if deletion.source == source and deletion.needs_refold
            ):
                starts[source] = start
        return starts

    def _delete(self, deletions: Sequence[SliceDeletion], starts: Mapping[str, int], merged: MergedOffsets) -> bool:
        by_bucket = defaultdict[int, list[SliceDeletion]](list)
        for deletion in deletions:
            by_bucket[bucket_of(deletion.user)].append(deletion)
        after = {
            b: self._lower_positions(bucket_deletions, starts, merged.get(b, {}))
            for b, bucket_deletions in by_bucket.items()
        }
        calls = [
            self._script_call(b, bucket_deletions, merged.get(b, {}), after[b])
            for b, bucket_deletions in by_bucket.items()
        ]
        replies = self._profiles.client.run_script(DELETE_SLICES, calls)
        if stale := [bucket for bucket, reply in zip(by_bucket, replies, strict=True) if not reply]:
            raise StaleState(f"Buckets {stale} should be merged as this worker left them. Found other positions.")
        for bucket, lowered in after.items():
            merged.get(bucket, {}).update(lowered)
        return any(after.values())

    @staticmethod
    def _lower_positions(
        deletions: Iterable[SliceDeletion], starts: Mapping[str, int], merged: Mapping[str, int]
    ) -> dict[str, int]:
        """The sources whose `merged` offset is set back in a bucket, with the new offset."""
        sources = {
            deletion.source
            for deletion in deletions
            if deletion.needs_refold and deletion.offset >= starts.get(deletion.source, deletion.offset + 1)
        }
        return {source: starts[source] for source in sources if starts[source] < merged.get(source, 0)}

    def _script_call(
        self, bucket: int, deletions: Sequence[SliceDeletion], merged: Mapping[str, int], after: Mapping[str, int]
    ) -> tuple[list[str], list[Any]]:
        numbers = {user: n for n, user in enumerate(dict.fromkeys(deletion.user for deletion in deletions), 1)}
        keys = [self._profiles.keys.offsets(bucket), *chain.from_iterable(map(self._keys, numbers))]
        sources = sorted({deletion.source for deletion in deletions})
        guards = chain.from_iterable((s, merged.get(s, ""), after.get(s, "")) for s in sources)
        fields = chain.from_iterable((numbers[d.user], d.source, find_logins_field(d)) for d in deletions)
        return keys, [len(sources), *guards, *fields]


def plan_deletion(
    user: str, source: str, until_ms: int, record: bytes, include_ambiguous: bool
) -> SliceDeletion | None:
    """The deletion of a slice; None if it contains no erased event. An unreadable slice is deleted."""
    if len(record) != RECORD.itemsize:
        return SliceDeletion(user, source, until_ms, 2**62, needs_refold=True)
    fields = np.frombuffer(record, RECORD)[0]
    first_ms, last_ms, offset = int(fields["first_ms"]), int(fields["last_ms"]), int(fields["offset"])
    has_times = source_family(source) in FAMILIES_WITH_TIMES
    # A slice without counted events has no times (0): a judgement of an unused task only moved its offset.
    covered = 0 < last_ms <= until_ms or (int(fields["count"]) > 0 and first_ms <= until_ms)
    if not covered and (has_times or not include_ambiguous):
        return None
    return SliceDeletion(user, source, until_ms, offset, needs_refold=not has_times or last_ms > until_ms)


def find_logins_field(deletion: SliceDeletion) -> str:
    """The field of the logins that go with the slice; those of a user stay, and the source stands for none."""
    return LOGINS + deletion.source if is_guest_entity(deletion.user) else deletion.source


def has_erased_entries(history: bytes, until_ms: int) -> bool:
    """Whether a history has entries that are erased for certain, as they have seconds, or is unreadable."""
    return not is_history(history) or bool((read_entries(history)["seen_s"] < (until_ms + 1) // 1000).any())
