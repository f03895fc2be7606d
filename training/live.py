"""Live figures: how good a model is by what it said when it served, and by labels that will not change any more."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from contract.rows import Example
from contract.settings import Feedback
from contract.tasks import Task
from training import weighted
from training.evaluation import Evaluation
from training.kept import Kept, graph_of, waits_of
from training.labels import expected_instead
from training.metrics import numbered
from training.watching import Watching

VERSIONS: Final = 8  # that figures are taken of: a learner may publish hundreds in a window
LISTED: Final = ("recommend", "search")  # graphs whose rows stand in lists
Thresholds = Mapping[str, Mapping[str, float]]


@dataclass(frozen=True, slots=True)
class Matured:
    """N rows with a task's final label: labels, what was said, weights (N,); `rows` in the same order."""

    rows: Sequence[Example]
    y: npt.NDArray[np.float64]
    p: npt.NDArray[np.float64]
    w: npt.NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.rows)

    def where(self, chosen: npt.NDArray[np.bool_]) -> "Matured":
        at = np.flatnonzero(chosen)
        return Matured([self.rows[n] for n in at.tolist()], self.y[at], self.p[at], self.w[at])


class Live:
    """Takes examples as they come, the newest revision of each counting, and tells what has matured.

    Time is that of the feedback itself: the latest moment at which a label became known.
    """

    def __init__(self, *, tasks: Sequence[Task], feedback: Feedback, watching: Watching) -> None:
        self.now_ms = 0
        self._tasks, self._watching = tuple(tasks), watching
        self._waits = waits_of(tasks, feedback)
        self._said: dict[str, list[Example]] = {}  # by version, of what is kept; made anew when it changes
        self._kept = {task.graph: Kept(rows_max=watching.rows) for task in tasks if task.name in self._waits}

    def take(self, example: Example) -> None:
        graph = graph_of(example, self._tasks)
        if graph in self._kept and (example.served or example.shadow):
            self._kept[graph].add(example)
            self._said.clear()
        self.now_ms = max([self.now_ms, *example.known_ms.values()])

    def forget(self) -> None:
        """Let go of what no figure wants any more."""
        for graph, kept in self._kept.items():
            longest = max(self._waits[task.name] for task in self._tasks if task.graph == graph)
            kept.forget(self.now_ms - longest - self._window_ms)
        self._said.clear()

    def shares(self) -> dict[str, float]:
        """The share of people whose rows are kept, by graph."""
        return {graph: kept.share for graph, kept in self._kept.items()}

    def versions(self) -> list[str]:
        """The latest models that said something of what is kept, the newest first."""
        return sorted(self._by_version(), reverse=True)[:VERSIONS]

    def matured(self, task: Task, version: str) -> Matured:
        """The rows of which this version said something and whose label will not change; none of unwatched tasks."""
        wait = self._waits.get(task.name)
        if wait is None:
            return matured_of([], task, version)
        until_ms = self.now_ms - wait
        rows = (
            row for row in self._by_version().get(version, []) if until_ms - self._window_ms < row.ts_ms <= until_ms
        )
        return matured_of(rows, task, version)

    def _by_version(self) -> Mapping[str, list[Example]]:
        """What is kept, by who spoke of it."""
        if not self._said:
            for row in (row for kept in self._kept.values() for row in kept):
                for version in {row.model_version, row.shadow_version} - {""}:
                    self._said.setdefault(version, []).append(row)
        return self._said

    @property
    def _window_ms(self) -> int:
        return int(self._watching.window_s * 1_000)

    def figures(self, version: str, thresholds: Thresholds) -> Evaluation:
        """The figures of every task of which this version's rows have matured; those without meaning are left out."""
        found: Evaluation = {}
        for task in self._tasks:
            matured = self.matured(task, version)
            if len(matured):
                figures = figures_of(task, matured, thresholds.get(task.name, {}), self._watching.first)
                found[task.name] = {name: value for name, value in figures.items() if np.isfinite(value)}
        return found


def matured_of(rows: Iterable[Example], task: Task, version: str) -> Matured:
    """Those of the rows that this version spoke of and that have a label of the task's kind."""
    found = [
        (row, float(label), said[task.name], 1 / row.negative_rate)
        for row in rows
        if (said := said_of(row, version)) is not None
        and task.name in said
        and (label := row.labels.get(task.name)) is not None
        and not expected_instead(task, label)
        and 0 < row.negative_rate <= 1
    ]
    y, p, w = (np.array([one[at] for one in found], np.float64) for at in (1, 2, 3))
    return Matured([row for row, *_ in found], y, p, w)


def said_of(row: Example, version: str) -> Mapping[str, float] | None:
    """What a version said of a row, whether it served or stood beside."""
    if row.model_version == version:
        return row.served
    return row.shadow if row.shadow_version == version else None


def figures_of(task: Task, matured: Matured, thresholds: Mapping[str, float], first: int) -> dict[str, float]:
    """The figures of one task. What is not finite counts in `not_finite` and in no other figure."""
    finite = np.isfinite(matured.p)
    figures = {"rows": float(len(matured)), "not_finite": float((~finite).sum())}
    some = matured.where(finite)
    if not len(some):
        return figures
    y, p, w = some.y, some.p, some.w
    if task.kind == "regression":
        return figures | {"rmse": float(np.sqrt(np.average(np.square(y - p), weights=w)))}
    figures |= {
        "positives": weighted.total(w * y),
        "auc": weighted.auc(y, p, w),
        "log_loss": weighted.log_loss(y, p, w),
        "ece": weighted.calibration_error(y, p, w),
        "predicted_to_observed": weighted.predicted_to_observed(y, p, w),
    }
    for action, threshold in thresholds.items():
        recall, false_positives = weighted.caught(y, p, w, threshold)
        figures |= {f"recall_{action}": recall, f"fpr_{action}": false_positives}
    if task.graph in LISTED:
        lists = numbered(np.array([row.event_id for row in some.rows], object))
        figures[f"recall_first_{first}"] = weighted.recall_in_first(y, p, w, lists, first)
    return figures
