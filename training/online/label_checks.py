"""Whether the labels of an update can be believed, asked of the model that serves before anything is learned.

A model that was right yesterday is not wholly wrong today. If what it expects to happen happens several times as often
or not at all, or if its order of the rows is worth much less than on the examples kept from before, then it is likelier
that labels or features have been mixed up than that the world has changed. Chance is taken out first, by the bounds of
an interval over users.
"""

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Final

import numpy as np
from scipy.stats import chi2

from contract.tasks import Task
from training.data.arrays import Array, Floats, Predictions
from training.data.examples import Examples
from training.metrics.losses import PROBABILITY_MIN
from training.metrics.ranking import auc
from training.online.new_labels import LABEL_THRESHOLD, Mask
from training.online.promotion_gate import ROWS_MIN
from training.stats.bootstrap import Interval, bootstrap_interval, first_column
from training.stats.paired_predictions import index_users
from training.trainer.evaluation import ALARM_GRAPHS

TAIL_PROBABILITY: Final = 0.005  # on either side of a count
SKILL_RATIO_MIN: Final = 0.4  # of its worth on kept examples, an order keeps at least this
LabelledRows = tuple[
    Array, Array, Array
]  # labels (N,), predictions (N,) or (N, classes), the number of each row's user


def check_labels(
    tasks: Sequence[Task],
    new: tuple[Examples, Predictions],
    buffered: tuple[Examples, Predictions] | None,
    jump_max: float,
    evaluation: Mapping[str, Mapping[str, float]] = MappingProxyType({}),
) -> Iterator[str]:
    """Why an update's labels are not believed, as sentences.

    `evaluation`: what the present model was found to be on what was held out when it learned, by task; of kept examples
    it has learned most, and is better there than it can be on new ones. How many fraudulent orders there are among
    those judged by now says little: fraud is told within days, its absence after weeks. So of alarms the order alone
    is looked at.
    """
    for task in tasks:
        if task.kind == "regression" or new[0].has_label(task).sum() < ROWS_MIN:
            continue
        if task.kind != "multiclass" and task.graph not in ALARM_GRAPHS:
            settled = select_labelled(task, *new, find_settled(new[0], task, buffered[0] if buffered else None))
            if len(settled[0]) >= ROWS_MIN:
                yield from check_base_rate(task, settled, jump_max)
        if buffered and buffered[0].has_label(task).sum() >= ROWS_MIN:
            reference = min(
                measure_skill(task, *select_labelled(task, *buffered)).value, heldout_skill(task, evaluation)
            )
            yield from check_ranking(task, measure_skill(task, *select_labelled(task, *new)), reference)


def find_settled(examples: Examples, task: Task, buffered: Examples | None) -> Mask:
    """The rows (N,) that happened while these labels became known, and early enough for either label to be among them.

    Yes is told at once and no after a wait. So at either end of what came there is one without the other, and at night,
    when nobody comes any more, there is nothing but no. The wait is the longest of these and of what is kept.
    """
    known, ts_ms, known_ms = examples.has_label(task), examples.ts_ms, examples.known_ms[task.name]
    wait_ms = max(longest_negative_delay_ms(part, task) for part in (examples, buffered) if part is not None)
    is_settled: Mask = known & (ts_ms >= known_ms[known].min()) & (ts_ms <= known_ms[known].max() - wait_ms)
    return is_settled


def longest_negative_delay_ms(examples: Examples, task: Task) -> int:
    """How long after its event the last no was told."""
    is_negative = examples.has_label(task) & (examples.labels[task.name] < LABEL_THRESHOLD)
    return int((examples.known_ms[task.name] - examples.ts_ms)[is_negative].max(initial=0))


def select_labelled(task: Task, examples: Examples, predictions: Predictions, mask: Mask | None = None) -> LabelledRows:
    rows = examples.has_label(task) if mask is None else mask
    return examples.labels[task.name][rows], predictions[task.name][rows], index_users(examples)[rows]


def check_base_rate(task: Task, rows: LabelledRows, jump_max: float) -> Iterator[str]:
    y, p, user = rows
    ratio, observed, expected = (
        bootstrap_interval(np.stack([y, p], 1), user, ratio_of_sums),
        float(y.sum()),
        float(p.sum()),
    )
    # Draws know little of what is rare, so bounds are no narrower than Poisson's.
    low = min(ratio.low, chi2.ppf(TAIL_PROBABILITY, 2 * observed) / 2 / expected if observed else 0.0)
    high = max(ratio.high, chi2.isf(TAIL_PROBABILITY, 2 * observed + 2) / 2 / expected)
    if low > jump_max or high < 1 / jump_max:
        yield (
            f"`{task.name}` should happen {1 / jump_max:.2g} to {jump_max:g} times as often as the present model expects. "
            f"Found {ratio.value:.2f} times on {len(y)} new examples, by chance from {low:.2f} to {high:.2f}."
        )


def heldout_skill(task: Task, evaluation: Mapping[str, Mapping[str, float]]) -> float:
    """`worth` on what was held out; without a figure there is no bound."""
    figures = evaluation.get(task.name, {})
    if task.kind == "multiclass":
        return figures.get("accuracy", np.inf)
    return 2 * figures.get("auc", np.inf) - 1


def check_ranking(task: Task, current: Interval, reference: float) -> Iterator[str]:
    if current.high < SKILL_RATIO_MIN * reference:
        wanted = "be right about" if task.kind == "multiclass" else "put in order"
        yield (
            f"The present model should {wanted} new `{task.name}` at least 40 % as well as what is kept from before. "
            f"Found {current.value:.3f} after {reference:.3f}, by chance up to {current.high:.3f}."
        )


def measure_skill(task: Task, y: Array, p: Array, user: Array) -> Interval:
    """What predictions are good for whatever their level: 2 AUC - 1, which is 0 by chance; of classes the accuracy."""
    if task.kind == "multiclass":
        return bootstrap_interval(np.stack([p.argmax(1) == y, np.ones(len(y))], 1), user, ratio_of_sums)
    area = auc(y > 0.5, p)
    if not np.isfinite(area):
        return Interval(float("nan"), float("nan"), float("nan"))
    centred = bootstrap_interval(auc_influence(y > 0.5, p, area)[:, None], user, first_column)
    return Interval(2 * area - 1, 2 * (area + centred.low) - 1, 2 * (area + centred.high) - 1)


def ratio_of_sums(sums: Floats) -> Floats:
    """The first of two columns (draws, 2) as a share of the second; of a draw of nobody, 0."""
    return np.asarray(sums[:, 0] / np.maximum(sums[:, 1], PROBABILITY_MIN))


def auc_influence(positive: Array, p: Array, area: float) -> Floats:
    """What each row (N,) adds to the AUC's distance from its expectation (DeLong et al. 1988)."""
    contribution, (above, below) = np.zeros(len(p)), (np.sort(p[positive]), np.sort(p[~positive]))
    contribution[positive] = (share_below(below, p[positive]) - area) / len(above)
    contribution[~positive] = (1 - share_below(above, p[~positive]) - area) / len(below)
    return contribution


def share_below(others: Array, p: Array) -> Floats:
    """The share of `others`, in order, that each of p is above, ties counting half."""
    return np.asarray((np.searchsorted(others, p, "left") + np.searchsorted(others, p, "right")) / (2 * len(others)))
