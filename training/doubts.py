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
from training.evaluation import ALARMS
from training.examples import Examples
from training.gate import ROWS_MIN
from training.metrics import TINY, auc
from training.news import MIDDLE, Mask
from training.paired import Array, Floats, Interval, Predictions, first, interval, whose

RARE: Final = 0.005  # on either side of a count
WORTH: Final = 0.4  # of its worth on kept examples, an order keeps at least this
Rows = tuple[Array, Array, Array]  # labels (N,), predictions (N,) or (N, classes), the number of each row's user


def doubts(
    tasks: Sequence[Task],
    new: tuple[Examples, Predictions],
    kept: tuple[Examples, Predictions] | None,
    jump: float,
    evaluation: Mapping[str, Mapping[str, float]] = MappingProxyType({}),
) -> Iterator[str]:
    """Why an update's labels are not believed, as sentences.

    `evaluation`: what the present model was found to be on what was held out when it learned, by task; of kept examples
    it has learned most, and is better there than it can be on new ones. How many fraudulent orders there are among
    those judged by now says little: fraud is told within days, its absence after weeks. So of alarms the order alone
    is looked at.
    """
    for task in tasks:
        if task.kind == "regression" or new[0].known(task).sum() < ROWS_MIN:
            continue
        if task.kind != "multiclass" and task.graph not in ALARMS:
            settled = rows_of(task, *new, settled_in(new[0], task, kept[0] if kept else None))
            if len(settled[0]) >= ROWS_MIN:
                yield from jumped(task, settled, jump)
        if kept and kept[0].known(task).sum() >= ROWS_MIN:
            then = min(worth(task, *rows_of(task, *kept)).value, held_out_worth(task, evaluation))
            yield from worthless(task, worth(task, *rows_of(task, *new)), then)


def settled_in(examples: Examples, task: Task, kept: Examples | None) -> Mask:
    """The rows (N,) that happened while these labels became known, and early enough for either label to be among them.

    Yes is told at once and no after a wait. So at either end of what came there is one without the other, and at night,
    when nobody comes any more, there is nothing but no. The wait is the longest of these and of what is kept.
    """
    known, ts_ms, known_ms = examples.known(task), examples.ts_ms, examples.known_ms[task.name]
    wait_ms = max(waited_ms(some, task) for some in (examples, kept) if some is not None)
    found: Mask = known & (ts_ms >= known_ms[known].min()) & (ts_ms <= known_ms[known].max() - wait_ms)
    return found


def waited_ms(examples: Examples, task: Task) -> int:
    """How long after its event the last no was told."""
    no = examples.known(task) & (examples.labels[task.name] < MIDDLE)
    return int((examples.known_ms[task.name] - examples.ts_ms)[no].max(initial=0))


def rows_of(task: Task, examples: Examples, said: Predictions, some: Mask | None = None) -> Rows:
    rows = examples.known(task) if some is None else some
    return examples.labels[task.name][rows], said[task.name][rows], whose(examples)[rows]


def jumped(task: Task, rows: Rows, jump: float) -> Iterator[str]:
    y, p, user = rows
    found, happened, expected = interval(np.stack([y, p], 1), user, share), float(y.sum()), float(p.sum())
    # Draws know little of what is rare, so bounds are no narrower than Poisson's.
    least = min(found.low, chi2.ppf(RARE, 2 * happened) / 2 / expected if happened else 0.0)
    most = max(found.high, chi2.isf(RARE, 2 * happened + 2) / 2 / expected)
    if least > jump or most < 1 / jump:
        yield (
            f"`{task.name}` should happen {1 / jump:.2g} to {jump:g} times as often as the present model expects. "
            f"Found {found.value:.2f} times on {len(y)} new examples, by chance from {least:.2f} to {most:.2f}."
        )


def held_out_worth(task: Task, evaluation: Mapping[str, Mapping[str, float]]) -> float:
    """`worth` on what was held out; without a figure there is no bound."""
    figures = evaluation.get(task.name, {})
    if task.kind == "multiclass":
        return figures.get("accuracy", np.inf)
    return 2 * figures.get("auc", np.inf) - 1


def worthless(task: Task, now: Interval, then: float) -> Iterator[str]:
    if now.high < WORTH * then:
        what = "be right about" if task.kind == "multiclass" else "put in order"
        yield (
            f"The present model should {what} new `{task.name}` at least 40 % as well as what is kept from before. "
            f"Found {now.value:.3f} after {then:.3f}, by chance up to {now.high:.3f}."
        )


def worth(task: Task, y: Array, p: Array, user: Array) -> Interval:
    """What predictions are good for whatever their level: 2 AUC - 1, which is 0 by chance; of classes the accuracy."""
    if task.kind == "multiclass":
        return interval(np.stack([p.argmax(1) == y, np.ones(len(y))], 1), user, share)
    area = auc(y, p)
    if not np.isfinite(area):
        return Interval(float("nan"), float("nan"), float("nan"))
    found = interval(influence(y > 0.5, p, area)[:, None], user, first)
    return Interval(2 * area - 1, 2 * (area + found.low) - 1, 2 * (area + found.high) - 1)


def share(sums: Floats) -> Floats:
    """The first of two columns (draws, 2) as a share of the second; of a draw of nobody, 0."""
    return np.asarray(sums[:, 0] / np.maximum(sums[:, 1], TINY))


def influence(positive: Array, p: Array, area: float) -> Floats:
    """What each row (N,) adds to the AUC's distance from its expectation (DeLong et al. 1988)."""
    found, (above, below) = np.zeros(len(p)), (np.sort(p[positive]), np.sort(p[~positive]))
    found[positive] = (share_below(below, p[positive]) - area) / len(above)
    found[~positive] = (1 - share_below(above, p[~positive]) - area) / len(below)
    return found


def share_below(others: Array, p: Array) -> Floats:
    """The share of `others`, in order, that each of p is above, ties counting half."""
    return np.asarray((np.searchsorted(others, p, "left") + np.searchsorted(others, p, "right")) / (2 * len(others)))
