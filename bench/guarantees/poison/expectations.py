"""What a shop's workers owe each odd record that Kafka has taken, and what they have not given."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from bench.guarantees.poison.record_forms import OddRecord
from contract.errors import BadEvent
from contract.events.model import DELETABLE_KINDS, REASONS, Click, Erasure, Event, Order, Search, UserEvent, clamp
from contract.events.reading import EventReaders
from contract.messages import DEAD_LETTER_HEADER, DeadLetter, read_dead_letter, read_decision, read_scored_row
from testkit.environment.kafka_log import RecordPosition
from transport.records import Record


@dataclass(slots=True)
class Published:
    """What the workers have published: by position, dead letters and scored rows; ids of decided orders."""

    letters: dict[RecordPosition, DeadLetter] = field(default_factory=dict)
    scored: set[RecordPosition] = field(default_factory=set)
    decided: set[str] = field(default_factory=set)

    def add_letters(self, records: Iterable[Record]) -> None:
        for record in records:
            letter = read_dead_letter([value for name, value in record.headers if name == DEAD_LETTER_HEADER][-1])
            self.letters[RecordPosition(letter.topic, letter.partition, letter.offset)] = letter

    def add_scored(self, records: Iterable[Record]) -> None:
        for record in records:
            row = read_scored_row(record.value or b"")
            self.scored.add(RecordPosition(row.topic, row.partition, row.offset))

    def add_decisions(self, records: Iterable[Record]) -> None:
        self.decided.update(read_decision(record.value or b"").event_id for record in records)


class Expectations:
    """The records that were taken, by position, and the events that they hold by the readers of this shop."""

    def __init__(self, readers: EventReaders) -> None:
        self._readers = readers
        self.odd: dict[RecordPosition, OddRecord] = {}
        self.bad: dict[RecordPosition, str] = {}
        self.events: dict[RecordPosition, Event] = {}
        self.good_orders: set[str] = set()
        self._erased: set[str] = set()

    def add(self, position: RecordPosition, record: OddRecord, kafka_ms: int) -> None:
        """Kafka has taken a record at this position."""
        self.odd[position] = record
        if record.value is None and record.key and record.kind in DELETABLE_KINDS:
            return  # a tombstone
        try:
            event, _ = clamp(self._readers[record.kind].read(record.value), kafka_ms)
        except BadEvent as error:
            self.bad[position] = error.reason
            return
        self.events[position] = event
        if isinstance(event, Erasure):
            self._erased.add(event.user_id)

    def find_unanswered(self, published: Published) -> Iterator[str]:
        """What is owed and was not given, and dead letters without their reason or of records that are none."""
        for position, reason in self.bad.items():
            letter = published.letters.get(position)
            if letter is None:
                yield f"{self._describe(position)} should be a dead letter ({reason}). Found none."
            elif letter.reason not in REASONS or letter.reason != reason or not letter.detail:
                yield f"{self._describe(position)} should be a dead letter ({reason}). Found {letter}."
        for position, letter in published.letters.items():
            if position not in self.bad:
                yield f"{self._describe(position)} should be answered. Found the dead letter {letter}."
        for position, event in self.events.items():
            if self._is_scored(event) and position not in published.scored and position not in published.letters:
                yield f"{self._describe(position)} should have a scored row. Found none."
            if isinstance(event, Order) and event.event_id not in published.decided:
                yield f"{self._describe(position)} should have a decision. Found none."
        for event_id in self.good_orders - published.decided:
            yield f"The good order {event_id} should have a decision. Found none."

    def _is_scored(self, event: Event) -> bool:
        """Whether a scored row is owed; none is to the events of erased users."""
        if isinstance(event, UserEvent) and event.user_id in self._erased:
            return False
        return isinstance(event, Order | Click) or (isinstance(event, Search) and bool(event.items))

    def _describe(self, position: RecordPosition) -> str:
        record = self.odd.get(position)
        shown = f"{record.form}: {record.value!r:.200}" if record else "no odd record"
        return f"{position.topic}[{position.partition}]@{position.offset} ({shown})"


def find_ends(positions: Iterable[RecordPosition]) -> Mapping[tuple[str, int], int]:
    """The offset after the last record of each partition."""
    ends: dict[tuple[str, int], int] = {}
    for topic, partition, offset in positions:
        ends[topic, partition] = max(ends.get((topic, partition), 0), offset + 1)
    return ends
