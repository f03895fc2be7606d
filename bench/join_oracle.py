"""What the examples of `python -m bench join` should be, judged by what the simulator knows and by plain rules.

It looks at every revision that readers of committed records see: whether it was said too early, twice, or with features
other than those of its row; and at the newest one of each example, whether it is true.
"""

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from bench.join_truth import Fact, Sent, Truth
from contract.messages import Example, PackedBlock, ScoredRow


class Portion(NamedTuple):
    """When a portion of the records began to be sent, by the clock, and the latest event time in it."""

    began_ms: int
    latest_ms: int


class Published(NamedTuple):
    """An example, and when Kafka was given it."""

    example: Example
    kafka_ms: int


@dataclass(slots=True)
class Verdict:
    """Counts of what was found."""

    in_window: int = 0
    joined: int = 0
    early: int = 0
    duplicates: int = 0
    wrong_features: int = 0
    untrue: list[str] = field(default_factory=list)  # examples whose newest revision is not the truth, or lacks


class Oracle:
    """Judges what was published of `truths`, when `records` were sent in their order, in these portions."""

    def __init__(self, *, truths: dict[str, Truth], records: Sequence[Sent], portions: Sequence[Portion]) -> None:
        self._truths = truths
        self._before_ms = latest_before(records)
        self._began_ms = [portion.began_ms for portion in portions]
        self._latest_ms = [max(p.latest_ms for p in portions[: n + 1]) for n in range(len(portions))]

    def judge(self, published: Iterable[Published]) -> Verdict:
        found, verdict = defaultdict[str, dict[int, Example]](dict), Verdict()
        for example, kafka_ms in published:
            revisions, truth = found[example.example_id], self._truths.get(example.example_id)
            verdict.duplicates += example.revision in revisions
            revisions[example.revision] = example
            if truth is None or not has_features(example, truth):
                verdict.wrong_features += 1
            else:
                verdict.early += sum(self._is_early(example, task, truth, kafka_ms) for task in example.labels)
        for ident, truth in self._truths.items():
            self._compare(ident, truth, found.get(ident, {}), verdict)
        return verdict

    def _compare(self, ident: str, truth: Truth, revisions: dict[int, Example], verdict: Verdict) -> None:
        """The newest revision, and whether each fact was told in some revision with the features of its row."""
        newest = revisions[max(revisions)] if revisions else None
        is_true = newest is not None and (newest.labels, newest.known_ms) == (truth.labels, truth.known_ms)
        if not is_true:
            verdict.untrue.append(f"{ident}: {newest and newest.labels}, should be {truth.labels}")
        sound = [example for example in revisions.values() if has_features(example, truth)]
        for fact in truth.facts:
            if fact.in_window:
                verdict.in_window += 1
                verdict.joined += is_true and any(tells(example, fact) for example in sound)

    def _is_early(self, example: Example, task: str, truth: Truth, kafka_ms: int) -> bool:
        """Whether a label was known before it could be."""
        known_ms, value = example.known_ms[task], example.labels[task]
        if any(tells(example, fact) for fact in truth.facts if fact.task == task):
            return False  # an event brought it, at the time that it says
        if value != 0.0 or known_ms < truth.waited_ms[task] or known_ms >= self._latest_sent_ms(kafka_ms):
            return True
        return any(self._contradicts(fact, task, known_ms) for fact in truth.facts)

    def _contradicts(self, fact: Fact, task: str, known_ms: int) -> bool:
        """Whether time cannot have passed `known_ms` before this fact was read: nothing later lay before it."""
        return fact.task == task and fact.ts_ms <= known_ms and self._before_ms[fact.event_id] <= known_ms

    def _latest_sent_ms(self, kafka_ms: int) -> int:
        """The latest event time of all that had begun to be sent by then."""
        portions = bisect_left(self._began_ms, kafka_ms)
        return self._latest_ms[portions - 1] if portions else 0


def latest_before(records: Iterable[Sent]) -> dict[str, int]:
    """For each event the latest event time that lies before it in its partition."""
    latest, found = Counter[tuple[str, int]](), dict[str, int]()
    for record in records:
        place = record.kind, record.partition
        found.setdefault(record.event_id, latest[place])
        latest[place] = max(latest[place], record.ts_ms)
    return found


def tells(example: Example, fact: Fact) -> bool:
    return example.labels.get(fact.task) == fact.value and example.known_ms[fact.task] == fact.ts_ms


def has_features(example: Example, truth: Truth) -> bool:
    """Whether the example holds exactly the bytes of its row, and what was said of it."""
    row, at = truth.row, truth.at
    groups = {group: block for group, block in row.groups.items() if group != "item"}
    if at is not None:
        groups["item"] = cut(row.groups["item"], at)
    served = {task: scores[at or 0] for task, scores in row.scores.items()}
    return (example.groups, example.served, origin(example)) == (groups, served, origin(row))


def origin(one: Example | ScoredRow) -> tuple[str, ...]:
    return one.event_id, one.user_id, one.model_version, one.features, *one.entities


def cut(block: PackedBlock, at: int) -> PackedBlock:
    """The bytes of one row of a block: 4 for a number, 8 for an id."""
    unpacked = block.unpack()
    numbers, ids = unpacked.numbers.shape[1] * 4, unpacked.ids.shape[1] * 8
    return PackedBlock(1, block.numbers[at * numbers :][:numbers], block.ids[at * ids :][:ids])
