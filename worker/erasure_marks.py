"""How far erasures are carried out: one hash in Redis, a field for whoever holds a partition in a lane.

    erasures    hash    LANE>TOPIC/PARTITION -> {"ID/PARTITION": offset, ...}    all before is forgotten there

A generation of the state has marks of its own, beside its profiles.
ID is that of the topic of erasures, so that what is said of one topic is not believed of another of its name.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Final, TypeAlias

import msgspec

from contract.rows import to_json
from worker.intake import Place
from worker.profile_store import RedisProfiles, source_name
from worker.redis_client import pairs

Reached: TypeAlias = Mapping[str, int]  # partition of the topic of erasures -> offset (exclusive)
READ: Final = msgspec.json.Decoder(dict[str, int]).decode
NOWHERE: Final[Reached] = {}


class ErasureMarks:
    """Reads and writes these marks."""

    def __init__(self, *, profiles: RedisProfiles, topic_id: Callable[[], str | None] = lambda: None) -> None:
        """`topic_id`: asks for the id of the topic of erasures, if the broker tells."""
        self._profiles = profiles
        self._ask_topic_id = topic_id
        self._topic_id: str | None = None

    @property
    def key(self) -> str:
        return f"{self._profiles.prefix}erasures"

    def open(self) -> None:
        """Ask which topic of erasures it is that marks are about; raises `Unavailable`."""
        self._topic_id = self._ask_topic_id()

    def name(self, place: Place) -> str:
        """What a partition of the topic of erasures is called in marks."""
        return source_name("erasures", self._topic_id, place.partition)

    def read(self) -> dict[str, Reached]:
        """Every field; one that cannot be read says nothing."""
        (reply,) = self._profiles.client.pipeline([("HGETALL", self.key)])
        return {field.decode(errors="replace"): reached(value) for field, value in pairs(reply)}

    def write(self, fields: Iterable[str], done: Reached) -> None:
        """Note how far these are."""
        flat = [part for field in fields for part in (field, to_json(done))]
        if flat:
            self._profiles.client.pipeline([("HSET", self.key, *flat)])

    def take_over(self, former: "ErasureMarks", built: Mapping[Place, int]) -> None:
        """Note of every holder what holds both of its former mark and of a state built with erasures up to `built`."""
        ends = {self.name(place): end for place, end in built.items()}
        for field, mark in former.read().items():
            self.write([field], {name: min(at, mark[name]) for name, at in ends.items() if name in mark})


def reached(value: bytes) -> Reached:
    try:
        return READ(value)
    except msgspec.MsgspecError:
        return NOWHERE


def holder(lane: str, place: Place) -> str:
    """The field of whoever holds a partition in a lane."""
    return f"{lane}>{place.topic}/{place.partition}"
