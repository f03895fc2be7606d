"""A snapshot of some profiles and histories while workers go on writing them.

A slice, and the history and logins that go with it, is comparable with the log only together with the merged offsets
of its bucket at the same moment, so all are read in one script, page by page. The log has to be asked for its ends
after that.
"""

from collections.abc import Callable, Collection, Mapping

from contract.hashing import bucket_of
from contract.profiles.logins import split_logins
from contract.profiles.record import entity_from_key, profile_key, source_family
from contract.profiles.store import MergedOffsets
from worker.maintenance.comparison import SliceKey, slice_offset
from worker.maintenance.record_diff import find_defect
from worker.state.profile_scan import ProfilePage, ProfileScan
from worker.state.profile_store import RedisProfileStore


class ProfileSnapshot:
    """The slices of some entities, and the last offset that each of them should hold.

    `merged_before`: the merged offsets before the scan began. They bound the entities that the scan did not return.
    `ignored_families`: families of sources to leave out.
    """

    def __init__(self, merged_before: MergedOffsets, ignored_families: Collection[str] = ()) -> None:
        self._merged_before, self._ignored_families = merged_before, ignored_families
        self._merged_at_read: dict[str, Mapping[str, int]] = {}  # by entity
        self._sources: dict[str, list[str]] = {}  # by entity
        self._merged_by_bucket: dict[int, list[Mapping[str, int]]] = {
            bucket: [merged] for bucket, merged in merged_before.items()
        }
        self._history_sources: dict[str, list[str]] = {}  # by user
        self.slices: dict[SliceKey, bytes] = {}
        self.histories: dict[SliceKey, bytes] = {}
        self.logins: dict[SliceKey, bytes] = {}  # by user or guest, and source
        self.end_offsets: dict[str, int] = {}  # by source, the offset (exclusive) up to which its log is needed
        for merged in merged_before.values():
            self._extend_ends(merged)

    def add(self, page: ProfilePage) -> None:
        """Add a page; a profile that the scan returns again replaces the earlier one."""
        self._extend_ends(page.merged)
        for key, slices in page.profiles.items():
            entity = entity_from_key(key)
            name = name_of(key)
            if name == entity and self._merged_by_bucket[bucket_of(entity)][-1] is not page.merged:
                self._merged_by_bucket[bucket_of(entity)].append(page.merged)
            for source in self._sources.get(name, ()):
                del self.slices[name, source]
            self._sources[name] = [s for s in slices if source_family(s) not in self._ignored_families]
            self._merged_at_read[name] = page.merged
            for source in self._sources[name]:
                self.slices[name, source] = slices[source]
                self._extend_ends({source: self._slice_offset(name, source) + 1})
            self._replace_histories(name, page.histories.get(key, {}))

    def has(self, key: str) -> bool:
        """Whether a page had the profile under this key, and with it the history."""
        return name_of(key) in self._sources

    def last_offset(self, entity: str, source: str) -> int:
        """The last offset that the slice should hold, if that event concerns it.

        A slice may be ahead of its bucket: recovery folds a bucket again whose merged offsets were deleted.
        """
        merged = self._merged_at_read.get(entity)
        if merged is None:
            merged = self._merged_before[bucket_of(entity)]
        return max(self._slice_offset(entity, source), merged.get(source, 0) - 1)

    def find_merged_beyond(self, ends: Mapping[str, int]) -> dict[tuple[int, str], int]:
        """The merged offsets, by bucket and source, beyond `ends`: the ends of the logs after the scan, by source."""
        return {
            (bucket, source): offset
            for bucket, snapshots in self._merged_by_bucket.items()
            for merged in snapshots
            for source, offset in merged.items()
            if offset > ends.get(source, offset)
        }

    def _replace_histories(self, name: str, fields: Mapping[str, bytes]) -> None:
        for source in self._history_sources.pop(name, ()):
            self.histories.pop((name, source), None)
            self.logins.pop((name, source), None)
        for records, stored in zip((self.histories, self.logins), split_logins(fields), strict=True):
            own = {s: record for s, record in stored.items() if source_family(s) not in self._ignored_families}
            if own:
                self._history_sources.setdefault(name, []).extend(own)
                records.update({(name, source): record for source, record in own.items()})

    def _slice_offset(self, entity: str, source: str) -> int:
        record = self.slices.get((entity, source))
        return -1 if record is None or find_defect(source, record) else slice_offset(record)

    def _extend_ends(self, ends: Mapping[str, int]) -> None:
        for source, end in ends.items():
            self.end_offsets[source] = max(end, self.end_offsets.get(source, 0))


def read_snapshot(
    profiles: RedisProfileStore,
    wanted: Callable[[str], bool],
    merged_before: MergedOffsets,
    ignored_families: Collection[str],
) -> ProfileSnapshot:
    snapshot = ProfileSnapshot(merged_before, ignored_families)
    scan = ProfileScan(profiles.client, profiles.keys)
    for page in scan.pages(wanted):
        snapshot.add(page)
    for page in scan.pages(wanted, "history", snapshot.has):
        snapshot.add(page)
    return snapshot


def name_of(key: str) -> str:
    """The entity whose profile is under a key; the key itself if it is a wrong one, which belongs to no entity."""
    entity = entity_from_key(key)
    return entity if profile_key(entity) == key else key
