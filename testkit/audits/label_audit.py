"""Told of labels, scored rows and examples, asked at the end which labels are missing, early or on wrong features.

It audits the joins of orders: the others need the simulated shop of `testkit.joiner`.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable

from contract.events.model import Label
from contract.messages import Example, ScoredRow
from testkit.joiner.expected import ExpectedExample
from testkit.joiner.oracle import has_features

TASK = "fraud"


class LabelAudit:
    """`latest_ms_until(wall_ms)`: the latest event time that was sent until a moment, which no watermark exceeds."""

    def __init__(self, latest_ms_until: Callable[[int], int]) -> None:
        self.duplicates: list[str] = []
        self._latest_ms_until = latest_ms_until
        self._labels = defaultdict[str, list[Label]](list)  # by order, in the order of sending
        self._rows = defaultdict[str, list[ScoredRow]](list)
        self._revisions = defaultdict[str, dict[int, tuple[Example, int]]](dict)

    def record_label(self, label: Label) -> None:
        """A label of an order was acknowledged."""
        self._labels[label.judged_event_id].append(label)

    def record_scored_row(self, row: ScoredRow) -> None:
        """A scored row was published."""
        if row.kind == "order":
            self._rows[row.event_id].append(row)

    def record_example(self, example: Example, kafka_ms: int) -> None:
        """An example was published, at a time of Kafka's clock."""
        if example.revision in self._revisions[example.example_id]:
            self.duplicates.append(f"example {example.example_id} has revision {example.revision} twice")
        self._revisions[example.example_id][example.revision] = example, kafka_ms

    def find_unjoined(self, exempt: Iterable[str] = ()) -> list[str]:
        """Labels that no example has, and orders whose newest example lacks their last label."""
        exempt_orders = set(exempt)
        return [
            sentence
            for order, labels in self._labels.items()
            if order not in exempt_orders
            for sentence in self._compare(order, labels)
        ]

    def find_unlabelled(self, before_ms: int, exempt: Iterable[str] = ()) -> list[str]:
        """Orders before a time that have no label at all: where their windows have passed, each should have one."""
        exempt_orders = set(exempt)
        return [
            f"order {order} has no label after its window"
            for order, rows in self._rows.items()
            if order not in exempt_orders
            and rows[0].ts_ms < before_ms
            and not any(TASK in example.labels for example, _ in self._revisions[order].values())
        ]

    def find_early(self) -> list[str]:
        """Silent negatives that were published before event time had reached the end of their windows."""
        early = []
        for order, revisions in self._revisions.items():
            known = {(float(label.value), label.ts_ms) for label in self._labels.get(order, ())}
            for example, kafka_ms in revisions.values():
                value, known_ms = example.labels.get(TASK), example.known_ms.get(TASK, 0)
                if value == 0.0 and (value, known_ms) not in known and known_ms > self._latest_ms_until(kafka_ms):
                    early.append(f"order {order} was taken for no fraud before {known_ms}")
        return early

    def find_wrong_features(self) -> list[str]:
        """Examples of orders whose features are not those of the scored row."""
        return [
            f"example {order} has other features than its row"
            for order, revisions in self._revisions.items()
            for example, _ in revisions.values()
            if example.item_id == ""
            and not any(has_features(example, ExpectedExample(row, None)) for row in self._rows[order])
        ]

    def _compare(self, order: str, labels: list[Label]) -> Iterable[str]:
        examples = self._revisions[order]
        facts = {(e.labels.get(TASK), e.known_ms.get(TASK)) for e, _ in examples.values()}
        for label in labels:
            if (label.value, label.ts_ms) not in facts:
                yield f"label {label.event_id} of order {order} is in no example"
        if examples and examples[max(examples)][0].labels.get(TASK) != labels[-1].value:
            yield f"order {order} should end with the label {labels[-1].value}"
