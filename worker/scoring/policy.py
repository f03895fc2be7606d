"""Rules and thresholds: from features and probabilities to an action with its reasons. The most severe action wins."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from contract.features.columns import category_id
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
        columns = find_columns(features)
        self._rules = [(rule, *columns[rule.feature]) for rule in rules if rule.feature in columns]

    def evaluate(self, row_count: int, blocks: Mapping[str, Block], scores: Scores) -> list[Outcome]:
        """The outcome of each of `row_count` orders; a score that is not finite never approves.

        Few orders have any finding, so whole columns are compared.
        """
        findings: dict[int, list[tuple[int, str]]] = {}
        for rule, group, column, source in self._rules:
            for row in np.flatnonzero(apply_rule(rule, blocks[group], column, source)).tolist():
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


def find_columns(features: FeatureSet) -> dict[str, tuple[str, int, str]]:
    """Group, column and source of each number and category that orders have, by name."""
    columns = dict[str, tuple[str, int, str]]()
    for group in DECIDE.event_groups:
        columns |= {f.name: (group, column, f.source) for column, f in enumerate(features.numbers(group))}
        columns |= {f.name: (group, start, f.source) for f, start, _ in features.spans(group) if f.kind == "category"}
    return columns


def apply_rule(rule: Rule, block: Block, column: int, source: str) -> npt.NDArray[np.bool_]:
    """Which rows (N,) a rule applies to; not those whose value is absent."""
    if rule.equals is not None:
        applies: npt.NDArray[np.bool_] = block.ids[:, column] == category_id(source, rule.equals)
        return applies
    values = block.numbers[:, column]
    applies = ~np.isnan(values)
    if rule.above is not None:
        applies &= values > rule.above
    if rule.below is not None:
        applies &= values < rule.below
    return applies


def combine(findings: Sequence[tuple[int, str]]) -> Outcome:
    """The most severe action, with the reasons of all findings."""
    return Outcome(ACTIONS[max(severity for severity, _ in findings)], tuple(reason for _, reason in findings))
