"""Rows and events that wait, each with the event time it starts at and the time it is due: in memory, and on disk."""

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import Final, Generic, TypeVar

import msgspec
from msgspec import Struct

from contract.hashing import hash_id
from contract.joining.multi_index import MultiIndex
from contract.joining.row_store import BrokenStore, RowStore, StoredRow, TableChanges
from contract.joining.since_index import SinceBucket, SinceIndex
from contract.joining.timers import Timers

T = TypeVar("T")
DUE_CHUNK: Final = 1_000  # rows read from disk at a time


class Entry(Struct, Generic[T], array_like=True):
    """An item that waits. `owner`: its user; `group`: by what it is looked up besides its key."""

    number: int
    key: str
    owner: str
    group: str
    since_ms: int
    due_ms: int
    item: T


class PendingState(Struct, frozen=True):
    """What a store keeps of its entries in addition to the entries; `removed`: hashes of keys."""

    next_number: int = 0
    count: int = 0
    removed: list[int] = []
    since: list[SinceBucket] = []


encode: Final = msgspec.msgpack.Encoder().encode
decode_state: Final = msgspec.msgpack.Decoder(PendingState).decode


class PendingStore(Generic[T]):
    """Entries by key and by group. The last `removed_max` removed keys are remembered.

    Without `rows` entries are in memory only: beyond `limit`, the entry added first is evicted. With `rows` every entry
    is written to the table `name` too, by the commit that `changes` and `confirm_commit` belong to; then entries beyond
    `limit` leave the memory and are read again when they are needed. `is_resident` keeps all in memory, and evicts.
    The caller may change an item that it got, and then calls `update`.
    """

    def __init__(
        self,
        name: str,
        item_type: type[T],
        *,
        limit: int,
        removed_max: int,
        rows: RowStore | None = None,
        is_resident: bool = False,
    ) -> None:
        self._name, self._limit, self._removed_max = name, limit, removed_max
        self._table = rows.table(name) if rows else None
        self._evicts = is_resident or rows is None
        self._decode = msgspec.msgpack.Decoder(Entry[item_type]).decode  # type: ignore[valid-type]
        # Those in memory. An ordinary dictionary finds its first key slowly once many before it were deleted.
        self._entries: OrderedDict[str, Entry[T]] = OrderedDict()
        self._groups = MultiIndex[str, str, Entry[T]]()
        self._due = Timers[str]()
        state = decode_state((rows and rows.read_state(name)) or encode(PendingState()))
        self._next_number = self._uncommitted_from = state.next_number
        self._removed = OrderedDict.fromkeys(state.removed)
        self._since = SinceIndex(state.since)
        self._on_disk_only = state.count
        self._numbers: set[int] = set()  # in memory, of committed entries
        self._dirty: dict[str, None] = {}
        self._deleted: set[int] = set()
        self._due_on_disk_ms = self._table.first_due_ms(0) if self._table else None
        if self._table and is_resident:
            self._admit(self._table.read_all())

    def __len__(self) -> int:
        return len(self._entries) + self._on_disk_only

    @property
    def next_number(self) -> int:
        """The number of the next entry; never used before."""
        return self._next_number

    @property
    def uncommitted(self) -> int:
        """The number of entries that the next commit writes or deletes."""
        return len(self._dirty) + len(self._deleted)

    def add(
        self, key: str, item: T, *, since_ms: int, due_ms: int, owner: str = "", group: str = ""
    ) -> tuple[str, T] | None:
        """Add an entry under a new key; returns the entry that is evicted for it, if any."""
        entry = Entry(self._next_number, key, owner, group, since_ms, due_ms, item)
        self._next_number += 1
        self._since.add(since_ms)
        self._insert(entry)
        if self._table:
            self._dirty[key] = None
        if not self._evicts or len(self._entries) <= self._limit:
            return None
        oldest = next(iter(self._entries))
        return oldest, self.remove(oldest)

    def get(self, key: str) -> T | None:
        if key not in self._entries and self._on_disk_only and self._table:
            self._admit(self._table.find(hash_key(key)))
        entry = self._entries.get(key)
        return entry.item if entry else None

    def in_group(self, group: str) -> dict[str, T]:
        """The entries of a group by key, in the order of addition."""
        if self._on_disk_only and self._table:
            self._admit(self._table.find(hash_group(group)))
        entries = self._groups.entries(group)
        if len(entries) < 2:
            return {key: entry.item for key, entry in entries.items()}
        return {entry.key: entry.item for entry in sorted(entries.values(), key=lambda entry: entry.number)}

    def group_size(self, group: str) -> int:
        """The number of entries of a group; only of a store that is in memory as a whole."""
        return len(self._groups.entries(group))

    def was_removed(self, key: str) -> bool:
        """Whether an entry with this key was removed, as far as remembered."""
        return hash_key(key) in self._removed

    def update(self, key: str, *, part_ms: int | None = None, due_ms: int | None = None) -> None:
        """An entry has changed: `part_ms` is the time of a new part, `due_ms` when it is due from now on."""
        entry = self._entries[key]
        if self._table:
            self._dirty[key] = None
        if part_ms is not None and part_ms < entry.since_ms:
            self._since.remove(entry.since_ms)
            self._since.add(part_ms)
            entry.since_ms = part_ms
        if due_ms is not None:
            entry.due_ms = due_ms
            self._due.schedule(key, due_ms)

    def due(self, watermark_ms: int) -> Iterator[tuple[str, T]]:
        """Each entry that is due before the watermark; the caller updates its due time or removes it."""
        after = self._due_on_disk_ms or 0, -1
        while self._table and self._due_on_disk_ms is not None and self._due_on_disk_ms < watermark_ms:
            rows = self._table.read_due(watermark_ms, after, DUE_CHUNK)
            self._admit(rows)
            if len(rows) < DUE_CHUNK:
                self._due_on_disk_ms = self._table.first_due_ms(watermark_ms)
            else:
                after = rows[-1].due_ms, rows[-1].number
                yield from self._pop_due(rows[-1].due_ms)
        yield from self._pop_due(watermark_ms)

    def remove(self, key: str) -> T:
        """Remove an entry that `get`, `in_group` or `due` returned."""
        entry = self._entries[key]
        self._forget(entry)
        self._since.remove(entry.since_ms)
        self._dirty.pop(key, None)
        if self._table and entry.number < self._uncommitted_from:
            self._deleted.add(entry.number)
        self._removed[hash_key(key)] = None
        if len(self._removed) > self._removed_max:
            self._removed.popitem(last=False)
        return entry.item

    def erase(self, owner: str, until_ms: int) -> int:
        """Remove the entries of a user that have a part at or before `until_ms`; returns their number."""
        if self._on_disk_only and self._table:
            self._admit(self._table.find(hash_owner(owner)))
        entries = self._entries.values()
        erased = [entry.key for entry in entries if entry.owner == owner and entry.since_ms <= until_ms]
        for key in erased:
            self.remove(key)
        return len(erased)

    def oldest_ms(self) -> int | None:
        """The earliest start of all entries, or up to a minute earlier."""
        return self._since.earliest_ms()

    def changes(self) -> TableChanges:
        """What the next commit writes."""
        removed = list(self._removed)
        state = PendingState(self._next_number, len(self), removed, self._since.buckets())
        changes = TableChanges(self._name, encode(state), deleted=list(self._deleted))
        for entry in map(self._entries.__getitem__, self._dirty):
            if entry.number < self._uncommitted_from:
                changes.updated.append(StoredRow(entry.number, entry.due_ms, encode(entry)))
            else:
                changes.added.append(StoredRow(entry.number, entry.due_ms, encode(entry), self._hashes(entry)))
        return changes

    def confirm_commit(self) -> None:
        """The changes were committed. Entries beyond the limit leave the memory, the first ones first."""
        self._numbers |= {self._entries[key].number for key in self._dirty}
        self._dirty.clear()
        self._deleted.clear()
        self._uncommitted_from = self._next_number
        while not self._evicts and len(self._entries) > self._limit:
            entry = next(iter(self._entries.values()))
            self._forget(entry)
            self._on_disk_only += 1
            if self._due_on_disk_ms is None or entry.due_ms < self._due_on_disk_ms:
                self._due_on_disk_ms = entry.due_ms

    def _pop_due(self, before_ms: int) -> Iterator[tuple[str, T]]:
        for key in self._due.pop_before(before_ms):
            yield key, self._entries[key].item

    def _admit(self, rows: Sequence[StoredRow]) -> None:
        """Take rows from disk into memory unless they are there, or were removed since the last commit."""
        for row in rows:
            if row.number in self._numbers or row.number in self._deleted:
                continue
            try:
                entry = self._decode(row.body)
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                raise BrokenStore(f"A row of {self._name} should be readable. Found: {error}") from error
            self._on_disk_only -= 1
            self._numbers.add(entry.number)
            self._insert(entry)

    def _insert(self, entry: Entry[T]) -> None:
        self._entries[entry.key] = entry
        self._due.schedule(entry.key, entry.due_ms)
        if entry.group:
            self._groups.add(entry.group, entry.key, entry)

    def _hashes(self, entry: Entry[T]) -> tuple[int, ...]:
        """What an entry can be found by on disk; nothing if all are in memory."""
        if self._evicts:
            return ()
        if entry.group:
            return hash_key(entry.key), hash_owner(entry.owner), hash_group(entry.group)
        return hash_key(entry.key), hash_owner(entry.owner)

    def _forget(self, entry: Entry[T]) -> None:
        """Drop an entry from memory."""
        del self._entries[entry.key]
        self._due.cancel(entry.key)
        self._numbers.discard(entry.number)
        if entry.group:
            self._groups.remove(entry.group, entry.key)


def hash_key(key: str) -> int:
    return hash_id(key)


def hash_owner(owner: str) -> int:
    return hash_id(f"owner\0{owner}")


def hash_group(group: str) -> int:
    return hash_id(f"group\0{group}")
