"""Joins orders, reviews and products with labels that arrive later.

Orders and reviews become negatives when their window passes without a label. Products have no default label: their rows
only wait for corrections of the category.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from contract.events.model import Judgement, Label
from contract.graphs import GRAPHS
from contract.joining.early_events import EarlyEvents
from contract.joining.examples import example_from_row
from contract.joining.output import ForeignLabel, JoinOutcome, JoinOutput, Origin, OrphanLabel, OutcomeCounts
from contract.joining.pending import PendingStore
from contract.joining.row_store import RowStore
from contract.messages import ScoredKind, ScoredRow
from contract.profiles.record import JUDGED_TASKS
from contract.settings.worker import FeedbackSettings
from contract.tasks import Task

LABELS_MAX: Final = 64  # for one row, so that endless labels cannot fill the memory
GRAPH_BY_KIND: Final[Mapping[ScoredKind, str]] = {  # rows that get labels as a whole
    kind: graph.name for graph in GRAPHS.values() if not graph.is_paired for kind in graph.scored_kinds
}


def default_negative_tasks(tasks: Sequence[Task]) -> dict[ScoredKind, tuple[str, ...]]:
    """For each kind of row the binary tasks that are 0 when its window passes without a label.

    >>> default_negative_tasks([Task("fraud", "binary", (), "decide"), Task("category", "multiclass", (), "classify")])
    {'order': ('fraud',), 'review': (), 'product': ()}
    """
    return {
        kind: tuple(task.name for task in tasks if task.graph == graph and task.kind == "binary")
        for kind, graph in GRAPH_BY_KIND.items()
    }


@dataclass(frozen=True, slots=True)
class ReceivedLabel:
    """A label and its position in the log."""

    label: Label
    origin: Origin | None

    @property
    def ts_ms(self) -> int:
        return self.label.ts_ms


@dataclass(slots=True)
class LabelledRow:
    """A row as served, its labels so far, and whether its window has passed."""

    row: ScoredRow
    labels: list[Label] = field(default_factory=list)
    window_passed: bool = False

    def newest_labels(self) -> dict[str, Label]:
        """The newest label of each task."""
        return {label.task: label for label in self.labels}

    def is_repeat(self, label: Label) -> bool:
        """Whether the label was received before, or repeats the newest value of its task."""
        newest = self.newest_labels().get(label.task)
        return label.event_id in (known.event_id for known in self.labels) or (
            newest is not None and newest.value == label.value
        )

    def is_of_other_user(self, label: Label) -> bool:
        """Whether the label names another user than the row; rows of products have no user."""
        return self.row.user_id not in ("", label.user_id)


class LabelJoin:
    """Joins rows of orders, reviews and products with labels."""

    def __init__(
        self,
        *,
        feedback: FeedbackSettings,
        tasks: Sequence[Task],
        output: JoinOutput,
        counts: OutcomeCounts,
        rows: RowStore | None = None,
    ) -> None:
        self._window_ms = feedback.fraud_window_s * 1000
        self._grace_ms = feedback.grace_s * 1000
        self._default_negative = default_negative_tasks(tasks)
        self._task_names = {*(task.name for task in tasks), *JUDGED_TASKS}
        self._output, self._counts = output, counts
        self._rows = PendingStore(
            "labelled", LabelledRow, limit=feedback.rows_max, removed_max=feedback.parked_max, rows=rows
        )
        # A label waits for its row as long as a row waits for labels.
        self._early = EarlyEvents(
            "early_labels", ReceivedLabel, wait_ms=self._window_ms, limit=feedback.parked_max, rows=rows
        )
        self.stores: list[PendingStore[Any]] = [self._rows, self._early.pending]

    def add_row(self, row: ScoredRow) -> None:
        if self._rows.get(row.event_id) or self._rows.was_removed(row.event_id):
            self._counts["duplicate", "row"] += 1
            return
        due_ms = row.ts_ms + self._window_ms
        evicted = self._rows.add(row.event_id, LabelledRow(row), since_ms=row.ts_ms, due_ms=due_ms, owner=row.user_id)
        if evicted:
            for task in self._default_negative[evicted[1].row.kind] or ("other",):
                self._counts["crowded", task] += 1
        for received in self._early.pop(row.event_id):
            self.add_label(received.label, received.origin)

    def add_label(self, label: Label, origin: Origin | None = None) -> None:
        pending = self._rows.get(label.judged_event_id)
        if pending is None:
            self._buffer(ReceivedLabel(label, origin))
        elif pending.is_of_other_user(label):
            self._count("foreign", label)
            self._output.foreign.append(ForeignLabel(label.event_id, self._task_name(label), label.judged_event_id))
        elif pending.is_repeat(label):
            self._count("duplicate", label)
        elif label.ts_ms > pending.row.ts_ms + self._window_ms + self._grace_ms:
            self._count("late", label)
        elif len(pending.labels) >= LABELS_MAX:
            self._count("crowded", label)
        else:
            self._apply_label(pending, label)

    def advance(self, watermark_ms: int) -> None:
        for key, pending in self._rows.due(watermark_ms):
            if pending.window_passed:
                self._rows.remove(key)
            else:
                self._expire(pending)
        for received in self._early.pop_expired(watermark_ms):
            self._report_orphan(received)

    def _buffer(self, received: ReceivedLabel) -> None:
        label = received.label
        if self._rows.was_removed(label.judged_event_id):
            self._count("late", label)
            return
        self._count("parked", label)
        if evicted := self._early.add(label.judged_event_id, received, owner=label.user_id):
            self._report_orphan(evicted)

    def _report_orphan(self, received: ReceivedLabel) -> None:
        self._count("orphan", received.label)
        label = received.label
        self._output.orphans.append(OrphanLabel(self._task_name(label), label.judged_event_id, received.origin))

    def _apply_label(self, pending: LabelledRow, label: Label) -> None:
        if label.ts_ms > pending.row.ts_ms + self._window_ms and not pending.window_passed:
            self._expire(pending)  # emitted before the correction, even if the timer has not fired yet
        pending.labels.append(label)
        self._rows.update(pending.row.event_id, part_ms=label.ts_ms)
        self._emit(pending)
        self._output.judgements.append(
            Judgement(
                event_id=label.event_id,
                ts_ms=label.ts_ms,
                user_id=label.user_id,
                judged_event_id=label.judged_event_id,
                task=label.task,
                value=label.value,
                entities=pending.row.entities,
            )
        )

    def _expire(self, pending: LabelledRow) -> None:
        """End the window: tasks without a label get their default negative."""
        pending.window_passed = True
        self._rows.update(pending.row.event_id, due_ms=pending.row.ts_ms + self._window_ms + self._grace_ms)
        if not set(self._default_negative[pending.row.kind]) <= pending.newest_labels().keys():
            self._emit(pending)

    def _emit(self, pending: LabelledRow) -> None:
        """Emit the labels so far. The revision encodes their number and whether the window has passed."""
        labels: dict[str, float | str] = {}
        known_ms: dict[str, int] = {}
        if pending.window_passed:
            default_negative = self._default_negative[pending.row.kind]
            labels = dict.fromkeys(default_negative, 0.0)
            known_ms = dict.fromkeys(default_negative, pending.row.ts_ms + self._window_ms)
        for task, label in pending.newest_labels().items():
            labels[task] = label.value
            known_ms[task] = label.ts_ms
        revision = 2 * len(pending.labels) + pending.window_passed
        self._output.examples.append(example_from_row(pending.row, labels, known_ms, revision))

    def _count(self, outcome: JoinOutcome, label: Label) -> None:
        self._counts[outcome, self._task_name(label)] += 1

    def _task_name(self, label: Label) -> str:
        return label.task if label.task in self._task_names else "other"
