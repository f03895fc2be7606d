"""A ledger of guarantees: told what went in, shown what came out, and asked at the end what was lost or contradicted.

It knows neither Kafka nor the worker; whoever moves the records tells it. Every broken promise is a sentence.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

from contract.messages import DeadLetter, Decision, ScoredRow, to_json

T = TypeVar("T")


class Place(NamedTuple):
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
class GuaranteeLedger:
    """Promises: an order has decisions that agree and a scored row, a click a scored row, a bad record a dead letter.

    An event that was produced n times may be answered n times; more answers than that are duplicates.
    """

    orders: Counter[str] = field(default_factory=Counter)
    clicks: Counter[str] = field(default_factory=Counter)
    bad: dict[Place, BadRecord] = field(default_factory=dict)
    _decisions: dict[str, list[Decision]] = field(default_factory=dict)
    _cached: dict[str, Decision] = field(default_factory=dict)
    _scored: Counter[tuple[str, str]] = field(default_factory=Counter)
    _letters: dict[Place, list[tuple[BadRecord, str]]] = field(default_factory=dict)

    def ordered(self, event_id: str) -> None:
        """An order was produced, and acknowledged."""
        self.orders[event_id] += 1

    def clicked(self, event_id: str) -> None:
        """A click was produced, and acknowledged."""
        self.clicks[event_id] += 1

    def spoiled(self, place: Place, record: BadRecord) -> None:
        """A bad record was produced, and acknowledged to lie at `place`."""
        self.bad[place] = record

    def decided(self, decision: Decision) -> None:
        """A decision was published."""
        self._decisions.setdefault(decision.event_id, []).append(decision)

    def cached(self, decisions: Iterable[Decision]) -> None:
        """These decisions stand in the cache, where an order service reads them."""
        self._cached |= {decision.event_id: decision for decision in decisions}

    def scored(self, row: ScoredRow) -> None:
        """A scored row was published."""
        self._scored[row.kind, row.event_id] += 1

    def buried(self, letter: DeadLetter, key: bytes | None, value: bytes | None) -> None:
        """A dead letter was published."""
        place = Place(letter.topic, letter.partition, letter.offset)
        self._letters.setdefault(place, []).append((BadRecord(key, value, letter.reason), letter.detail))

    def lost(self) -> list[str]:
        """What was promised and did not come."""
        missing = [f"order {ident} has no decision" for ident in self.orders if ident not in self._decisions]
        missing += [f"order {ident} has no cached decision" for ident in self.orders if ident not in self._cached]
        missing += [f"order {ident} has no scored row" for ident in self.orders if ("order", ident) not in self._scored]
        missing += [f"click {ident} has no scored row" for ident in self.clicks if ("click", ident) not in self._scored]
        return missing + [f"bad record {place} has no dead letter" for place in self.bad if place not in self._letters]

    def conflicting(self) -> list[str]:
        """Answers that contradict one another, what was produced, or that nobody asked for."""
        found = []
        for ident, published in self._decisions.items():
            copies = {to_json(copy) for copy in [*published, self._cached.get(ident, published[0])]}
            if len(copies) > 1:
                found.append(f"order {ident} has decisions that differ: {copies}")
        found += [
            f"nobody made the order {ident} that was decided" for ident in self._decisions if ident not in self.orders
        ]
        for place, letters in self._letters.items():
            produced = self.bad.get(place)
            for said, detail in letters:
                if produced is None:
                    found.append(f"{place} was no bad record, its dead letter says: {said.reason}: {detail}")
                elif said != produced:
                    found.append(f"{place} should be buried as {summary(produced)}, was {summary(said)}")
        return found

    def duplicates(self) -> int:
        """How many answers came more often than what they answer."""
        decisions = {ident: len(copies) for ident, copies in self._decisions.items()}
        letters = {place: len(copies) for place, copies in self._letters.items()}
        rows_of_orders = {ident: count for (kind, ident), count in self._scored.items() if kind == "order"}
        rows_of_clicks = {ident: count for (kind, ident), count in self._scored.items() if kind == "click"}
        answers = surplus(decisions, self.orders) + surplus(rows_of_orders, self.orders)
        return answers + surplus(rows_of_clicks, self.clicks) + surplus(letters, dict.fromkeys(self.bad, 1))


def surplus(came: Mapping[T, int], asked: Mapping[T, int]) -> int:
    return sum(max(0, count - asked.get(what, 0)) for what, count in came.items())


def summary(record: BadRecord) -> str:
    value = record.value if record.value is None else record.value[:40]
    return f"{record.reason} (key {record.key!r}, {len(record.value or b'')} bytes: {value!r})"
