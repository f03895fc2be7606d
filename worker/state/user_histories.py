"""The latest items of users, for making lists: read from Redis in one request for many users."""

from collections.abc import Sequence

from contract.profiles.histories import LatestItems
from worker.state.profile_store import RedisProfileStore


class UserHistories:
    """Reads histories of the generation that `profiles` uses."""

    def __init__(self, profiles: RedisProfileStore) -> None:
        self._profiles = profiles

    def read(self, user_ids: Sequence[str]) -> LatestItems:
        """The 64 latest items of each user, newest first; raises `Unavailable`, or `StaleState`, to be recovered."""
        return self._profiles.read_histories([f"user:{user_id}" for user_id in user_ids]).latest()
