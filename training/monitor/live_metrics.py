"""Live metrics: the quality of served models, from the scores they served and labels that have matured."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from contract.graphs import GRAPHS
from contract.messages import Example
from contract.profiles.erasures import Erasures
from contract.settings.monitor import MonitorConfig
from contract.settings.worker import FeedbackSettings
from contract.tasks import Task
from training.data.codes import factorize
from training.data.labels import is_valid_label
from training.metrics.calibration import calibration_error, ratio_to_observed
from training.metrics.losses import log_loss, root_mean_squared_error
from training.metrics.ranking import auc, rates_at_threshold, recall_at_k
from training.monitor.example_store import ExampleStore
from training.trainer.evaluation import Evaluation

VERSIONS_MAX: Final = 8  # versions with metrics: a learner may publish hundreds in a window
Thresholds = Mapping[str, Mapping[str, float]]


@dataclass(frozen=True, slots=True)
class MaturedRows:
    """N rows with a task's final label `y`, served score `p` and weight `w`, all (N,) in the order of `rows`."""

    rows: Sequence[Example]
    y: npt.NDArray[np.float64]
    p: npt.NDArray[np.float64]
    w: npt.NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.rows)

    def filter(self, mask: npt.NDArray[np.bool_]) -> "MaturedRows":
        indices = np.flatnonzero(mask)
        return MaturedRows([self.rows[n] for n in indices.tolist()], self.y[indices], self.p[indices], self.w[indices])


class LiveMetrics:
    """Keeps the newest revision of each example, and evaluates those whose labels have matured.

    `now_ms` is event time: when the latest label became known.
    """

    def __init__(self, *, tasks: Sequence[Task], feedback: FeedbackSettings, config: MonitorConfig) -> None:
        self.now_ms = 0
        self._tasks = tuple(tasks)
        self._config = config
        self._maturity_delays_ms = maturity_delays_ms(tasks, feedback)
        self._rows_by_version: dict[str, list[Example]] = {}  # cleared when the stores change
        self._stores = {
            task.graph: ExampleStore(rows_max=config.rows) for task in tasks if task.name in self._maturity_delays_ms
        }

    def observe(self, example: Example) -> None:
        graph = find_graph(example, self._tasks)
        if graph in self._stores and (example.served or example.shadow):
            self._stores[graph].add(example)
            self._rows_by_version.clear()
        self.now_ms = max([self.now_ms, *example.known_ms.values()])

    def evict_old(self) -> None:
        """Remove examples that have left the window of every task."""
        for graph, store in self._stores.items():
            longest = max(self._maturity_delays_ms[task.name] for task in self._tasks if task.graph == graph)
            store.evict_before(self.now_ms - longest - self._window_ms)
        self._rows_by_version.clear()

    def erase(self, erasures: Erasures) -> None:
        """Remove the examples of erased people."""
        for store in self._stores.values():
            store.erase(erasures)
        self._rows_by_version.clear()

    def user_shares(self) -> dict[str, float]:
        """The share of users whose rows are kept, by graph."""
        return {graph: store.share for graph, store in self._stores.items()}

    def versions(self) -> list[str]:
        """The latest versions that scored stored rows, the newest first."""
        return sorted(self._group_by_version(), reverse=True)[:VERSIONS_MAX]

    def select_matured(self, task: Task, version: str) -> MaturedRows:
        """The rows that this version scored and whose label has matured; none for tasks without a maturity delay."""
        delay_ms = self._maturity_delays_ms.get(task.name)
        if delay_ms is None:
            return select_matured([], task, version)
        until_ms = self.now_ms - delay_ms
        rows = (
            row
            for row in self._group_by_version().get(version, [])
            if until_ms - self._window_ms < row.ts_ms <= until_ms
        )
        return select_matured(rows, task, version)

    def _group_by_version(self) -> Mapping[str, list[Example]]:
        """The stored rows by the versions that scored them, as serving model or as shadow."""
        if not self._rows_by_version:
            for store in self._stores.values():
                for row in store:
                    for version in {row.model_version, row.shadow_version} - {""}:
                        self._rows_by_version.setdefault(version, []).append(row)
        return self._rows_by_version

    @property
    def _window_ms(self) -> int:
        return int(self._config.window_s * 1_000)

    def evaluate(self, version: str, thresholds: Thresholds) -> Evaluation:
        """The metrics of each task of which this version has matured rows; values that are not finite are left out."""
        evaluation: Evaluation = {}
        for task in self._tasks:
            matured = self.select_matured(task, version)
            if len(matured):
                metrics = compute_metrics(task, matured, thresholds.get(task.name, {}), self._config.first)
                evaluation[task.name] = {name: value for name, value in metrics.items() if np.isfinite(value)}
        return evaluation


