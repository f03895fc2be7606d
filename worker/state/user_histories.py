"""The latest items of users, for lists: read for many users in one request to Redis, or two if any has guests."""

from collections.abc import Sequence
from typing import Final

from contract.profiles.guest_items import KnownItems, add_pending, find_guests, list_distinct, merge_guests
from contract.profiles.histories import LoadedHistories, load_histories
from contract.profiles.slices import SliceWrites, to_slice_writes
from worker.state.profile_store import RedisProfileStore

NO_WRITES: Final = to_slice_writes({})


class UserHistories:
    """Reads histories of the generation that `profiles` uses."""

    def __init__(self, profiles: RedisProfileStore) -> None:
        self._profiles = profiles

    def read(self, user_ids: Sequence[str], pending: SliceWrites = NO_WRITES) -> KnownItems:
        """The 64 latest items of each user, newest first, with those of the user's guests from before the logins.

        `pending`: of a batch that is not merged yet; with logins among them it counts, too. Raises `Unavailable`, or
        `StaleState`, to be recovered.
        """
        histories = self._read(user_ids, pending)
        guests = find_guests(histories, user_ids)
        return merge_guests(histories, user_ids, guests, self._read(list_distinct(guests), pending))

    def _read(self, user_ids: Sequence[str], pending: SliceWrites) -> LoadedHistories:
        users = [f"user:{user_id}" for user_id in user_ids]
        histories = self._profiles.read_histories(users) if users else load_histories([])
        return add_pending(histories, users, pending) if pending.logins else histories
