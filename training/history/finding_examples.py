"""Examples of findings that show events: noted by number before the records are read in order, described after it."""

from collections.abc import Callable
from dataclasses import dataclass

from contract.events.model import Event
from training.history.hash_table import Numbers, Pairs
from training.history.report import EXAMPLES_MAX, Finding

Describe = Callable[..., str]  # of the events


@dataclass(frozen=True, slots=True)
class NotedExample:
    """An example to be added to a finding: its place, and the records of which `describe` needs the events."""

    finding: Finding
    place: str
    numbers: tuple[int, ...]
    describe: Describe


class FindingExamples:
    """The first examples of findings; holds the events of these records only."""

    def __init__(self, find_place: Callable[[int], str]) -> None:
        self._find_place = find_place
        self._noted: list[NotedExample] = []
        self._numbers = set[int]()
        self._events = dict[int, Event]()

    def note(self, records: Numbers | Pairs, describe: Describe) -> Finding:
        """The finding of these records, (N,) or (N, 2) with another one each that the description needs too."""
        finding = Finding(len(records))
        for numbers in records[:EXAMPLES_MAX].reshape(min(len(records), EXAMPLES_MAX), -1).tolist():
            self._noted.append(NotedExample(finding, self._find_place(numbers[0]), tuple(numbers), describe))
            self._numbers.update(numbers)
        return finding

    def wants(self, number: int) -> bool:
        return number in self._numbers

    def add_event(self, number: int, event: Event) -> None:
        self._events[number] = event

    def describe(self) -> None:
        """Add the examples to their findings, once all events were added."""
        for noted in self._noted:
            noted.finding.show(noted.place, noted.describe(*(self._events[number] for number in noted.numbers)))
