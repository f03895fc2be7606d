"""The latest items of a user, with the action and the time of each: a history, one binary record for each source.

A click is an entry, and so is each distinct item of an order; impressions, searches, reviews and judgements are none.
The record of a source has its last 64 entries, in the order of the log. It begins where the user's slice of the source
begins, and both are written together: what the fold does not count (a replayed event, an order that was sent twice) is
no entry, and a slice that is reset after the horizon resets the history. So a history needs no offset of its own.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, NamedTuple, TypeAlias, overload

import numpy as np
import numpy.typing as npt

from contract.errors import BadProfile
from contract.hashing import SEED, bucket_of, hash_id
from contract.profiles.entity_updates import UpdateBatch
from contract.profiles.logins import LOGINS, read_rows
from contract.profiles.record import ENTITY_KINDS, FAMILIES
from contract.redis_keys import escape_id, unescape_id

HISTORY_MAX: Final = 64  # entries of one source, and items that a reader gets of all sources
NO_ACTION, CLICK, CART, ORDER = range(4)  # no event of today puts an item into a cart
ACTIONS: Final = {"clicks": CLICK, "orders": ORDER}  # by family; the other families have no entries
ENTRY: Final = np.dtype([("item", "<u8"), ("seen_s", "<u4"), ("action", "u1")])  # `item_hash`, seconds since 1970
HISTORY_LAYOUT: Final = hash_id(f"{ENTRY.descr} {HISTORY_MAX} {SEED}") & 0xFFFFFFFF
HEADER: Final = HISTORY_LAYOUT.to_bytes(4, "little")
ENTRIES_BYTES_MAX: Final = HISTORY_MAX * ENTRY.itemsize
ACTION_BY_FAMILY: Final = np.array([ACTIONS.get(family, NO_ACTION) for family in FAMILIES], np.uint8)
USER, ITEM = ENTITY_KINDS.index("user"), ENTITY_KINDS.index("item")
NOT_COUNTED, COUNTED, FIRST_COUNTED = range(3)  # what the fold did with an update; the last: a slice begins with it
Histories: TypeAlias = Mapping[str, bytes]  # source name -> record


def append_history(record: bytes, entries: bytes) -> bytes:
    """The record after further entries, in the order of the log; `record` is empty where the history begins."""
    return HEADER + (record[len(HEADER) :] + entries)[-ENTRIES_BYTES_MAX:]


def is_history(record: bytes) -> bool:
    """Whether these bytes are a record of this layout."""
    return find_history_defect(record) is None


def find_history_defect(record: bytes) -> str | None:
    """Why these bytes are no record of a history; None if they are one."""
    size = len(record) - len(HEADER)
    if size <= 0 or size % ENTRY.itemsize or size > ENTRIES_BYTES_MAX:
        return (
            f"a history should have {len(HEADER)} + {ENTRY.itemsize} bytes for each of 1 to {HISTORY_MAX} entries, "
            f"has {len(record)}"
        )
    layout = int.from_bytes(record[: len(HEADER)], "little")
    return None if layout == HISTORY_LAYOUT else f"layout should be {HISTORY_LAYOUT}, is {layout}"


def read_entries(record: bytes) -> npt.NDArray[np.void]:
    """The entries of a record as an array of ENTRY, in the order of the log."""
    return np.frombuffer(record, ENTRY, offset=len(HEADER))


def history_key(user: str) -> str:
    """The Redis key of the history of a user (`user:ID`), without the shop's prefix; in the slot of the profile."""
    return f"{history_key_prefix(bucket_of(user))}{escape_id(user.partition(':')[2])}"


def history_key_prefix(bucket: int) -> str:
    """The prefix of the keys of all histories in a bucket."""
    return f"history:{{{bucket}}}:"


def user_from_history_key(key: str) -> str:
    """The user (`user:ID`) whose history is stored under a key."""
    return f"user:{unescape_id(key.partition('}:')[2])}"


class HistoryWrite(NamedTuple):
    """Entries to append to the history of a user (`user:ID`) and source; `is_new`: in place of what is there."""

    user: str
    source: str
    is_new: bool
    entries: bytes

    def apply(self, record: bytes) -> bytes:
        """The record after this write; empty for none."""
        kept = b"" if self.is_new else record
        return append_history(kept, self.entries) if self.entries else kept


@dataclass(frozen=True, slots=True)
class HistoryWrites:
    """H writes to histories, each together with the slice write of the same user and source."""

    slice: npt.NDArray[np.int64]  # (H) index of the slice write, ascending
    length: npt.NDArray[np.int64]  # (H) entries to append, at most HISTORY_MAX
    is_new: npt.NDArray[np.bool_]  # (H) the history begins with them
    entries: bytes  # concatenated


