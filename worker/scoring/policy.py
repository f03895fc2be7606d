"""Rules and thresholds: from features and probabilities to an action with its reasons. The most severe action wins."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from contract.features.declaration import Block, FeatureSet
from contract.graphs import DECIDE
from contract.messages import ACTIONS, Action
from contract.settings.worker import Rule
from worker.model.onnx_model import Scores

APPROVE, REVIEW, _ = range(len(ACTIONS))


class Outcome(NamedTuple):
    """The action for one order, and its reasons."""

    action: Action
    reasons: tuple[str, ...]


class DecisionPolicy:
    """Compares features with the shop's rules, and probabilities with its thresholds."""

    def __init__(
        self, *, rules: Sequence[Rule], thresholds: Mapping[str, Mapping[str, float]], features: FeatureSet
    ) -> None:
        self._thresholds = thresholds
        columns = {
            feature.name: (group, column)
            for group in DECIDE.event_groups
            for column, feature in enumerate(features.numbers(group))
        }
        self._rules = [(rule, *columns[rule.feature]) for rule in rules if rule.feature in columns]

    def evaluate(self, row_count: int, blocks: Mapping[str, Block], scores: Scores) -> list[Outcome]:
        """The outcome of each of `row_count` orders; a score that is not finite never approves.

        Few orders have any finding, so whole columns are compared.
        """
        findings: dict[int, list[tuple[int, str]]] = {}
        for rule, group, column in self._rules:
            for row in np.flatnonzero(blocks[group].numbers[:, column] > rule.above).tolist():
                findings.setdefault(row, []).append((ACTIONS.index(rule.action), rule.reason))
        for task, task_scores in scores.items():
            values = task_scores.astype(np.float64)  # the precision of thresholds
            severity = np.full(row_count, -1)
            for severity_of_action, action in enumerate(ACTIONS):
                severity[values >= self._thresholds.get(task, {}).get(action, np.inf)] = severity_of_action
            is_finite = np.isfinite(values)
            for row in np.flatnonzero((severity >= 0) | ~is_finite).tolist():
                if is_finite[row]:
                    finding = int(severity[row]), f"{task} probability {values[row]:.2f}"
                else:
                    finding = REVIEW, f"the {task} score is not finite"
                findings.setdefault(row, []).append(finding)
        approved = Outcome(ACTIONS[APPROVE], ())
        return [combine(findings[row]) if row in findings else approved for row in range(row_count)]


def combine(findings: Sequence[tuple[int, str]]) -> Outcome:
    """The most severe action, with the reasons of all findings."""
    return Outcome(ACTIONS[max(severity for severity, _ in findings)], tuple(reason for _, reason in findings))
