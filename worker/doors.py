"""What a protocol works through: where events come in and answers go out, and where a worker remembers.

Apart from the protocol, so that its neighbours can be given the same without knowing it.
"""

from dataclasses import dataclass

from worker.caches import Caches
from worker.claims import Claims
from worker.intake import Intake
from worker.profile_store import RedisProfiles
from worker.publisher import Publisher


@dataclass(frozen=True, slots=True, kw_only=True)
class Doors:
    """Where events come in and answers go out."""

    intake: Intake
    publisher: Publisher


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """Where a worker remembers and caches."""

    profiles: RedisProfiles
    claims: Claims
    caches: Caches