NO_HISTORIES: Final = HistoryWrites(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.bool_), b"")


def collect_histories(
    updates: UpdateBatch,
    counted: npt.NDArray[np.uint8],
    own_slice: npt.NDArray[np.int64],
    position: npt.NDArray[np.int64],
) -> HistoryWrites:
    """What a folded batch adds to histories.

    `counted` (T): what the fold did with each update; `own_slice` (T): its slice; `position` (S): the place of each
    slice among the slices to write.
    """
    family = updates.event_columns[:, 2]
    action = ACTION_BY_FAMILY[family]
    first = np.minimum(updates.start[:-1], max(len(updates.entity) - 1, 0))
    has_entries = (action > 0) & (np.diff(updates.start) > 0)
    if not has_entries.any():
        return NO_HISTORIES
    has_entries &= (updates.kind[updates.entity[first]] == USER) & (counted[first] > NOT_COUNTED)
    arrivals = np.flatnonzero(has_entries)
    slices = own_slice[first[arrivals]]
    # An arrival that begins a slice drops what came before.
    begins = np.full(len(position), -1, np.int64)
    is_first = counted[first[arrivals]] == FIRST_COUNTED
    begins[slices[is_first]] = arrivals[is_first]  # of several the last, since it is assigned last
    rows = np.flatnonzero(updates.kind[updates.entity] == ITEM)
    arrival = np.searchsorted(updates.start, rows, "right") - 1
    kept = has_entries[arrival]
    rows, arrival = rows[kept], arrival[kept]
    entry_slice = own_slice[first[arrival]]
    kept = arrival >= begins[entry_slice]
    rows, arrival, entry_slice = rows[kept], arrival[kept], entry_slice[kept]
    order = np.argsort(position[entry_slice], kind="stable")
    rows, arrival, entry_slice = rows[order], arrival[order], entry_slice[order]
    place, begun = position[entry_slice], position[slices[is_first]]
    is_new, is_written = np.zeros(len(position), np.bool_), np.zeros(len(position), np.bool_)
    is_new[begun] = True
    is_written[place] = is_written[begun] = True
    written = np.flatnonzero(is_written)
    ends = np.searchsorted(place, written, "right")
    starts = np.maximum(np.searchsorted(place, written), ends - HISTORY_MAX)
    length = ends - starts
    last = np.repeat(ends, length) - np.repeat(np.cumsum(length), length) + np.arange(length.sum())
    entries = np.empty(len(last), ENTRY)
    entries["item"] = updates.id_hash[updates.entity[rows[last]]]
    entries["seen_s"] = updates.event_columns[arrival[last], 0] // 1000
    entries["action"] = action[arrival[last]]
    return HistoryWrites(written, length, is_new[written], entries.tobytes())


class LatestItems(NamedTuple):
    """The latest items of U users, newest first, over all sources; 0 where a user has fewer.

    Of entries of the same second the greater source, then the later entry comes first.
    """

    items: npt.NDArray[np.uint64]  # (U, HISTORY_MAX) `item_hash`
    actions: npt.NDArray[np.uint8]  # (U, HISTORY_MAX)
    seen_s: npt.NDArray[np.uint32]  # (U, HISTORY_MAX)


class SortedEntries(NamedTuple):
    """N entries of users, the users descending and those of each newest first."""

    user: npt.NDArray[np.int64]  # (N)
    entries: npt.NDArray[np.void]  # (N) of ENTRY


def select_latest(users: int, owned: SortedEntries) -> LatestItems:
    """The latest `HISTORY_MAX` entries of each of some users."""
    shape = users, HISTORY_MAX
    latest = LatestItems(np.zeros(shape, np.uint64), np.zeros(shape, np.uint8), np.zeros(shape, np.uint32))
    user, entries = owned
    place = np.arange(len(user)) - np.searchsorted(-user, -user)
    kept = place < HISTORY_MAX
    user, place, entries = user[kept], place[kept], entries[kept]
    latest.items[user, place] = entries["item"]
    latest.actions[user, place] = entries["action"]
    latest.seen_s[user, place] = entries["seen_s"]
    return latest


