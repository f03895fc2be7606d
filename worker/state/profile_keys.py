"""The keys of profiles, of the histories of users and of merged offsets, under one prefix."""

import re
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from contract.hashing import BUCKETS, bucket_of, buckets_of, hash_texts
from contract.profiles.histories import history_key_prefix
from contract.profiles.record import profile_key_prefix
from contract.profiles.slices import SliceWrites
from contract.redis_keys import escape_entities, escape_entity, escape_ids


class ProfileKeys:
    """Builds keys; `prefix` is that of a generation."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self._profiles = [f"{prefix}{profile_key_prefix(bucket)}" for bucket in range(BUCKETS)]
        self._histories = [f"{prefix}{history_key_prefix(bucket)}" for bucket in range(BUCKETS)]

    def offsets(self, bucket: int) -> str:
        """The key of a bucket's merged offsets."""
        return f"{self.prefix}merged:{{{bucket}}}"

    def profile(self, entity: str) -> str:
        """The key of an entity's profile."""
        return self._profiles[bucket_of(entity)] + escape_entity(entity)

    def profiles(self, entities: Sequence[str], buckets: npt.NDArray[np.int64] | None = None) -> list[str]:
        """The keys of entities' profiles, whose `buckets` may be known."""
        buckets = buckets_of(hash_texts(entities)) if buckets is None else buckets
        parts = escape_entities(entities)
        return [self._profiles[bucket] + part for bucket, part in zip(buckets.tolist(), parts, strict=True)]

    def histories(self, users: Sequence[str], buckets: Sequence[int] | None = None) -> list[str]:
        """The keys of the histories of users (`user:ID`), whose `buckets` may be known."""
        parts = escape_ids([user[len("user:") :] for user in users])
        buckets = buckets_of(hash_texts(users)).tolist() if buckets is None else buckets
        return [self._histories[bucket] + part for bucket, part in zip(buckets, parts, strict=True)]

    def number_profiles(self, written: SliceWrites) -> tuple[list[str], npt.NDArray[np.int64]]:
        """The distinct keys of W slices, and the index of each slice's key (W+1); the last one is their number."""
        is_first = np.diff(written.entity, prepend=-1) != 0
        entities, buckets = written.entity[is_first].tolist(), written.bucket[is_first].tolist()
        parts = escape_entities([written.entities[entity] for entity in entities])
        keys = [self._profiles[bucket] + part for bucket, part in zip(buckets, parts, strict=True)]
        return keys, np.append(np.cumsum(is_first) - 1, len(keys))

    def history_of(self, profile_key: str) -> str | None:
        """The key of the history that goes with a profile under this key; None for one that is not of a user."""
        match = re.fullmatch(r"profile:(\{[^{}]+\}):user:(.*)", profile_key.removeprefix(self.prefix))
        return f"{self.prefix}history:{match[1]}:{match[2]}" if match else None

    def profile_of(self, history_key: str) -> str | None:
        """The key of the profile that goes with a history under this key; None for a key of another form."""
        match = re.fullmatch(r"history:(\{[^{}]+\}):(.*)", history_key.removeprefix(self.prefix))
        return f"{self.prefix}profile:{match[1]}:user:{match[2]}" if match else None


def hash_tag(key: str, prefix: str) -> str:
    """The braces in a profile's key, by which a cluster places it; one without is placed by its whole name."""
    match = re.match(r"profile:(\{[^{}]+\}):", key.removeprefix(prefix))
    return match[1] if match else f"{{{key}}}"
