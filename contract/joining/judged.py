"""Rows that are judged as a whole: what is said later of an order, a review or a product; and that nothing was said.

Orders and reviews are honest when their window passes in silence, and not before. What a product is, silence does not
tell: its row only waits for corrections of its category.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from contract.events import Judgement, Label
from contract.joining.output import Counts, Fate, Origin, Orphan, Output
from contract.joining.parking import Parked
from contract.joining.served import whole
from contract.joining.shelf import Shelf
from contract.profiles import JUDGED_TASKS
from contract.rows import Scored, ScoredKind
from contract.settings import Feedback
from contract.tasks import Task

LABELS_MAX: Final = 64  # for one row; a stream of ever new labels must not fill the memory
GRAPHS: Final[Mapping[ScoredKind, str]] = {"order": "decide", "review": "review", "product": "classify"}


def silent_tasks(tasks: Sequence[Task]) -> dict[ScoredKind, tuple[str, ...]]:
    """For each kind of row the tasks that are 0 when its window passes without a label: yes or no, and never a class.

    >>> silent_tasks([Task("fraud", "binary", ("order",), "decide"), Task("category", "multiclass", (), "classify")])
    {'order': ('fraud',), 'review': (), 'product': ()}
    """
    return {
        kind: tuple(task.name for task in tasks if task.graph == graph and task.kind == "binary")
        for kind, graph in GRAPHS.items()
    }


@dataclass(frozen=True, slots=True)
class Arrived:
    """A label and where it was read."""

    label: Label
    origin: Origin | None

    @property
    def ts_ms(self) -> int:
        return self.label.ts_ms


@dataclass(slots=True)
class Judged:
    """A row as served, with the labels that came for it, and whether its window has passed."""

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

    def is_foreign(self, label: Label) -> bool:
        """Whether the label speaks of another user's event; a product is nobody's."""
        return self.row.user_id not in ("", label.user_id)


class JudgedRows:
    """Joins rows of orders, reviews and products with labels."""

    def __init__(self, *, feedback: Feedback, tasks: Sequence[Task], output: Output, counts: Counts) -> None:
        self._window_ms, self._grace_ms = feedback.fraud_window_s * 1000, feedback.grace_s * 1000
        self._silent = silent_tasks(tasks)
        self._known = {*(task.name for task in tasks), *JUDGED_TASKS}
        self._output, self._counts = output, counts
        self._rows = Shelf[str, Judged](limit=feedback.rows_max, remembered=feedback.parked_max)
        # A label waits for its row as long as a row for its labels.
        self._parked = Parked[str, Arrived](wait_ms=self._window_ms, limit=feedback.parked_max)

    def scored(self, row: Scored) -> None:
        if self._rows.get(row.event_id) or self._rows.left(row.event_id):
            self._counts["duplicate", "row"] += 1
            return
        due_ms = row.ts_ms + self._window_ms
        crowded = self._rows.put(row.event_id, Judged(row), since_ms=row.ts_ms, due_ms=due_ms)
        if crowded:
            for task in self._silent[crowded[1].row.kind] or ("other",):
                self._counts["crowded", task] += 1
        for arrived in self._parked.claim(row.event_id):
            self.label(arrived.label, arrived.origin)

    def label(self, label: Label, origin: Origin | None = None) -> None:
        judged = self._rows.get(label.judged_event_id)
        if judged is None:
            self._wait(Arrived(label, origin))
        elif judged.is_foreign(label):
            self._count("foreign", label)
        elif judged.repeats(label):
            self._count("duplicate", label)
        elif label.ts_ms > judged.row.ts_ms + self._window_ms + self._grace_ms:
            self._count("late", label)
        elif len(judged.labels) >= LABELS_MAX:
            self._count("crowded", label)
        else:
            self._judge(judged, label)

    def advance(self, watermark_ms: int) -> None:
        for key, judged in self._rows.due(watermark_ms):
            if judged.has_passed:
                self._rows.remove(key)
            else:
                self._pass(judged)
        for arrived in self._parked.expired(watermark_ms):
            self._orphan(arrived)

    def oldest_ms(self) -> list[int | None]:
        return [self._rows.oldest_ms(), self._parked.oldest_ms()]

    def _wait(self, arrived: Arrived) -> None:
        label = arrived.label
        if self._rows.left(label.judged_event_id):
            self._count("late", label)
            return
        self._count("parked", label)
        if leaving := self._parked.park(label.judged_event_id, arrived):
            self._orphan(leaving)

    def _orphan(self, arrived: Arrived) -> None:
        self._count("orphan", arrived.label)
        task, row_id = self._task(arrived.label), arrived.label.judged_event_id
        self._output.orphans.append(Orphan(task, row_id, arrived.origin))

    def _judge(self, judged: Judged, label: Label) -> None:
        if label.ts_ms > judged.row.ts_ms + self._window_ms and not judged.has_passed:
            self._pass(judged)  # said before the correction, whether or not a timer came by first
        judged.labels.append(label)
        self._rows.include(judged.row.event_id, label.ts_ms)
        self._tell(judged)
        self._output.judgements.append(
            Judgement(
                event_id=label.event_id,
                ts_ms=label.ts_ms,
                user_id=label.user_id,
                judged_event_id=label.judged_event_id,
                task=label.task,
                value=label.value,
                entities=judged.row.entities,
            )
        )

    def _pass(self, judged: Judged) -> None:
        """The window has passed: what was not said by now did not happen, as far as anybody knows."""
        judged.has_passed = True
        self._rows.wake(judged.row.event_id, judged.row.ts_ms + self._window_ms + self._grace_ms)
        if not set(self._silent[judged.row.kind]) <= judged.current().keys():
            self._tell(judged)

    def _tell(self, judged: Judged) -> None:
        """Say what is known. The revision names it: how many labels there are, and whether the window has passed."""
        labels: dict[str, float | str] = {}
        known_ms: dict[str, int] = {}
        if judged.has_passed:
            silent = self._silent[judged.row.kind]
            labels, known_ms = dict.fromkeys(silent, 0.0), dict.fromkeys(silent, judged.row.ts_ms + self._window_ms)
        for task, label in judged.current().items():
            labels[task], known_ms[task] = label.value, label.ts_ms
        revision = 2 * len(judged.labels) + judged.has_passed
        self._output.examples.append(whole(judged.row, labels, known_ms, revision))

    def _count(self, fate: Fate, label: Label) -> None:
        self._counts[fate, self._task(label)] += 1

    def _task(self, label: Label) -> str:
        return label.task if label.task in self._known else "other"
