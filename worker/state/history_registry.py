"""The registry of a history in a generation of the state: which sources it has, and how many events of each.

No log has these events, so recovery and `verify` compare the merged offsets of these sources with the registry: see
docs/decisions/0034.
"""

import logging
from collections.abc import Mapping
from itertools import chain

from contract.hashing import BUCKETS
from worker.ops import metrics
from worker.redis.client import WrongType, to_pairs
from worker.state.profile_store import RedisProfileStore, is_offset

log = logging.getLogger(__name__)


class HistoryRegistry:
    """The registry of the generation that `profiles` uses."""

    def __init__(self, profiles: RedisProfileStore) -> None:
        self._profiles = profiles

    @property
    def key(self) -> str:
        return f"{self._profiles.prefix}history"

    def read(self) -> dict[str, int]:
        """The number of events by source; empty for a state without a history."""
        client = self._profiles.client
        try:
            (fields,) = client.pipeline([("HGETALL", self.key)])
        except WrongType:
            log.error("Deleting %s, which should be a hash.", self.key)
            metrics.UNREADABLE_KEYS.labels("history").inc(client.delete_other_type(self.key, "hash"))
            return {}
        return {source.decode(errors="replace"): int(count) for source, count in to_pairs(fields) if is_offset(count)}

    def write(self, counts: Mapping[str, int]) -> None:
        """Record the sources, once all of them is merged and before this state serves."""
        self._profiles.client.pipeline([("HSET", self.key, *chain.from_iterable(counts.items()))])

    def count_lost_buckets(self) -> int:
        """The number of buckets that lack events of the history."""
        counts = self.read()
        if not counts:
            return 0
        merged = self._profiles.read_offsets(counts)
        return sum(any(merged[b].get(source) != count for source, count in counts.items()) for b in range(BUCKETS))
