"""Plausibility checks of an update's labels, made with the serving model before anything is learned.

If events happen several times as often as the serving model expects, or hardly at all, or if it ranks the new rows much
worse than replayed ones, then labels or features are more likely mixed up than the world is changed. Only differences
beyond the bounds of a user-level interval count, so that chance rejects few updates.
"""

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Final, NamedTuple

import numpy as np
from scipy.stats import chi2

from contract.arrays import Array, Floats, Mask, Predictions
from contract.graphs import GRAPHS
from contract.tasks import Task
from training.data.examples import Examples
from training.data.users import index_users
from training.metrics.losses import PROBABILITY_MIN
from training.metrics.ranking import auc
from training.online.new_labels import LABEL_THRESHOLD
from training.online.promotion_gate import ROWS_MIN
from training.stats.bootstrap import Interval, bootstrap_interval, first_column

TAIL_PROBABILITY: Final = 0.005  # on either side of a count
SKILL_RATIO_MIN: Final = 0.4  # of the skill on replayed examples


class LabelledRows(NamedTuple):
    """N rows of a task: labels (N,), predictions (N,) or (N, classes), and the index of each row's user (N,)."""

    y: Array
    p: Array
    user: Array


def check_labels(
    tasks: Sequence[Task],
    new: tuple[Examples, Predictions],
    buffered: tuple[Examples, Predictions] | None,
    jump_max: float,
    evaluation: Mapping[str, Mapping[str, float]] = MappingProxyType({}),
) -> Iterator[str]:
    """The reasons to reject an update for its labels, as sentences.

    `evaluation`: the serving model's held-out metrics by task. Its skill on replayed examples alone would be an
    overestimate, because it has learned most of them. Of rare positives only the ranking is checked, as their base
    rate is unreliable: fraud is labelled within days, its absence after weeks.
    """
    for task in tasks:
        if task.kind == "regression" or new[0].has_label(task).sum() < ROWS_MIN:
            continue
        if task.kind != "multiclass" and not GRAPHS[task.graph].is_rare_positive:
            settled = select_labelled(task, *new, find_settled(new[0], task, buffered[0] if buffered else None))
            if len(settled.y) >= ROWS_MIN:
                yield from check_base_rate(task, settled, jump_max)
        if buffered and buffered[0].has_label(task).sum() >= ROWS_MIN:
            buffered_skill = measure_skill(task, select_labelled(task, *buffered)).value
            reference = min(buffered_skill, heldout_skill(task, evaluation))
            yield from check_ranking(task, measure_skill(task, select_labelled(task, *new)), reference)


def find_settled(examples: Examples, task: Task, buffered: Examples | None) -> Mask:
    """The rows (N,) of which positive and negative labels could both be in this update.

    Positives arrive at once, negatives after a delay. So the latest events have positives only and the earliest have
    negatives only, as does a night without traffic. The delay is the longest of the new and the replayed examples.
    """
    known, ts_ms, known_ms = examples.has_label(task), examples.ts_ms, examples.known_ms[task.name]
    delay_ms = max(longest_negative_delay_ms(part, task) for part in (examples, buffered) if part is not None)
    is_settled: Mask = known & (ts_ms >= known_ms[known].min()) & (ts_ms <= known_ms[known].max() - delay_ms)
    return is_settled


def longest_negative_delay_ms(examples: Examples, task: Task) -> int:
    """The longest time from an event to its negative label."""
    is_negative = examples.has_label(task) & (examples.labels[task.name] < LABEL_THRESHOLD)
    return int((examples.known_ms[task.name] - examples.ts_ms)[is_negative].max(initial=0))


def select_labelled(task: Task, examples: Examples, predictions: Predictions, mask: Mask | None = None) -> LabelledRows:
    """The rows of the mask; without one, those that have the task's label."""
    rows = examples.has_label(task) if mask is None else mask
    return LabelledRows(examples.labels[task.name][rows], predictions[task.name][rows], index_users(examples)[rows])


def check_base_rate(task: Task, rows: LabelledRows, jump_max: float) -> Iterator[str]:
    """Compare the number of positives with the sum of the predictions."""
    ratio = bootstrap_interval(np.stack([rows.y, rows.p], 1), rows.user, ratio_of_sums)
    observed = float(rows.y.sum())
    expected = float(rows.p.sum())
    # The bootstrap is too narrow for rare events: bounds are at least as wide as those of a Poisson count.
    low = min(ratio.low, chi2.ppf(TAIL_PROBABILITY, 2 * observed) / 2 / expected if observed else 0.0)
    high = max(ratio.high, chi2.isf(TAIL_PROBABILITY, 2 * observed + 2) / 2 / expected)
    if low > jump_max or high < 1 / jump_max:
        yield (
            f"`{task.name}` should happen {1 / jump_max:.2g} to {jump_max:g} times as often as the serving model "
            f"expects. Found {ratio.value:.2f} times on {len(rows.y)} new examples, interval {low:.2f} to {high:.2f}."
        )


def heldout_skill(task: Task, evaluation: Mapping[str, Mapping[str, float]]) -> float:
    """The skill (see `measure_skill`) on the hold-out of the last training; infinite if it is not known."""
    figures = evaluation.get(task.name, {})
    if task.kind == "multiclass":
        return figures.get("accuracy", np.inf)
    return 2 * figures.get("auc", np.inf) - 1


def check_ranking(task: Task, current: Interval, reference: float) -> Iterator[str]:
    """Compare the skill on new examples with the reference."""
    if current.high < SKILL_RATIO_MIN * reference:
        verb = "classify" if task.kind == "multiclass" else "rank"
        yield (
            f"The serving model should {verb} new `{task.name}` examples at least {SKILL_RATIO_MIN:.0%} as well as "
            f"replayed ones. Found {current.value:.3f} against {reference:.3f}, upper bound {current.high:.3f}."
        )


def measure_skill(task: Task, rows: LabelledRows) -> Interval:
    """The Gini coefficient, 2 AUC - 1, which is 0 by chance and ignores calibration; the accuracy for classes."""
    if task.kind == "multiclass":
        hits = rows.p.argmax(1) == rows.y
        return bootstrap_interval(np.stack([hits, np.ones(len(hits))], 1), rows.user, ratio_of_sums)
    area = auc(rows.y, rows.p)
    if not np.isfinite(area):
        return Interval(float("nan"), float("nan"), float("nan"))
    influence = auc_influence(rows.y > LABEL_THRESHOLD, rows.p, area)
    centred = bootstrap_interval(influence[:, None], rows.user, first_column)
    return Interval(2 * area - 1, 2 * (area + centred.low) - 1, 2 * (area + centred.high) - 1)


def ratio_of_sums(sums: Floats) -> Floats:
    """The first of two columns (draws, 2) divided by the second; 0 for a draw without rows."""
    return np.asarray(sums[:, 0] / np.maximum(sums[:, 1], PROBABILITY_MIN))


def auc_influence(positive: Array, p: Array, area: float) -> Floats:
    """The influence of each row (N,) on the AUC (DeLong et al. 1988)."""
    above, below = np.sort(p[positive]), np.sort(p[~positive])
    contribution = np.zeros(len(p))
    contribution[positive] = (share_below(below, p[positive]) - area) / len(above)
    contribution[~positive] = (1 - share_below(above, p[~positive]) - area) / len(below)
    return contribution


def share_below(ranked: Array, p: Array) -> Floats:
    """The share of the sorted values `ranked` that lies below each of p, ties counting half."""
    return np.asarray((np.searchsorted(ranked, p, "left") + np.searchsorted(ranked, p, "right")) / (2 * len(ranked)))
