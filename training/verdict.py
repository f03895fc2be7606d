"""The verdict on the bundle that serves: whether matured labels show that it is worse than its parent.

Both are judged on the very rows that the bundle served: by what it said then, and by what the parent's network says of
them now. Figures of another week would compare weeks.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import torch

from contract.rows import Example
from contract.tasks import Task
from model.network import Network
from training.examples import gathered
from training.excess import Excess, Pairs, excess, pairs_of
from training.learner import PREDICT_ROWS
from training.live import Live, Matured
from training.looks import Looks
from training.watching import Watching

SCORE: Final = "all tasks together"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of looking at the bundle that serves. `excess`: by question; `reasons`: why it is worse, if it is."""

    version: str
    excess: dict[str, Excess]
    reasons: tuple[str, ...] = ()


class Judge:
    """Compares one version with its parent as rows mature; `network`: the parent's, `looks`: those at the version."""

    def __init__(self, *, network: Network, looks: Looks, watching: Watching) -> None:
        self.version = looks.version
        self._network, self._looks, self._watching = network, looks, watching
        self._tasks = [task for task in network.tasks if task.kind != "multiclass"]

    def look(self, live: Live) -> Verdict:
        """Ask every question that is due: each task alone, and all of them together. Raises `BadBundle`, `BadData`."""
        rows = {task.name: self._comparable(live, task) for task in self._tasks}
        enough = [task for task in self._tasks if len(rows[task.name]) >= self._watching.rows_min]
        due = {name: of for name, of in questions(enough).items() if self._looks.is_due(name, times(rows, of))}
        asked = {task.name for of in due.values() for task in of}
        parts = {task.name: self._pairs(task, rows[task.name]) for task in enough if task.name in asked}
        found, reasons = dict[str, Excess](), list[str]()
        for name, of in due.items():
            known = {task.name: pairs for task in of if (pairs := parts[task.name]) is not None}
            if not known:
                continue
            level = self._level * self._looks.take(name, times(rows, of))
            weights = {task.name: task.weight if name == SCORE else 1.0 for task in of}
            one = excess(known, weights, self._margin(name))
            if one is not None:
                found[name] = one
                reasons += [sentence(name, one, self._margin(name))] if one.p < level else []
        return Verdict(self.version, found, tuple(reasons))

    @property
    def _level(self) -> float:
        """Each question's share of the risk."""
        return self._watching.risk / (len(self._tasks) + 1)

    def _margin(self, question: str) -> float:
        return self._watching.score_margin if question == SCORE else self._watching.margin

    def _comparable(self, live: Live, task: Task) -> Matured:
        """The rows that the version served and the parent can read."""
        matured = live.matured(task, self.version)
        of = [r.model_version == self.version and r.features == self._network.features.digest for r in matured.rows]
        return matured.where(np.array(of, np.bool_))

    def _pairs(self, task: Task, matured: Matured) -> Pairs | None:
        now = said_now(self._network, task, matured.rows).astype(np.float64)
        return pairs_of(task, matured.y, matured.w, [row.user_id for row in matured.rows], matured.p, now)


def questions(tasks: Sequence[Task]) -> dict[str, list[Task]]:
    """Each task by itself, and all of them if there are several."""
    found = {task.name: [task] for task in tasks}
    return {**found, SCORE: list(tasks)} if len(tasks) > 1 else found


def times(rows: Mapping[str, Matured], tasks: Sequence[Task]) -> npt.NDArray[np.int64]:
    return np.array([row.ts_ms for task in tasks for row in rows[task.name].rows], np.int64)


def sentence(question: str, one: Excess, margin: float) -> str:
    return (
        f"{question}: a bundle should lose at most {margin:g} of its parent's gain. Found {one.lost:.4f} on {one.rows} "
        f"rows that it served (p = {one.p:.1g})."
    )


@torch.no_grad()
def said_now(network: Network, task: Task, rows: Sequence[Example]) -> npt.NDArray[np.float32]:
    """What a network says of rows (N,) in life, as a worker would. Raises `BadData` for blocks of other widths."""
    (view,) = (view for view in network.views if task.name in {one.name for one in view.tasks})
    found = list[npt.NDArray[np.float32]]()
    for start in range(0, len(rows), PREDICT_ROWS):
        some = rows[start : start + PREDICT_ROWS]
        blocks = {group: gathered(group, some, network.features) for group in view.groups}
        inputs = {g: (torch.from_numpy(block.numbers), torch.from_numpy(block.ids)) for g, block in blocks.items()}
        answers = network.answers(view, network.logits(view, network.parts(view, inputs)))
        found.append(answers[task.name].numpy())
    return np.concatenate(found)
