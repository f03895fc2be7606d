"""Rules and thresholds: from features and probabilities to an action with its reasons. The most severe action wins."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from contract.features import Block, FeatureSet
from contract.rows import ACTIONS, Action
from contract.settings import Rule
from worker.runtime import Scores

APPROVE, REVIEW, _ = range(len(ACTIONS))


class Judged(NamedTuple):
    """What is to be done with one order, and why."""

    action: Action
    reasons: tuple[str, ...]


class Judge:
    """Compares features with the shop's rules, and probabilities with its thresholds."""

    def __init__(
        self, *, rules: Sequence[Rule], thresholds: Mapping[str, Mapping[str, float]], features: FeatureSet
    ) -> None:
        self._thresholds = thresholds
        at = {f.name: (g, n) for g in ("user", "order", "context") for n, f in enumerate(features.numbers(g))}
        self._rules = [(rule, *at[rule.feature]) for rule in rules if rule.feature in at]

    def judge(self, rows: int, blocks: Mapping[str, Block], scores: Scores) -> list[Judged]:
        """The action for each of `rows` orders; a score that is not finite never approves.

        Few orders have anything to be said of them: what is compared are whole columns.
        """
        verdicts: dict[int, list[tuple[int, str]]] = {}
        for rule, group, column in self._rules:
            for row in np.flatnonzero(blocks[group].numbers[:, column] > rule.above).tolist():
                verdicts.setdefault(row, []).append((ACTIONS.index(rule.action), rule.reason))
        for task, scored in scores.items():
            values = scored.astype(np.float64)  # as thresholds are written
            severity = np.full(rows, -1)
            for at, action in enumerate(ACTIONS):
                severity[values >= self._thresholds.get(task, {}).get(action, np.inf)] = at
            finite = np.isfinite(values)
            for row in np.flatnonzero((severity >= 0) | ~finite).tolist():
                said = f"{task} probability {values[row]:.2f}" if finite[row] else f"the {task} score is not finite"
                verdicts.setdefault(row, []).append((int(severity[row]) if finite[row] else REVIEW, said))
        silent = Judged(ACTIONS[APPROVE], ())
        return [judged(verdicts[row]) if row in verdicts else silent for row in range(rows)]


def judged(verdicts: Sequence[tuple[int, str]]) -> Judged:
    return Judged(ACTIONS[max(severity for severity, _ in verdicts)], tuple(reason for _, reason in verdicts))