def select_matured(rows: Iterable[Example], task: Task, version: str) -> MaturedRows:
    """The rows that this version scored and that have a valid label of the task."""
    labelled = [
        (row, float(label), scores[task.name], 1 / row.negative_rate)
        for row in rows
        if (scores := find_scores(row, version)) is not None
        and task.name in scores
        and (label := row.labels.get(task.name)) is not None
        and is_valid_label(task, label)
        and 0 < row.negative_rate <= 1
    ]
    y, p, w = (np.array([entry[column] for entry in labelled], np.float64) for column in (1, 2, 3))
    return MaturedRows([row for row, *_ in labelled], y, p, w)


def find_scores(row: Example, version: str) -> Mapping[str, float] | None:
    """The scores that a version gave a row, as serving model or as shadow."""
    if row.model_version == version:
        return row.served
    return row.shadow if row.shadow_version == version else None


def compute_metrics(task: Task, matured: MaturedRows, thresholds: Mapping[str, float], k: int) -> dict[str, float]:
    """The metrics of one task, with recall at `k`. Scores that are not finite count in `not_finite` alone."""
    finite = np.isfinite(matured.p)
    metrics = {"rows": float(len(matured)), "not_finite": float((~finite).sum())}
    usable = matured.filter(finite)
    if not len(usable):
        return metrics
    y, p, w = usable.y, usable.p, usable.w
    if task.kind == "regression":
        level = {"predicted_to_observed": ratio_to_observed(y, p, w)}
        return metrics | {"rmse": root_mean_squared_error(y, p, w)} | level
    metrics |= {
        "positives": float((w * y).sum()),
        "auc": auc(y, p, w),
        "log_loss": log_loss(y, p, w),
        "ece": calibration_error(y, p, w),
        "predicted_to_observed": ratio_to_observed(y, p, w),
    }
    for action, threshold in thresholds.items():
        recall, false_positives = rates_at_threshold(y, p, w, threshold)
        metrics |= {f"recall_{action}": recall, f"fpr_{action}": false_positives}
    if GRAPHS[task.graph].is_paired:
        lists = factorize(np.array([row.event_id for row in usable.rows], object))
        metrics[f"recall_first_{k}"] = recall_at_k(y, p, w, lists, k)
    return metrics


def find_graph(example: Example, tasks: Sequence[Task]) -> str | None:
    """The graph of an example: that of the first task with a label."""
    return next((task.graph for task in tasks if task.name in example.labels), None)


def maturity_delay_ms(task: Task, feedback: FeedbackSettings) -> int:
    """The time after which the label of a task is final, positive or negative.

    Positives wait as long as negatives, or the latest rows would all be positives.
    """
    if GRAPHS[task.graph].is_rare_positive:
        seconds = feedback.fraud_window_s
    else:
        seconds = feedback.click_wait_s + (feedback.purchase_window_s if task.through else 0)
    return (seconds + feedback.grace_s) * 1_000


def maturity_delays_ms(tasks: Sequence[Task], feedback: FeedbackSettings) -> Mapping[str, int]:
    """The delay of each task whose labels arrive later; a product's class is known at once and has none."""
    return {task.name: maturity_delay_ms(task, feedback) for task in tasks if task.kind != "multiclass"}
