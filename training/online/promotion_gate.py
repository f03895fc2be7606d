"""The promotion gate: an update is published if it is finite and not worse than the serving model on held-out examples.

Two sets judge: the newest examples, and the hold-out of the replay buffer, which shows forgetting and covers tasks
without new labels. "Not worse" is decided by intervals over users (`training.stats.bootstrap`). A task passes if even
the upper bound of its loss is within the margin, so a large change needs more evidence than a small one. Calibration
and the weighted score are rejected only if the lower bound exceeds its limit, so that chance alone rejects few updates.

The ranked order of candidates is compared with their own order on new interactions. An order that is worse is refused:
the update is published with the candidates' own.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from contract.arrays import Floats, Integers
from contract.tasks import Task
from model.network import Network
from training.stats.bootstrap import Interval, bootstrap_interval, first_column
from training.stats.paired_predictions import PairedLosses, PairedPredictions

ROWS_RELIABLE: Final = 200  # rows of a task from which its upper bound and its calibration are checked
ROWS_MIN: Final = 50  # labels of a task in one set; if no set has as many, the sets are pooled
LEVEL_MAX: Final = 0.1  # increase of the bias: error of the sum of predictions as a share of the sum of labels
CALIBRATION_MAX: Final = 0.01  # increase of the calibration error
SCORE_SHARE: Final = 0.2  # loss of the weighted score, as a share of the margin


@dataclass(slots=True)
class GateResult:
    """The reasons to reject an update, as sentences, and the metrics of each set and task."""

    rejections: list[str] = field(default_factory=list)
    metrics: dict[str, dict[str, float]] = field(default_factory=dict)

    def record(self, name: str, metric: str, estimate: Interval) -> Interval:
        """Store a metric with its bounds; values that are not finite are left out."""
        values = {metric: estimate.value, f"{metric}_low": estimate.low, f"{metric}_high": estimate.high}
        finite = {key: round(value, 5) for key, value in values.items() if np.isfinite(value)}
        self.metrics.setdefault(name, {}).update(finite)
        return estimate


def check_update(tasks: Sequence[Task], sets: Sequence[PairedPredictions], margin: float) -> GateResult:
    """Judge an update on hold-out sets; a task without any label is not judged and has no metrics."""
    result = GateResult(check_finite_predictions(tasks, sets))
    if not result.rejections:
        for task in tasks:
            for set_name, pairs in collect_losses(task, sets):
                check_task(result, task, set_name, pairs, margin)
        for predictions in sets:
            check_score(result, tasks, predictions, margin)
    return result


def check_finite_predictions(tasks: Sequence[Task], sets: Sequence[PairedPredictions]) -> list[str]:
    """The tasks with predictions that are not finite, as sentences."""
    broken = [task.name for task in tasks if not all(has_finite_predictions(task, predictions) for predictions in sets)]
    return [f"`{name}` should have finite predictions. Found others." for name in broken]


def has_finite_predictions(task: Task, predictions: PairedPredictions) -> bool:
    """Whether the update's predictions of all rows with the task's label are finite."""
    rows = predictions.examples.has_label(task)
    return not rows.any() or bool(np.isfinite(predictions.after[task.name][rows]).all())


def collect_losses(task: Task, sets: Sequence[PairedPredictions]) -> Iterator[tuple[str, PairedLosses]]:
    """A task's rows in each set that has enough of them; if none has, the rows of all sets pooled."""
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
    """Record the metrics of a task in one set, and reject what is outside their limits."""
    name = f"{set_name} {task.name}"
    scope = f"on {len(pairs)} {set_name} examples"
    lost = result.record(name, "lost", pairs.gain_lost())
    if not choose_bound(lost, len(pairs)) <= margin:
        result.rejections.append(
            f"`{task.name}` should lose at most {margin:g} of its gain {scope}, uncertainty included. "
            f"Found {lost.value:.4f}, interval {lost.low:.4f} to {lost.high:.4f}."
        )
    if task.kind == "regression" or len(pairs) < ROWS_RELIABLE:
        return
    level = result.record(name, "level", pairs.level_error_increase())
    error = result.record(name, "ece", pairs.calibration_error_increase())
    if level.low > LEVEL_MAX:
        result.rejections.append(
            f"The bias of the predictions of `{task.name}` should rise by at most {LEVEL_MAX:g} {scope}. "
            f"Found {level.value:.4f}, lower bound {level.low:.4f}."
        )
    if error.low > CALIBRATION_MAX:
        result.rejections.append(
            f"The calibration error of `{task.name}` should rise by at most {CALIBRATION_MAX:g} {scope}. "
            f"Found {error.value:.4f}, lower bound {error.low:.4f}."
        )


def choose_bound(lost: Interval, rows: int) -> float:
    """The value to compare with the margin; on few rows the upper bound would often reject sound updates."""
    if rows < ROWS_MIN:
        return lost.low
    return lost.high if rows >= ROWS_RELIABLE else lost.value


def check_score(result: GateResult, tasks: Sequence[Task], predictions: PairedPredictions, margin: float) -> None:
    """Check the loss of gain averaged over the tasks with enough rows in the set, weighted by their priorities."""
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
            f"Found {lost.value:.4f}, lower bound {lost.low:.4f}."
        )


def check_ranked_order(result: GateResult, lost: Floats, user: Integers) -> list[str]:
    """The reasons, as sentences, to refuse the ranked order; `lost` (C,): NDCG@20 of cases by their users (C,).

    On few cases the lower bound decides, since chance alone would often refuse a sound order.
    """
    if len(lost) < ROWS_MIN:
        return []
    estimate = result.record("next_item", "lost", bootstrap_interval((lost / len(lost))[:, None], user, first_column))
    if (estimate.value if len(lost) >= ROWS_RELIABLE else estimate.low) <= 0:
        return []
    return [
        f"The ranked order should not be worse than the candidates' own on {len(lost)} new cases. "
        f"Found an NDCG@20 that is {estimate.value:.4f} lower, interval {estimate.low:.4f} to {estimate.high:.4f}."
    ]


def check_finite_weights(network: Network) -> list[str]:
    """The parameters with weights that are not finite, as sentences."""
    parameters = network.state_dict().items()
    return [f"Weights should be finite. Found others in {name}." for name, w in parameters if not w.isfinite().all()]
