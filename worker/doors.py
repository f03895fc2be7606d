"""What a protocol works through: where events come in and answers go out, and where a worker remembers.

Apart from the protocol, so that its neighbours can be given the same without knowing it.
"""

from dataclasses import dataclass

from worker.caches import AnswerCache
from worker.claims import DecisionStore
from worker.intake import GroupConsumer
from worker.profile_store import RedisProfileStore
from worker.publisher import TransactionalProducer


@dataclass(frozen=True, slots=True, kw_only=True)
class KafkaClients:
    """Where events come in and answers go out."""

    consumer: GroupConsumer
    producer: TransactionalProducer


@dataclass(frozen=True, slots=True, kw_only=True)
class Stores:
    """Where a worker remembers and caches."""

    profiles: RedisProfileStore
    decision_store: DecisionStore
    answer_cache: AnswerCache
