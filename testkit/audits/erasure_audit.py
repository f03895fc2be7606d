"""Asks Redis and Kafka whether erased users are gone: their orders' decisions, their lists; each confirmed once."""

from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import chain

from contract.events.model import Erasure
from contract.messages import read_erasure_confirmation, read_recommendations
from contract.redis_keys import escape_id, escape_user_id
from transport.records import Record
from worker.redis.client import RedisClient


class ErasureAudit:
    """Told of confirmations; the slices of erased users are the state audit's business."""

    def __init__(self) -> None:
        self._confirmed: Counter[str] = Counter()

    def record_confirmation(self, record: Record) -> None:
        """A confirmation was published."""
        self._confirmed[read_erasure_confirmation(record.value or b"").event_id] += 1

    def find_unconfirmed(self, erasures: Iterable[Erasure]) -> list[str]:
        """Requests without a confirmation."""
        return [f"erasure {e.event_id} is not confirmed" for e in erasures if not self._confirmed[e.event_id]]

    def find_repeated(self, executions_max: int = 1) -> list[str]:
        """Requests with more confirmations than times they may have been executed."""
        return [
            f"erasure {ident} is confirmed {count} times"
            for ident, count in self._confirmed.items()
            if count > executions_max
        ]

    def find_left(
        self, client: RedisClient, prefix: str, erasures: Mapping[str, Erasure], orders: Mapping[str, Iterable[str]]
    ) -> list[str]:
        """Covered decisions and lists that are in Redis. `orders`: the covered orders by user."""
        left = []
        covered = list(chain.from_iterable(orders.values()))
        commands = [("EXISTS", f"{prefix}decision:{escape_id(order)}") for order in covered]
        decisions = client.pipeline(commands) if commands else []
        left += [f"the decision of {order} is back" for order, there in zip(covered, decisions, strict=True) if there]
        for user, erasure in erasures.items():
            (value,) = client.pipeline([("GET", f"{prefix}rec:{escape_user_id(user)}")])
            if value is not None and read_recommendations(value).source_ms <= erasure.ts_ms:
                left.append(f"the list of {user} is back")
        return left
