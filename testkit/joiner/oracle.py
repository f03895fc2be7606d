"""Checks the published examples of the joiner's kill test against the simulator's expected examples.

Every revision that read-committed consumers see is checked: whether it was published too early, twice, or with features
other than those of its row. The newest revision of each example should have the expected labels.
"""

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from contract.features.packing import PackedBlock
from contract.messages import Example, ScoredRow
from testkit.joiner.expected import ExpectedExample, LabelFact, TimedRecord


class SentPortion(NamedTuple):
    """A portion of the records: wall-clock time when sending began, and its latest event time."""

    start_ms: int
    latest_ms: int


class PublishedExample(NamedTuple):
    """An example and the timestamp of its Kafka record."""

    example: Example
    kafka_ms: int


@dataclass(slots=True)
class JoinCounts:
    """Counts of the check."""

    in_window: int = 0
    joined: int = 0
    early: int = 0
    duplicates: int = 0
    wrong_features: int = 0
    wrong_examples: list[str] = field(
        default_factory=list
    )  # examples whose newest revision is missing or not as expected


class JoinOracle:
    """Checks published examples against `expected`, given the sent `records` in order and their portions."""

    def __init__(
        self, *, expected: dict[str, ExpectedExample], records: Sequence[TimedRecord], portions: Sequence[SentPortion]
    ) -> None:
        self._expected = expected
        self._before_ms = find_latest_before(records)
        self._start_ms = [portion.start_ms for portion in portions]
        self._latest_ms = [max(p.latest_ms for p in portions[: n + 1]) for n in range(len(portions))]

    def evaluate(self, published: Iterable[PublishedExample]) -> JoinCounts:
        revisions_by_example, counts = defaultdict[str, dict[int, Example]](dict), JoinCounts()
        for example, kafka_ms in published:
            revisions, expected = revisions_by_example[example.example_id], self._expected.get(example.example_id)
            counts.duplicates += example.revision in revisions
            revisions[example.revision] = example
            if expected is None or not has_features(example, expected):
                counts.wrong_features += 1
            else:
                counts.early += sum(self._is_early(example, task, expected, kafka_ms) for task in example.labels)
        for example_id, expected in self._expected.items():
            self._compare(example_id, expected, revisions_by_example.get(example_id, {}), counts)
        return counts

    def _compare(
        self, example_id: str, expected: ExpectedExample, revisions: dict[int, Example], counts: JoinCounts
    ) -> None:
        """Check the newest revision, and that each fact in its window is in a revision with the features of its row."""
        newest = revisions[max(revisions)] if revisions else None
        is_true = newest is not None and (newest.labels, newest.known_ms) == (expected.labels, expected.known_ms)
        if not is_true:
            counts.wrong_examples.append(f"{example_id}: {newest and newest.labels}, expected {expected.labels}")
        with_features = [example for example in revisions.values() if has_features(example, expected)]
        for fact in expected.facts:
            if fact.in_window:
                counts.in_window += 1
                counts.joined += is_true and any(has_fact(example, fact) for example in with_features)

    def _is_early(self, example: Example, task: str, expected: ExpectedExample, kafka_ms: int) -> bool:
        """Whether a label was published before it could be known."""
        known_ms, value = example.known_ms[task], example.labels[task]
        if any(has_fact(example, fact) for fact in expected.facts if fact.task == task):
            return False  # it came from an event, at that event's time
        if value != 0.0 or known_ms < expected.negative_from_ms[task] or known_ms >= self._latest_sent_ms(kafka_ms):
            return True
        return any(self._contradicts(fact, task, known_ms) for fact in expected.facts)

    def _contradicts(self, fact: LabelFact, task: str, known_ms: int) -> bool:
        """Whether the watermark cannot have passed `known_ms` before this fact was read: no later record came first."""
        return fact.task == task and fact.ts_ms <= known_ms and self._before_ms[fact.event_id] <= known_ms

    def _latest_sent_ms(self, kafka_ms: int) -> int:
        """The latest event time of all portions whose sending had begun by then."""
        portions = bisect_left(self._start_ms, kafka_ms)
        return self._latest_ms[portions - 1] if portions else 0


def find_latest_before(records: Iterable[TimedRecord]) -> dict[str, int]:
    """For each event the latest event time that precedes it in its partition."""
    latest, latest_by_event = Counter[tuple[str, int]](), dict[str, int]()
    for record in records:
        partition = record.kind, record.partition
        latest_by_event.setdefault(record.event_id, latest[partition])
        latest[partition] = max(latest[partition], record.ts_ms)
    return latest_by_event


def has_fact(example: Example, fact: LabelFact) -> bool:
    return example.labels.get(fact.task) == fact.value and example.known_ms[fact.task] == fact.ts_ms


def has_features(example: Example, expected: ExpectedExample) -> bool:
    """Whether the example holds exactly the bytes, scores and ids of its row."""
    row, item_index = expected.row, expected.item_index
    groups = {group: block for group, block in row.groups.items() if group != "item"}
    if item_index is not None:
        groups["item"] = slice_row(row.groups["item"], item_index)
    served = {task: scores[item_index or 0] for task, scores in row.scores.items()}
    return (example.groups, example.served, identify(example)) == (groups, served, identify(row))


def identify(message: Example | ScoredRow) -> tuple[str, ...]:
    return message.event_id, message.user_id, message.model_version, message.features, *message.entities


def slice_row(block: PackedBlock, index: int) -> PackedBlock:
    """The bytes of one row of a block: 4 for a number, 8 for an id."""
    unpacked = block.unpack()
    numbers, ids = unpacked.numbers.shape[1] * 4, unpacked.ids.shape[1] * 8
    return PackedBlock(1, block.numbers[index * numbers :][:numbers], block.ids[index * ids :][:ids])
