"""The rollback test: whether matured labels show that the serving bundle is worse than its parent.

Both are compared on the rows that the bundle served: its served scores against the parent's predictions of the same
rows. Metrics that the parent had when it served itself would compare different weeks.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import torch

from contract.messages import Example
from contract.settings.monitor import MonitorConfig
from contract.tasks import Task
from model.network import Network
from training.data.examples import stack_blocks
from training.monitor.alpha_spending import AlphaSpending
from training.monitor.live_metrics import LiveMetrics, MaturedRows
from training.stats.paired_loss import ExcessLoss, LossDifferences, compare_losses, measure_excess_loss
from training.trainer.learner import PREDICT_ROWS

ALL_TASKS: Final = "all tasks together"


@dataclass(frozen=True, slots=True)
class RollbackTestResult:
    """The result for the serving bundle. `losses`: by tested question; `reasons`: why it is worse, if it is."""

    version: str
    losses: dict[str, ExcessLoss]
    reasons: tuple[str, ...] = ()


class RollbackTest:
    """Compares one version with its parent as rows mature. `network`: the parent's."""

    def __init__(self, *, network: Network, alpha_spending: AlphaSpending, config: MonitorConfig) -> None:
        self.version = alpha_spending.version
        self._network, self._alpha_spending, self._config = network, alpha_spending, config
        self._tasks = [task for task in network.tasks if task.kind != "multiclass"]

    def run(self, live: LiveMetrics) -> RollbackTestResult:
        """Test every question that is due: each task alone, and all together. Raises `BadBundle`, `BadData`."""
        rows = {task.name: self._select_comparable(live, task) for task in self._tasks}
        enough = [task for task in self._tasks if len(rows[task.name]) >= self._config.rows_min]
        due = {
            name: tasks
            for name, tasks in list_questions(enough).items()
            if self._alpha_spending.is_due(name, collect_times(rows, tasks))
        }
        due_tasks = {task.name for tasks in due.values() for task in tasks}
        parts = {task.name: self._compare_losses(task, rows[task.name]) for task in enough if task.name in due_tasks}
        losses, reasons = dict[str, ExcessLoss](), list[str]()
        for name, tasks in due.items():
            differences = {task.name: part for task in tasks if (part := parts[task.name]) is not None}
            if not differences:
                continue
            level = self._risk_share * self._alpha_spending.spend(name, collect_times(rows, tasks))
            weights = {task.name: task.weight if name == ALL_TASKS else 1.0 for task in tasks}
            loss = measure_excess_loss(differences, weights, self._margin(name))
            if loss is not None:
                losses[name] = loss
                if loss.p < level:
                    reasons.append(format_reason(name, loss, self._margin(name)))
        return RollbackTestResult(self.version, losses, tuple(reasons))

    @property
    def _risk_share(self) -> float:
        """Each question's share of the risk."""
        return self._config.risk / (len(self._tasks) + 1)

    def _margin(self, question: str) -> float:
        return self._config.score_margin if question == ALL_TASKS else self._config.margin

    def _select_comparable(self, live: LiveMetrics, task: Task) -> MaturedRows:
        """The rows that the version served and whose features the parent has."""
        matured = live.select_matured(task, self.version)
        digest = self._network.features.digest
        is_comparable = [row.model_version == self.version and row.features == digest for row in matured.rows]
        return matured.filter(np.array(is_comparable, np.bool_))

    def _compare_losses(self, task: Task, matured: MaturedRows) -> LossDifferences | None:
        predictions = predict_rows(self._network, task, matured.rows).astype(np.float64)
        return compare_losses(task, matured.y, matured.w, [row.user_id for row in matured.rows], matured.p, predictions)


def list_questions(tasks: Sequence[Task]) -> dict[str, list[Task]]:
    """Each task alone, and all of them together if there are several."""
    by_task = {task.name: [task] for task in tasks}
    return {**by_task, ALL_TASKS: list(tasks)} if len(tasks) > 1 else by_task


def collect_times(rows: Mapping[str, MaturedRows], tasks: Sequence[Task]) -> npt.NDArray[np.int64]:
    """The event times of all rows of these tasks."""
    return np.array([row.ts_ms for task in tasks for row in rows[task.name].rows], np.int64)


def format_reason(question: str, loss: ExcessLoss, margin: float) -> str:
    return (
        f"{question}: a bundle should lose at most {margin:g} of its parent's gain. Found {loss.gain_lost:.4f} "
        f"on {loss.rows} rows that it served (p = {loss.p:.1g})."
    )


@torch.no_grad()
def predict_rows(network: Network, task: Task, rows: Sequence[Example]) -> npt.NDArray[np.float32]:
    """The predictions of a network (N,), as a worker would serve them. Raises `BadData` for blocks of other widths."""
    (view,) = (view for view in network.views if task.name in {view_task.name for view_task in view.tasks})
    predictions = list[npt.NDArray[np.float32]]()
    for start in range(0, len(rows), PREDICT_ROWS):
        chunk = rows[start : start + PREDICT_ROWS]
        blocks = {group: stack_blocks(group, chunk, network.features) for group in view.groups}
        inputs = {g: (torch.from_numpy(block.numbers), torch.from_numpy(block.ids)) for g, block in blocks.items()}
        probabilities = network.predict_view(view, network.logits(view, network.group_parts(view, inputs)))
        predictions.append(probabilities[task.name].numpy())
    return np.concatenate(predictions)
