"""Orders and what is said of them later: fraud, a chargeback, a cancellation; and that nothing was said in time."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from contract.events import Judgement, Label
from contract.joining.output import Counts, Fate, Output
from contract.joining.parking import Parked
from contract.joining.served import whole
from contract.joining.shelf import Shelf
from contract.profiles import JUDGED_TASKS
from contract.rows import Scored
from contract.settings import Feedback

LABELS_MAX: Final = 64  # for one order; a stream of ever new labels must not fill the memory


@dataclass(slots=True)
class Judged:
    """An order as served, with the labels that came for it, and whether its window has passed."""

    row: Scored
    labels: list[Label] = field(default_factory=list)
    has_passed: bool = False

    def current(self) -> dict[str, Label]:
        """The newest label of each task."""
        return {label.task: label for label in self.labels}

    def repeats(self, label: Label) -> bool:
        """Whether the label says nothing new."""
        newest = self.current().get(label.task)
        return label.event_id in (known.event_id for known in self.labels) or (
            newest is not None and newest.value == label.value
        )


class Orders:
    """Joins rows of orders with labels. `tasks`: of which an order is free when its window passes in silence."""

    def __init__(self, *, feedback: Feedback, tasks: Sequence[str], output: Output, counts: Counts) -> None:
        self._window_ms, self._grace_ms = feedback.fraud_window_s * 1000, feedback.grace_s * 1000
        self._tasks, self._known = tuple(tasks), {*tasks, *JUDGED_TASKS}
        self._output, self._counts = output, counts
        self._orders = Shelf[str, Judged](limit=feedback.rows_max, remembered=feedback.parked_max)
        # A label waits for its row as long as a row for its labels.
        self._parked = Parked[str, Label](wait_ms=self._window_ms, limit=feedback.parked_max)

    def scored(self, row: Scored) -> None:
        if self._orders.get(row.event_id) or self._orders.left(row.event_id):
            self._counts["duplicate", "row"] += 1
            return
        due_ms = row.ts_ms + self._window_ms
        crowded = self._orders.put(row.event_id, Judged(row), since_ms=row.ts_ms, due_ms=due_ms)
        if crowded:
            for task in self._tasks:
                self._counts["crowded", task] += 1
        for label in self._parked.claim(row.event_id):
            self.label(label)

    def label(self, label: Label) -> None:
        order = self._orders.get(label.judged_event_id)
        if order is None:
            self._wait(label)
        elif order.row.user_id != label.user_id:
            self._count("foreign", label)
        elif order.repeats(label):
            self._count("duplicate", label)
        elif label.ts_ms > order.row.ts_ms + self._window_ms + self._grace_ms:
            self._count("late", label)
        elif len(order.labels) >= LABELS_MAX:
            self._count("crowded", label)
        else:
            self._judge(order, label)

    def advance(self, watermark_ms: int) -> None:
        for key, order in self._orders.due(watermark_ms):
            if order.has_passed:
                self._orders.remove(key)
            else:
                self._pass(order)
        for label in self._parked.expired(watermark_ms):
            self._count("orphan", label)

    def oldest_ms(self) -> list[int | None]:
        return [self._orders.oldest_ms(), self._parked.oldest_ms()]

    def _wait(self, label: Label) -> None:
        if self._orders.left(label.judged_event_id):
            self._count("late", label)
            return
        self._count("parked", label)
        if leaving := self._parked.park(label.judged_event_id, label):
            self._count("orphan", leaving)

    def _judge(self, order: Judged, label: Label) -> None:
        if label.ts_ms > order.row.ts_ms + self._window_ms and not order.has_passed:
            self._pass(order)  # said before the correction, whether or not a timer came by first
        order.labels.append(label)
        self._orders.include(order.row.event_id, label.ts_ms)
        self._tell(order)
        self._output.judgements.append(
            Judgement(
                event_id=label.event_id,
                ts_ms=label.ts_ms,
                user_id=label.user_id,
                judged_event_id=label.judged_event_id,
                task=label.task,
                value=label.value,
                entities=order.row.entities,
            )
        )

    def _pass(self, order: Judged) -> None:
        """The window has passed: what was not said by now did not happen, as far as anybody knows."""
        order.has_passed = True
        self._orders.wake(order.row.event_id, order.row.ts_ms + self._window_ms + self._grace_ms)
        if not set(self._tasks) <= order.current().keys():
            self._tell(order)

    def _tell(self, order: Judged) -> None:
        """Say what is known. The revision names it: how many labels there are, and whether the window has passed."""
        labels: dict[str, float | str] = {}
        known_ms: dict[str, int] = {}
        if order.has_passed:
            labels = dict.fromkeys(self._tasks, 0.0)
            known_ms = dict.fromkeys(self._tasks, order.row.ts_ms + self._window_ms)
        for task, label in order.current().items():
            labels[task], known_ms[task] = label.value, label.ts_ms
        revision = 2 * len(order.labels) + order.has_passed
        self._output.examples.append(whole(order.row, labels, known_ms, revision))

    def _count(self, fate: Fate, label: Label) -> None:
        self._counts[fate, label.task if label.task in self._known else "other"] += 1
