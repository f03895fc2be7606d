"""What a protocol works through: where events come in and answers go out, and where a worker remembers.

Apart from the protocol, so that its neighbours can be given the same without knowing it.
"""

from dataclasses import dataclass

from worker.kafka.consumer import GroupConsumer
from worker.kafka.producer import TransactionalProducer
from worker.state.answer_cache import AnswerCache
from worker.state.decision_store import DecisionStore
from worker.state.profile_store import RedisProfileStore


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
