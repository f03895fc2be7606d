"""The latest items of users together with what they did as guests before they logged in. Pure; moves nothing.

An act of a guest belongs to the user of the first login on the guest at or after it; to the guest itself while none has
followed. So a user gets what happened since the login before, and never what another person does on the device later.
Of each user of a guest the first and the latest login are known. Where the user of the next known login does not
follow from these, since another one has logged in before and after, the act belongs to no one. A guest with more users
than `GUEST_USERS_MAX` is shared, and keeps its acts.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from contract.events.guests import is_guest, to_guest_user
from contract.profiles.histories import LatestItems, LoadedHistories, SortedEntries, load_histories, select_latest
from contract.profiles.logins import GUEST_USERS_MAX, SHARED, add_logins, group_logins, read_rows, tag_user
from contract.profiles.slices import SliceWrites

GUESTS_READ_MAX: Final = 8  # the latest guests of a user, whose items a history has
OF_GUEST, OF_NO_ONE = "guest", "no one"  # no tags
Times = tuple[int, int]  # of the first and the latest login


class KnownItems(NamedTuple):
    """The latest items of U users, and the newest one of each own record, of any owner (U); 0: none."""

    latest: LatestItems
    newest: npt.NDArray[np.uint64]


def without_guests(latest: LatestItems) -> KnownItems:
    """The items of users who have no guests, with at least one column."""
    return KnownItems(latest, latest.items[:, 0])


def add_pending(histories: LoadedHistories, users: Sequence[str], pending: SliceWrites) -> LoadedHistories:
    """The histories and logins of users (`user:ID`) after a batch that is not merged yet."""
    numbers = {user: number for number, user in enumerate(users)}
    records, logins = histories.to_mappings(), list(histories.logins)
    for write in pending.list_histories():
        if write.user in numbers:
            own = records[numbers[write.user]]
            own[write.source] = write.apply(own.get(write.source, b""))
    for (entity, source), writes in group_logins(pending.logins).items():
        if entity in numbers:
            logins.append((numbers[entity], source, add_logins(b"", writes)))  # readers join what they find
    own_records = [{source: record for source, record in own.items() if record} for own in records]
    return replace(load_histories(own_records), logins=logins)


def find_owner(times_by_tag: Mapping[str, Times], seen_ms: int) -> str:
    """The tag of the user to whom an act of a guest belongs; `OF_GUEST` or `OF_NO_ONE` for no user."""
    if SHARED in times_by_tag or len(times_by_tag) > GUEST_USERS_MAX:
        return OF_GUEST
    later = [(ms, tag) for tag, times in times_by_tag.items() for ms in times if ms >= seen_ms]
    if not later:
        return OF_GUEST
    next_ms, next_tag = min(later)
    for tag, (first_ms, latest_ms) in times_by_tag.items():
        if tag != next_tag and (first_ms < seen_ms <= latest_ms or next_ms in (first_ms, latest_ms)):
            return OF_NO_ONE
    return next_tag


def find_guests(histories: LoadedHistories, user_ids: Sequence[str]) -> list[list[str]]:
    """The user ids of the latest guests of each user; the histories are those of the users."""
    latest = [dict[str, int]() for _ in user_ids]
    for number, _, record in histories.logins:
        if not is_guest(user_ids[number]):
            for guest, _, latest_ms in read_rows(record):
                latest[number][guest] = max(latest_ms, latest[number].get(guest, 0))
    return [
        [to_guest_user(guest) for guest in sorted(own, key=lambda guest: (-own[guest], guest))[:GUESTS_READ_MAX]]
        for own in latest
    ]


def merge_guests(
    histories: LoadedHistories, user_ids: Sequence[str], guests: Sequence[Sequence[str]], of_guests: LoadedHistories
) -> KnownItems:
    """The items of users with those of their `guests`, whose distinct ids in order are those of `of_guests`."""
    own, newest = histories.sort_entries(), np.zeros(len(user_ids), np.uint64)
    newest[own.user[::-1]] = own.entries["item"][::-1]  # of several the newest, since it is assigned last
    times = gather_times(histories)
    changed = {number for number, user_id in enumerate(user_ids) if is_guest(user_id) and number in times}
    changed |= {number for number, own_guests in enumerate(guests) if own_guests}
    if not changed:
        return KnownItems(select_latest(histories.users, own), newest)
    numbers = {guest: n for n, guest in enumerate(list_distinct(guests))}
    times_of_guests, entries_of_guests = gather_times(of_guests), split_entries(of_guests)
    own_entries = split_entries(histories)
    users, parts = list[npt.NDArray[np.int64]](), list[npt.NDArray[np.void]]()
    for number, user_id in enumerate(user_ids):
        entries = own_entries[number]
        if number in changed and is_guest(user_id):
            entries = select_owned(entries, times[number], OF_GUEST)
        if guests[number]:
            tag = tag_user(user_id)
            taken = [
                select_owned(entries_of_guests[n], times_of_guests.get(n, {}), tag)
                for n in (numbers[guest] for guest in guests[number])
            ]
            entries = np.concatenate([entries, *taken])
            entries = entries[np.argsort(-entries["seen_s"].astype(np.int64), kind="stable")]
        users.append(np.full(len(entries), number, np.int64))
        parts.append(entries)
    merged = SortedEntries(np.concatenate(users[::-1]), np.concatenate(parts[::-1]))
    return KnownItems(select_latest(histories.users, merged), newest)


def split_entries(histories: LoadedHistories) -> list[npt.NDArray[np.void]]:
    """The entries of each user, newest first."""
    user, entries = histories.sort_entries()
    numbers = -np.arange(histories.users)
    starts, ends = np.searchsorted(-user, numbers).tolist(), np.searchsorted(-user, numbers, "right").tolist()
    return [entries[start:end] for start, end in zip(starts, ends, strict=True)]


def list_distinct(guests: Sequence[Sequence[str]]) -> list[str]:
    """The distinct guests of users, in order."""
    return list(dict.fromkeys(guest for own in guests for guest in own))


def gather_times(histories: LoadedHistories) -> dict[int, dict[str, Times]]:
    """The logins of guests over all sources: by the number of the guest and the tag of the user."""
    times = defaultdict[int, dict[str, Times]](dict)
    for number, _, record in histories.logins:
        for tag, first_ms, latest_ms in read_rows(record):
            held_first, held_latest = times[number].get(tag, (first_ms, latest_ms))
            times[number][tag] = min(held_first, first_ms), max(held_latest, latest_ms)
    return times


def select_owned(entries: npt.NDArray[np.void], times_by_tag: Mapping[str, Times], owner: str) -> npt.NDArray[np.void]:
    """The entries of a guest that belong to this owner."""
    owned = [find_owner(times_by_tag, seen_s * 1000) == owner for seen_s in entries["seen_s"].tolist()]
    return entries[np.array(owned, np.bool_)]
