"""A ledger of guarantees: told what went in, shown what came out, and asked at the end what was lost or contradicted.

It knows neither Kafka nor the worker; whoever moves the records tells it. Every broken promise is a sentence.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

from contract.messages import DeadLetter, Decision, ScoredRow, to_json

T = TypeVar("T")


class RecordPosition(NamedTuple):
    """Where a record lies."""

    topic: str
    partition: int
    offset: int


class BadRecord(NamedTuple):
    """A record that cannot be answered: its key and bytes, and the reason that its dead letter should give."""

    key: bytes | None
    value: bytes | None
    reason: str


@dataclass(slots=True)
class DeliveryLedger:
    """Promises: an order has decisions that agree and a scored row, a click a scored row, a bad record a dead letter.

    An event that was produced n times may be answered n times; more answers than that are duplicates.
    """

    orders: Counter[str] = field(default_factory=Counter)
    clicks: Counter[str] = field(default_factory=Counter)
    bad_records: dict[RecordPosition, BadRecord] = field(default_factory=dict)
    _decisions: dict[str, list[Decision]] = field(default_factory=dict)
    _cached: dict[str, Decision] = field(default_factory=dict)
    _scored: Counter[tuple[str, str]] = field(default_factory=Counter)
    _dead_letters: dict[RecordPosition, list[tuple[BadRecord, str]]] = field(default_factory=dict)

    def record_order(self, event_id: str) -> None:
        """An order was produced, and acknowledged."""
        self.orders[event_id] += 1

    def record_click(self, event_id: str) -> None:
        """A click was produced, and acknowledged."""
        self.clicks[event_id] += 1

    def record_bad_record(self, position: RecordPosition, record: BadRecord) -> None:
        """A bad record was produced, and acknowledged to lie at `place`."""
        self.bad_records[position] = record

    def record_decision(self, decision: Decision) -> None:
        """A decision was published."""
        self._decisions.setdefault(decision.event_id, []).append(decision)

    def record_cached(self, decisions: Iterable[Decision]) -> None:
        """These decisions stand in the cache, where an order service reads them."""
        self._cached |= {decision.event_id: decision for decision in decisions}

    def record_scored_row(self, row: ScoredRow) -> None:
        """A scored row was published."""
        self._scored[row.kind, row.event_id] += 1

    def record_dead_letter(self, letter: DeadLetter, key: bytes | None, value: bytes | None) -> None:
        """A dead letter was published."""
        position = RecordPosition(letter.topic, letter.partition, letter.offset)
        self._dead_letters.setdefault(position, []).append((BadRecord(key, value, letter.reason), letter.detail))

    def find_lost(self) -> list[str]:
        """What was promised and did not come."""
        missing = [f"order {event_id} has no decision" for event_id in self.orders if event_id not in self._decisions]
        missing += [
            f"order {event_id} has no cached decision" for event_id in self.orders if event_id not in self._cached
        ]
        missing += [
            f"order {event_id} has no scored row" for event_id in self.orders if ("order", event_id) not in self._scored
        ]
        missing += [
            f"click {event_id} has no scored row" for event_id in self.clicks if ("click", event_id) not in self._scored
        ]
        return missing + [
            f"bad record {position} has no dead letter"
            for position in self.bad_records
            if position not in self._dead_letters
        ]

    def find_conflicts(self) -> list[str]:
        """Answers that contradict one another, what was produced, or that nobody asked for."""
        conflicts = []
        for event_id, published in self._decisions.items():
            copies = {to_json(copy) for copy in [*published, self._cached.get(event_id, published[0])]}
            if len(copies) > 1:
                conflicts.append(f"order {event_id} has decisions that differ: {copies}")
        conflicts += [
            f"nobody made the order {event_id} that was decided"
            for event_id in self._decisions
            if event_id not in self.orders
        ]
        for position, letters in self._dead_letters.items():
            produced = self.bad_records.get(position)
            for buried, detail in letters:
                if produced is None:
                    conflicts.append(f"{position} was no bad record, its dead letter says: {buried.reason}: {detail}")
                elif buried != produced:
                    conflicts.append(
                        f"{position} should be buried as {summarize_record(produced)}, was {summarize_record(buried)}"
                    )
        return conflicts

    def count_duplicates(self) -> int:
        """How many answers came more often than what they answer."""
        decisions = {event_id: len(copies) for event_id, copies in self._decisions.items()}
        letters = {position: len(copies) for position, copies in self._dead_letters.items()}
        rows_of_orders = {event_id: count for (kind, event_id), count in self._scored.items() if kind == "order"}
        rows_of_clicks = {event_id: count for (kind, event_id), count in self._scored.items() if kind == "click"}
        answers = count_surplus(decisions, self.orders) + count_surplus(rows_of_orders, self.orders)
        return (
            answers
            + count_surplus(rows_of_clicks, self.clicks)
            + count_surplus(letters, dict.fromkeys(self.bad_records, 1))
        )


def count_surplus(answers: Mapping[T, int], questions: Mapping[T, int]) -> int:
    return sum(max(0, count - questions.get(key, 0)) for key, count in answers.items())


def summarize_record(record: BadRecord) -> str:
    value = record.value if record.value is None else record.value[:40]
    return f"{record.reason} (key {record.key!r}, {len(record.value or b'')} bytes: {value!r})"