@dataclass(frozen=True, slots=True)
class LoadedHistories(Sequence[Histories]):
    """R records of `users` users; as a sequence, the records of each user by source.

    `logins`: of these users, each with the number of the user, the source and the record.
    """

    users: int
    sources: Sequence[str]  # the distinct source names
    user: npt.NDArray[np.int64]  # (R) the user of each record
    source: npt.NDArray[np.int64]  # (R) index into `sources`
    length: npt.NDArray[np.int64]  # (R) bytes of each record
    records: bytes | memoryview  # concatenated
    logins: Sequence[tuple[int, str, bytes]] = ()

    def separate_logins(self) -> "LoadedHistories":
        """The same where `sources` are all fields of their hashes, those of logins too."""
        is_login = np.array([name.startswith(LOGINS) for name in self.sources], np.bool_)
        if not is_login.any():
            return self
        own = ~is_login[self.source]
        logins, records, ends = list[tuple[int, str, bytes]](), bytearray(), np.cumsum(self.length)
        rows = zip(self.user.tolist(), self.source.tolist(), ends.tolist(), self.length.tolist(), strict=True)
        for user, source, end, length in rows:
            record = self.records[end - length : end]
            if is_login[source]:
                logins.append((user, self.sources[source].removeprefix(LOGINS), bytes(record)))
            else:
                records += record
        return LoadedHistories(
            self.users, self.sources, self.user[own], self.source[own], self.length[own], bytes(records), logins
        )

    def check(self) -> None:
        """Raise `BadProfile` unless all records have this layout."""
        for _, _, logins in self.logins:
            read_rows(logins)
        size = self.length - len(HEADER)
        is_bad = (size <= 0) | (size % ENTRY.itemsize != 0) | (size > ENTRIES_BYTES_MAX)
        if not is_bad.any():
            layouts = np.frombuffer(self.records, np.uint8)[self._find_headers()].view("<u4")[:, 0]
            is_bad = layouts != HISTORY_LAYOUT
        if is_bad.any():
            record = self._split()[int(np.flatnonzero(is_bad)[0])]
            raise BadProfile(f"Histories should be readable: {find_history_defect(record)}.")

    def latest(self) -> LatestItems:
        """The latest items of each user. The records are checked."""
        return select_latest(self.users, self.sort_entries())

    def sort_entries(self) -> "SortedEntries":
        """All entries, the users descending and those of each newest first. The records are checked."""
        if not len(self.length):
            return SortedEntries(np.zeros(0, np.int64), np.zeros(0, ENTRY))
        is_entry = np.ones(len(self.records), np.bool_)
        is_entry[self._find_headers()] = False
        entries = np.frombuffer(np.frombuffer(self.records, np.uint8)[is_entry].tobytes(), ENTRY)
        counts = (self.length - len(HEADER)) // ENTRY.itemsize
        user = np.repeat(self.user, counts)
        rank = np.argsort(np.argsort(np.array(self.sources)))  # by name, whatever order the store has them in
        order = np.lexsort((np.arange(len(entries)), np.repeat(rank[self.source], counts), entries["seen_s"], user))
        order = order[::-1]
        return SortedEntries(user[order], entries[order])

    def to_mappings(self) -> list[dict[str, bytes]]:
        """The records of each user by source."""
        records: list[dict[str, bytes]] = [{} for _ in range(self.users)]
        for user, source, record in zip(self.user.tolist(), self.source.tolist(), self._split(), strict=True):
            records[user][self.sources[source]] = record
        return records

    def _find_headers(self) -> npt.NDArray[np.int64]:
        """(R, 4) Where the bytes of each header are."""
        headers: npt.NDArray[np.int64] = (np.cumsum(self.length) - self.length)[:, None] + np.arange(len(HEADER))
        return headers

    def _split(self) -> list[bytes]:
        ends = np.cumsum(self.length).tolist()
        return [bytes(self.records[begin:end]) for begin, end in pairwise([0, *ends])]

    def __len__(self) -> int:
        return self.users

    def __iter__(self) -> Iterator[Histories]:
        return iter(self.to_mappings())

    @overload
    def __getitem__(self, index: int) -> Histories: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Histories]: ...
    def __getitem__(self, index: int | slice) -> Histories | Sequence[Histories]:
        return self.to_mappings()[index]


def load_histories(histories: Sequence[Histories]) -> LoadedHistories:
    """The columns of histories given as mappings."""
    sources = {source: number for number, source in enumerate(sorted({s for own in histories for s in own}))}
    rows = [(user, sources[source], record) for user, own in enumerate(histories) for source, record in own.items()]
    return LoadedHistories(
        len(histories),
        list(sources),
        np.array([user for user, _, _ in rows], np.int64),
        np.array([source for _, source, _ in rows], np.int64),
        np.array([len(record) for _, _, record in rows], np.int64),
        b"".join(record for _, _, record in rows),
    ).separate_logins()
