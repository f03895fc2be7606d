"""The delivery ledger: records what was produced and what was published, and lists what was lost or contradicted.

It knows neither Kafka nor the worker; its caller moves the records. Every broken promise is one sentence.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

from contract.messages import DeadLetter, Decision, ScoredRow, to_json
from testkit.environment.kafka_log import RecordPosition

T = TypeVar("T")


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
    erased: set[str] = field(default_factory=set)  # events whose user was erased: only an order is owed a decision
    unclaimed: set[str] = field(default_factory=set)  # orders that may be decided twice: Redis may have lost the claim
    _decisions: dict[str, list[Decision]] = field(default_factory=dict)
    _cached: dict[str, Decision] = field(default_factory=dict)
    _scored: Counter[tuple[str, str]] = field(default_factory=Counter)
    _lists: Counter[tuple[str, str, int, int]] = field(default_factory=Counter)  # by id and the event's position
    _dead_letters: dict[RecordPosition, list[tuple[BadRecord, str]]] = field(default_factory=dict)

    def record_order(self, event_id: str) -> None:
        """An order was produced and acknowledged."""
        self.orders[event_id] += 1

    def record_click(self, event_id: str) -> None:
        """A click was produced and acknowledged."""
        self.clicks[event_id] += 1

    def record_bad_record(self, position: RecordPosition, record: BadRecord) -> None:
        """A bad record was produced and acknowledged at `position`."""
        self.bad_records[position] = record

    def record_decision(self, decision: Decision) -> None:
        """A decision was published."""
        self._decisions.setdefault(decision.event_id, []).append(decision)

    def record_cached(self, decisions: Iterable[Decision]) -> None:
        """These decisions are in Redis, where an order service reads them."""
        self._cached |= {decision.event_id: decision for decision in decisions}

    def record_scored_row(self, row: ScoredRow) -> None:
        """A scored row was published."""
        self._scored[row.kind, row.event_id] += 1
        if row.kind not in ("order", "click"):
            self._lists[row.event_id, row.topic, row.partition, row.offset] += 1

    def record_dead_letter(self, letter: DeadLetter, key: bytes | None, value: bytes | None) -> None:
        """A dead letter was published."""
        position = RecordPosition(letter.topic, letter.partition, letter.offset)
        self._dead_letters.setdefault(position, []).append((BadRecord(key, value, letter.reason), letter.detail))

    def find_lost(self) -> list[str]:
        """Promised outputs that are missing."""
        return [
            *(f"order {event_id} has no decision" for event_id in self.orders if event_id not in self._decisions),
            *(f"order {id_} has no cached decision" for id_ in self.orders.keys() - self._cached.keys() - self.erased),
            *self._find_unscored("order", self.orders),
            *self._find_unscored("click", self.clicks),
            *(f"bad record {p} has no dead letter" for p in self.bad_records if p not in self._dead_letters),
        ]

    def find_conflicts(self) -> list[str]:
        """Answers that contradict one another or what was produced, and answers to events that were never produced."""
        return [
            *self._find_differing_decisions(),
            *(f"order {id_} was decided and never produced" for id_ in self._decisions if id_ not in self.orders),
            *self._find_wrong_dead_letters(),
        ]

    def count_duplicates(self) -> int:
        """Answers in excess of what was produced."""
        return sum(self.count_duplicates_by_kind().values())

    def count_duplicates_by_kind(self) -> dict[str, int]:
        """Answers in excess of what was produced: decisions, scored rows by kind, dead letters."""
        decisions = {event_id: len(copies) for event_id, copies in self._decisions.items()}
        letters = {position: len(copies) for position, copies in self._dead_letters.items()}
        rows_of_orders = {event_id: count for (kind, event_id), count in self._scored.items() if kind == "order"}
        rows_of_clicks = {event_id: count for (kind, event_id), count in self._scored.items() if kind == "click"}
        return {
            "decisions": count_surplus(decisions, self.orders),
            "orders": count_surplus(rows_of_orders, self.orders),
            "clicks": count_surplus(rows_of_clicks, self.clicks),
            "dead letters": count_surplus(letters, dict.fromkeys(self.bad_records, 1)),
            "lists": count_surplus(self._lists, dict.fromkeys(self._lists, 1)),
        }

    def _find_unscored(self, kind: str, produced: Iterable[str]) -> Iterable[str]:
        for event_id in produced:
            if (kind, event_id) not in self._scored and event_id not in self.erased:
                yield f"{kind} {event_id} has no scored row"

    def _find_differing_decisions(self) -> Iterable[str]:
        for event_id, published in self._decisions.items():
            if event_id in self.erased or event_id in self.unclaimed:
                continue
            copies = {to_json(copy) for copy in [*published, self._cached.get(event_id, published[0])]}
            if len(copies) > 1:
                yield f"order {event_id} has decisions that differ: {copies}"

    def _find_wrong_dead_letters(self) -> Iterable[str]:
        for position, letters in self._dead_letters.items():
            expected = self.bad_records.get(position)
            for record, detail in letters:
                if expected is None:
                    yield f"{position} was no bad record; its dead letter gives {record.reason}: {detail}"
                elif record != expected:
                    yield (
                        f"the dead letter of {position} should hold {summarize_record(expected)}, "
                        f"holds {summarize_record(record)}"
                    )


def count_surplus(answers: Mapping[T, int], questions: Mapping[T, int]) -> int:
    return sum(max(0, count - questions.get(key, 0)) for key, count in answers.items())


def summarize_record(record: BadRecord) -> str:
    value = record.value if record.value is None else record.value[:40]
    return f"{record.reason} (key {record.key!r}, {len(record.value or b'')} bytes: {value!r})"
