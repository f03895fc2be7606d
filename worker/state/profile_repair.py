"""Deletes unreadable profiles with the merged offsets of what was in them, so that recovery folds them again.

A profile is unreadable if its key holds another type, or if a slice is truncated or of another layout, or if that is so
of the user's history or logins. All are a pure fold of their log, so deleting them loses nothing that it still has.
"""

import logging
from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

from contract.hashing import bucket_of
from contract.profiles.histories import is_history, user_from_history_key
from contract.profiles.logins import LOGINS, find_logins_defect
from contract.profiles.record import LAYOUT, RECORD, entity_from_key
from worker.ops import metrics
from worker.redis.client import WrongType, to_pairs
from worker.state.profile_store import RedisProfileStore, UnreadableProfiles

log = logging.getLogger(__name__)
# KEYS: merged:{bucket}, a profile, and of a user the history. ARGV: the sources of what is unreadable; none: all of it,
# and the whole bucket's offsets, since it is unknown what was in it.
DELETE_UNREADABLE: Final = f"""
if #ARGV == 0 then return redis.call('UNLINK', unpack(KEYS)) end
for n = 1, #KEYS do
  if redis.call('TYPE', KEYS[n]).ok == 'hash' then
    redis.call('HDEL', KEYS[n], unpack(ARGV))
    if n > 2 then
      for at = 1, #ARGV do redis.call('HDEL', KEYS[n], '{LOGINS}' .. ARGV[at]) end
    end
  end
end
return 1
"""


class UnreadableProfile(NamedTuple):
    """`sources` of the slices, histories and logins that are unreadable; empty if a key is no hash."""

    entity: str
    sources: tuple[str, ...]


class ProfileRepair:
    """Finds and deletes unreadable profiles of one store."""

    def __init__(self, profiles: RedisProfileStore) -> None:
        self._profiles = profiles

    def find(self, entities: Iterable[str]) -> list[UnreadableProfile]:
        """Those of these profiles that are unreadable."""
        wanted, client = list(entities), self._profiles.client
        keys = [(entity, key) for entity in wanted for key in self._keys(entity)]
        types = client.pipeline([("TYPE", key) for _, key in keys])
        of_other_type = {
            entity for (entity, _), kind in zip(keys, types, strict=True) if kind not in (b"hash", b"none")
        }
        hashes = [own for own, kind in zip(keys, types, strict=True) if kind == b"hash" and own[0] not in of_other_type]
        sources = {entity: dict[str, None]() for entity in wanted}
        for (entity, key), reply in zip(hashes, client.pipeline([("HGETALL", key) for _, key in hashes]), strict=True):
            is_whole = is_readable_slice if key == self._profiles.keys.profile(entity) else is_readable_field
            fields = [(name.decode(errors="surrogateescape"), record) for name, record in to_pairs(reply)]
            sources[entity] |= dict.fromkeys(
                name.removeprefix(LOGINS) for name, record in fields if not is_whole(name, record)
            )
        return [
            UnreadableProfile(entity, tuple(sources[entity]))
            for entity in sources
            if sources[entity] or entity in of_other_type
        ]

    def find_sources(self, unreadable: Iterable[UnreadableProfile]) -> set[str]:
        """The sources whose logs are folded again once these profiles are deleted."""
        sources = set[str]()
        for entity, own_sources in unreadable:
            sources.update(own_sources or self._profiles.read_merged_sources(bucket_of(entity)))
        return sources

    def delete(self, unreadable: Sequence[UnreadableProfile]) -> None:
        """Delete them, each with its merged offsets in one script; the owners of its sources notice and recover."""
        calls: list[tuple[list[str], Sequence[Any]]] = [
            (
                [self._profiles.keys.offsets(bucket_of(entity)), *self._keys(entity)],
                [source.encode(errors="surrogateescape") for source in sources],
            )
            for entity, sources in unreadable
        ]
        self._profiles.client.run_script(DELETE_UNREADABLE, calls)
        metrics.UNREADABLE_KEYS.labels("profile").inc(len(unreadable))
        log.error("Deleted %d unreadable profiles; they are folded again from the log.", len(unreadable))

    def suggest(self, unreadable: Sequence[UnreadableProfile]) -> str:
        """How many profiles are unreadable and how to repair them; names no entity, as it is logged."""
        buckets = sorted({bucket_of(entity) for entity, _ in unreadable})
        prefix, shell = self._profiles.prefix, self._profiles.client.shell
        return (
            f"Unreadable profiles: {len(unreadable)}, in buckets {buckets}; `python -m worker verify --all` prints the "
            f"first. Run for each: {shell} DEL '{prefix}merged:{{BUCKET}}' '{prefix}profile:{{BUCKET}}:ENTITY', for a "
            f"user also '{prefix}history:{{BUCKET}}:ID'; the worker then folds it again from the log. Where it is "
            "every profile, run `python -m worker rebuild`."
        )

    def entities_of(self, error: Exception) -> Sequence[str]:
        """The entities whose profiles may be unreadable by this error."""
        if isinstance(error, UnreadableProfiles):
            return error.entities
        if isinstance(error, WrongType) and error.key.startswith(f"{self._profiles.prefix}profile:"):
            return [entity_from_key(error.key)]
        if isinstance(error, WrongType) and error.key.startswith(f"{self._profiles.prefix}history:"):
            return [user_from_history_key(error.key)]
        return []

    def _keys(self, entity: str) -> list[str]:
        """The key of an entity's profile, and of a user's history."""
        keys = [self._profiles.keys.profile(entity)]
        return [*keys, *self._profiles.keys.histories([entity])] if entity.startswith("user:") else keys


def is_readable_slice(_: str, record: bytes) -> bool:
    return is_readable(record)


def is_readable_field(name: str, record: bytes) -> bool:
    """Whether a field in the hash of a user's histories is readable."""
    return find_logins_defect(record) is None if name.startswith(LOGINS) else is_history(record)


def is_readable(record: bytes) -> bool:
    return len(record) == RECORD.itemsize and record[:4] == LAYOUT.to_bytes(4, "little")
