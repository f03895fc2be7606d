"""A contest: two models judged by what they said when they served, and whether their difference is more than chance.

A shadow is paired: both said something of the same rows. In a canary users are apart, so each model has rows of its
own. Rows of one user hang together, so whole users are drawn again: the percentile interval of the bootstrap (Efron and
Tibshirani 1993, An Introduction to the Bootstrap) over users.
"""

from collections.abc import Sequence
from typing import Final, Literal

import msgspec
import numpy as np
import numpy.typing as npt

from contract.tasks import Task
from training.evaluation import ALARMS
from training.metrics import BINS, FALSE_POSITIVES, blocks, row_log_loss
from training.said import Floats, Judged, Said, judged

DRAWS: Final = 500
CONFIDENCE: Final = 95.0
LESS_IS_BETTER: Final = ("log_loss", "ece")
Way = Literal["shadow", "canary"]


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """A figure of both models, and the difference of the challenger to the serving one with its interval of 95 %.

    None: it has no meaning, for example an AUC without a positive.
    """

    serving: float | None
    challenger: float | None
    difference: float | None
    low: float | None
    high: float | None
    is_better: bool | None  # whether the whole interval speaks for the challenger; None: for neither


class TaskContest(msgspec.Struct, frozen=True, kw_only=True):
    """Rows and users with a label, of the serving model and of the challenger; in a shadow they are the same."""

    rows: tuple[int, int]
    users: tuple[int, int]
    figures: dict[str, Figure]


class Contest(msgspec.Struct, frozen=True, kw_only=True):
    """Two versions on one way of a trial, task by task."""

    way: Way
    serving: str
    challenger: str
    tasks: dict[str, TaskContest]


class Scale:
    """Weighs what one model said: figures for whatever the users count."""

    def __init__(self, of: Judged, *, is_alarm: bool) -> None:
        order = np.argsort(-of.p, kind="stable")
        self._y, self._p = of.y[order], of.p[order]
        self._weight, self._user = of.weight[order], of.user[order]
        self._loss = row_log_loss(self._y, self._p)
        self._start, _ = blocks(np.zeros(len(order)), self._p)
        self._bin = bins(self._p)
        self._is_alarm = is_alarm

    def figures(self, count: npt.NDArray[np.int64]) -> dict[str, float]:
        """The figures where user u counts `count[u]` times; NaN without a meaning."""
        w = self._weight * count[self._user]
        if not w.sum():
            return {}
        found = {"log_loss": float(np.average(self._loss, weights=w)), "ece": self._ece(w)}
        hits, misses = (np.add.reduceat(w * of, self._start) for of in (self._y, 1 - self._y))
        positives, negatives = hits.sum(), misses.sum()
        both = positives > 0 and negatives > 0
        below = negatives - np.cumsum(misses) + misses / 2
        found["auc"] = float((hits * below).sum() / (positives * negatives)) if both else float("nan")
        if self._is_alarm:
            allowed = np.cumsum(misses) <= FALSE_POSITIVES * negatives
            reached = np.cumsum(hits)[allowed].max(initial=0)
            found["recall_fpr_1"] = float(reached / positives) if both else float("nan")
        return found

    def _ece(self, w: Floats) -> float:
        """The mean gap of predicted and observed over ten bins of about equally many rows."""
        predicted, observed = (np.bincount(self._bin, weights=w * of, minlength=BINS) for of in (self._p, self._y))
        return float(np.abs(predicted - observed).sum() / w.sum())


def bins(p: Floats) -> npt.NDArray[np.int64]:
    """The bin (N,) of each prediction, equal ones in one bin; see `training.metrics.reliability`."""
    _, place, counts = np.unique(p, return_inverse=True, return_counts=True)
    middle = np.cumsum(counts) - counts / 2
    found: npt.NDArray[np.int64] = np.minimum(middle * BINS / max(len(p), 1), BINS - 1).astype(np.int64)[place]
    return found


