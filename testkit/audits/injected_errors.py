"""Errors written into the state in Redis, each of one kind, for audits that should find them while workers run."""

import random
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from contract.hashing import bucket_of
from contract.profiles.histories import HEADER, read_entries
from contract.profiles.record import RECORD
from contract.redis_keys import unescape_entity, unescape_id
from worker.redis.client import RedisClient
from worker.state.profile_store import RedisProfileStore

OFFSET_SHIFT: Final = 1_000_000  # beyond the log of any run
HISTORY_OF: Final = "history of "
ACTION_BIT: Final = 128  # of the action of an entry, which no action has
COUNT_BITS: Final = range(20, 31)  # of a slice's count: no traffic of a run sets or clears them
SliceName = tuple[str, str]  # entity and source


class InjectedError(NamedTuple):
    """An error in Redis. `name`: the entity or bucket, and the source, as a verification names them.

    `is_standing`: whether Redis still holds it; a worker may have overwritten it in the meantime. `repair`: removes it
    where it must not stay.
    """

    kind: str
    name: SliceName
    is_standing: Callable[[], bool]
    repair: Callable[[], None] | None = None

    @property
    def explained(self) -> set[SliceName]:
        """What may differ because of it: a worker that finds a slice missing begins both again."""
        return {self.name, name_history(self.name)}


class ErrorInjector:
    """Writes errors into random slices and histories. `profiles` should use the serving generation."""

    def __init__(self, *, client: RedisClient, profiles: RedisProfileStore, rng: random.Random) -> None:
        self._client, self._profiles, self._rng = client, profiles, rng
        self._invented = 0

    def inject(self, kind: str) -> InjectedError:
        """Write an error of one of `ERROR_KINDS` into a random slice or history."""
        stored_as = "history" if kind in HISTORY_KINDS else "profile"
        return ERROR_KINDS[kind](self, self._choose(stored_as))

    def flip_bit(self, name: SliceName) -> InjectedError:
        record, bit = self._read(name), 1 << self._rng.choice(COUNT_BITS)
        self._write(name, record, count=int(record["count"]) ^ bit)
        return InjectedError("flipped bit", name, lambda: bool(int(self._read(name)["count"]) & bit))

    def delete_slice(self, name: SliceName) -> InjectedError:
        count = int(self._read(name)["count"])
        self._client.pipeline([("HDEL", self._profiles.keys.profile(name[0]), name[1])])

        def is_standing() -> bool:
            return not self._exists(name) or int(self._read(name)["count"]) < count

        return InjectedError("missing slice", name, is_standing)

    def add_slice(self, name: SliceName) -> InjectedError:
        self._invented += 1
        invented = (f"device:invented-{self._invented}", name[1])
        self._write(invented, self._read(name))
        return InjectedError("slice too many", invented, lambda: self._exists(invented))

    def shift_offset(self, name: SliceName) -> InjectedError:
        record = self._read(name)
        offset = int(record["offset"]) + OFFSET_SHIFT
        self._write(name, record, offset=offset)
        return InjectedError("slice offset too far", name, lambda: int(self._read(name)["offset"]) >= offset)

    def shift_merged(self, name: SliceName) -> InjectedError:
        bucket, source = bucket_of(name[0]), name[1]
        key = self._profiles.keys.offsets(bucket)

        def shift(by: int) -> None:
            self._client.pipeline([("HINCRBY", key, source, by)])

        def is_standing() -> bool:
            (offset,) = self._client.pipeline([("HGET", key, source)])
            return int(offset or 0) >= OFFSET_SHIFT

        shift(OFFSET_SHIFT)
        return InjectedError(
            "merged offset too far", (f"bucket {bucket}", source), is_standing, lambda: shift(-OFFSET_SHIFT)
        )

    def flip_history_bit(self, name: SliceName) -> InjectedError:
        record = self._read_history(name)
        self._write_history(name, record[:-1] + bytes([record[-1] | ACTION_BIT]))
        return InjectedError(
            "flipped bit of a history",
            name_history(name),
            lambda: bool((read_entries(self._read_history(name))["action"] & ACTION_BIT).any()),
        )

    def delete_history(self, name: SliceName) -> InjectedError:
        length, (key,) = len(self._read_history(name)), self._profiles.keys.histories([name[0]])
        self._client.pipeline([("HDEL", key, name[1])])
        return InjectedError("missing history", name_history(name), lambda: len(self._read_history(name)) < length)

    def add_history(self, name: SliceName) -> InjectedError:
        self._invented += 1
        invented = (f"user:invented-{self._invented}", name[1])
        self._write_history(invented, self._read_history(name))
        return InjectedError("history too many", name_history(invented), lambda: len(self._read_history(invented)) > 4)

    def _choose(self, stored_as: str) -> SliceName:
        """A random slice (`profile`) or history, by entity and source."""
        while True:
            (key,) = self._client.pipeline([("RANDOMKEY",)])
            prefix, _, name = key.decode().partition("}:")
            if prefix.startswith(f"{self._profiles.prefix}{stored_as}:") and "invented-" not in name:
                (fields,) = self._client.pipeline([("HKEYS", key)])
                if fields:
                    entity = unescape_entity(name) if stored_as == "profile" else f"user:{unescape_id(name)}"
                    return entity, self._rng.choice(sorted(fields)).decode()

    def _read_history(self, name: SliceName) -> bytes:
        """A record; the layout alone where there is none."""
        (record,) = self._client.pipeline([("HGET", *self._profiles.keys.histories([name[0]]), name[1])])
        return record or HEADER

    def _write_history(self, name: SliceName, record: bytes) -> None:
        self._client.pipeline([("HSET", *self._profiles.keys.histories([name[0]]), name[1], record)])

    def _read(self, name: SliceName) -> np.void:
        (record,) = self._client.pipeline([("HGET", self._profiles.keys.profile(name[0]), name[1])])
        fields: np.void = np.frombuffer(record or bytes(RECORD.itemsize), RECORD)[0]
        return fields

    def _exists(self, name: SliceName) -> bool:
        (reply,) = self._client.pipeline([("HEXISTS", self._profiles.keys.profile(name[0]), name[1])])
        return bool(reply)

    def _write(self, name: SliceName, record: np.void, **fields: int) -> None:
        changed: npt.NDArray[np.void] = np.array([record], RECORD)
        for field, value in fields.items():
            changed[field] = value
        self._client.pipeline([("HSET", self._profiles.keys.profile(name[0]), name[1], changed.tobytes())])


ERROR_KINDS: Final[Mapping[str, Callable[[ErrorInjector, SliceName], InjectedError]]] = {
    "flipped bit": ErrorInjector.flip_bit,
    "missing slice": ErrorInjector.delete_slice,
    "slice too many": ErrorInjector.add_slice,
    "slice offset too far": ErrorInjector.shift_offset,
    "merged offset too far": ErrorInjector.shift_merged,
    "flipped bit of a history": ErrorInjector.flip_history_bit,
    "missing history": ErrorInjector.delete_history,
    "history too many": ErrorInjector.add_history,
}
HISTORY_KINDS: Final = frozenset(kind for kind in ERROR_KINDS if "history" in kind)


def name_history(name: SliceName) -> SliceName:
    """A history as a verification names it."""
    return f"{HISTORY_OF}{name[0]}", name[1]
