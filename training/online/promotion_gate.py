"""The gate: an update serves if it is finite and, on what it has not learned from, not worse than the present model.

Two sets of examples judge: the newest ones, and a part of those that are kept from before, which sees what an update
has forgotten and every task that no new label speaks of. "Not worse" is what the bounds of an interval say
(`training.stats.bootstrap`): a task passes when even the upper bound of what it loses is within the margin, so an update that
moves much has to prove more than a gentle one; calibration and the score are refused where even the lower bound of what
is lost is too much, so chance alone refuses nobody.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from contract.tasks import Task
from model.network import Network
from training.stats.bootstrap import Interval, bootstrap_interval, first_column
from training.stats.paired_predictions import PairedLosses, PairedPredictions

ROWS_RELIABLE: Final = 200  # rows of a task that an upper bound and calibration may be asked of
ROWS_MIN: Final = 50  # labels of a task in one set; where none has so many, all judge it together
LEVEL_MAX: Final = 0.1  # so much further off may the sum of predictions be, as a share of what happened
CALIBRATION_MAX: Final = 0.01  # so much may the calibration error rise beyond chance
SCORE_SHARE: Final = 0.2  # of the margin: what the weighted score may lose beyond chance


@dataclass(slots=True)
class GateResult:
    """Why an update must not serve, as sentences, and the figures of each set and task that say so."""

    rejections: list[str] = field(default_factory=list)
    metrics: dict[str, dict[str, float]] = field(default_factory=dict)

    def record(self, name: str, metric: str, estimate: Interval) -> Interval:
        """Keep a figure with its bounds."""
        values = {metric: estimate.value, f"{metric}_low": estimate.low, f"{metric}_high": estimate.high}
        finite = {key: round(value, 5) for key, value in values.items() if np.isfinite(value)}
        self.metrics.setdefault(name, {}).update(finite)
        return estimate


def check_update(tasks: Sequence[Task], sets: Sequence[PairedPredictions], margin: float) -> GateResult:
    """Judge an update by sets of examples; without a label anywhere a task is not judged, and has no figures."""
    result = GateResult(check_finite_predictions(tasks, sets))
    if not result.rejections:
        for task in tasks:
            for set_name, pairs in collect_losses(task, sets):
                check_task(result, task, set_name, pairs, margin)
        for predictions in sets:
            check_score(result, tasks, predictions, margin)
    return result


def check_finite_predictions(tasks: Sequence[Task], sets: Sequence[PairedPredictions]) -> list[str]:
    """The tasks that answer something else than finite numbers, as sentences."""
    broken = set[str]()
    for predictions in sets:
        labelled = {task.name: predictions.examples.has_label(task) for task in tasks}
        broken |= {
            name
            for name, rows in labelled.items()
            if rows.any() and not np.isfinite(predictions.after[name][rows]).all()
        }
    return [f"`{task.name}` should answer with finite numbers. Found others." for task in tasks if task.name in broken]


def collect_losses(task: Task, sets: Sequence[PairedPredictions]) -> Iterator[tuple[str, PairedLosses]]:
    """A task's rows in each set that has enough of them; where none has, all there are."""
    available = [
        (predictions.name, predictions.pair_losses(task))
        for predictions in sets
        if predictions.examples.has_label(task).any()
    ]
    enough = [(set_name, pairs) for set_name, pairs in available if len(pairs) >= ROWS_MIN]
    if enough or not available:
        yield from enough
    else:
        yield "all", PairedLosses.concatenate([pairs for _, pairs in available])


def check_task(result: GateResult, task: Task, set_name: str, pairs: PairedLosses, margin: float) -> None:
    name, scope = f"{set_name} {task.name}", f"on {len(pairs)} {set_name} examples"
    lost = result.record(name, "lost", pairs.gain_lost())
    if not choose_bound(lost, len(pairs)) <= margin:
        result.rejections.append(
            f"`{task.name}` should lose at most {margin:g} of its gain {scope}, chance included. "
            f"Found {lost.value:.4f}, by chance from {lost.low:.4f} to {lost.high:.4f}."
        )
    if task.kind == "regression" or len(pairs) < ROWS_RELIABLE:
        return
    level, error = (
        result.record(name, "level", pairs.level_error_increase()),
        result.record(name, "ece", pairs.calibration_error_increase()),
    )
    if level.low > LEVEL_MAX:
        result.rejections.append(
            f"The level of `{task.name}` should be at most {LEVEL_MAX:g} further off {scope}. "
            f"Found {level.value:.4f}, by chance no less than {level.low:.4f}."
        )
    if error.low > CALIBRATION_MAX:
        result.rejections.append(
            f"The calibration error of `{task.name}` should rise by at most {CALIBRATION_MAX:g} {scope}. "
            f"Found {error.value:.4f}, by chance no less than {error.low:.4f}."
        )


def choose_bound(lost: Interval, rows: int) -> float:
    """What has to be within the margin: of a few rows the upper bound would refuse what is honest, time and again."""
    if rows < ROWS_MIN:
        return lost.low
    return lost.high if rows >= ROWS_RELIABLE else lost.value


def check_score(result: GateResult, tasks: Sequence[Task], predictions: PairedPredictions, margin: float) -> None:
    """The mean loss of gain, weighted by the tasks' priorities, over the tasks that have enough rows in the set."""
    losses = [
        (task.weight, predictions.pair_losses(task))
        for task in tasks
        if predictions.examples.has_label(task).sum() >= ROWS_MIN
    ]
    total = sum(weight for weight, _ in losses)
    if not total:
        return
    increase = np.concatenate([weight / total * pairs.loss_increase / len(pairs) for weight, pairs in losses])
    users = np.concatenate([pairs.user for _, pairs in losses])
    lost = result.record(
        f"{predictions.name} score", "lost", bootstrap_interval(increase[:, None], users, first_column)
    )
    if lost.low > margin * SCORE_SHARE:
        result.rejections.append(
            f"The weighted score should lose at most {margin * SCORE_SHARE:g} on {predictions.name} examples. "
            f"Found {lost.value:.4f}, by chance no less than {lost.low:.4f}."
        )


def check_finite_weights(network: Network) -> list[str]:
    """The weights that are not finite, as sentences."""
    weights = network.state_dict().items()
    return [f"Weights should be finite. Found others in {name}." for name, w in weights if not w.isfinite().all()]