def contests(
    rows: Sequence[Said], tasks: Sequence[Task], serving: str, challenger: str, *, seed: int, draws: int = DRAWS
) -> list[Contest]:
    """The shadow and the canary of two versions, as far as these examples know of any."""
    paired = [row for row in rows if (row.model_version, row.shadow_version) == (serving, challenger)]
    apart = users_apart(rows, serving, challenger)
    found = list[Contest]()
    for way, some in (("shadow", paired), ("canary", apart)):
        named = {
            task.name: one
            for task in tasks
            if task.kind in ("binary", "graded")
            and (one := contest(task, *columns(way, task, some, serving, challenger), way, seed, draws))  # type: ignore[arg-type]
        }
        if named:
            found.append(Contest(way=way, serving=serving, challenger=challenger, tasks=named))  # type: ignore[arg-type]
    return found


def users_apart(rows: Sequence[Said], one: str, other: str) -> list[Said]:
    """Rows that either model answered, of the time in which both did, of users who met one of them alone."""
    own = [row for row in rows if row.model_version in (one, other)]
    times = [[row.ts_ms for row in own if row.model_version == version] for version in (one, other)]
    if not all(times):
        return []
    begin_ms, end_ms = max(map(min, times)), min(map(max, times))
    own = [row for row in own if begin_ms <= row.ts_ms <= end_ms]
    met: dict[str, set[str]] = {}
    for row in own:
        met.setdefault(row.user_id, set()).add(row.model_version)
    return [row for row in own if len(met[row.user_id]) == 1]


def columns(way: str, task: Task, rows: Sequence[Said], one: str, other: str) -> tuple[Judged, Judged]:
    """What the serving model and the challenger said of their rows."""
    if way == "canary":
        first, second = ([row for row in rows if row.model_version == version] for version in (one, other))
        said = ([row.served.get(task.name) for row in some] for some in (first, second))
        return judged(task, first, next(said)), judged(task, second, next(said))
    both = [row for row in rows if task.name in row.served and task.name in row.shadow]
    both = [row for row in both if np.isfinite([row.served[task.name], row.shadow[task.name]]).all()]
    return (
        judged(task, both, [row.served[task.name] for row in both]),
        judged(task, both, [row.shadow[task.name] for row in both]),
    )


def contest(task: Task, serving: Judged, challenger: Judged, way: Way, seed: int, draws: int) -> TaskContest | None:
    """The figures of one task; None where one of them has no row."""
    if not len(serving.y) or not len(challenger.y):
        return None
    is_alarm = task.graph in ALARMS
    first, second = Scale(serving, is_alarm=is_alarm), Scale(challenger, is_alarm=is_alarm)
    chance, users = np.random.default_rng(seed), (serving.users, challenger.users)
    all_once = [np.ones(count, np.int64) for count in users]
    drawn = list[tuple[dict[str, float], dict[str, float]]]()
    for _ in range(draws):
        count = resampled(users[0], chance)
        drawn.append((first.figures(count), second.figures(count if way == "shadow" else resampled(users[1], chance))))
    once = first.figures(all_once[0]), second.figures(all_once[1])
    return TaskContest(
        rows=(len(serving.y), len(challenger.y)),
        users=users,
        figures={name: figure(name, *once, drawn) for name in once[0]},
    )


def resampled(users: int, chance: np.random.Generator) -> npt.NDArray[np.int64]:
    """How often each user is drawn, of as many draws as there are users."""
    return np.bincount(chance.integers(0, users, users), minlength=users)


def figure(
    name: str,
    serving: dict[str, float],
    challenger: dict[str, float],
    drawn: Sequence[tuple[dict[str, float], dict[str, float]]],
) -> Figure:
    each = np.array([other.get(name, np.nan) - one.get(name, np.nan) for one, other in drawn])
    each = each[np.isfinite(each)]
    tail = (100 - CONFIDENCE) / 2
    low, high = np.percentile(each, (tail, 100 - tail)) if len(each) else (np.nan, np.nan)
    sign = -1 if name in LESS_IS_BETTER else 1
    certain = True if min(low * sign, high * sign) > 0 else False if max(low * sign, high * sign) < 0 else None
    return Figure(
        serving=meant(serving[name]),
        challenger=meant(challenger[name]),
        difference=meant(challenger[name] - serving[name]),
        low=meant(low),
        high=meant(high),
        is_better=certain,
    )


def meant(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
