"""Rules and thresholds: from features and probabilities to an action with its reasons. The most severe action wins."""

from collections.abc import Mapping, Sequence

import numpy as np

from contract.features import Block, FeatureSet
from contract.rows import ACTIONS, Action
from contract.settings import Rule


class Judge:
    """Compares features with the shop's rules, and probabilities with its thresholds."""

    def __init__(
        self, *, rules: Sequence[Rule], thresholds: Mapping[str, Mapping[str, float]], features: FeatureSet
    ) -> None:
        self._thresholds = thresholds
        at = {f.name: (g, n) for g in ("user", "order", "context") for n, f in enumerate(features.numbers(g))}
        self._rules = [(rule, *at[rule.feature]) for rule in rules if rule.feature in at]

    def judge(
        self, row: int, blocks: Mapping[str, Block], probability: Mapping[str, float]
    ) -> tuple[Action, list[str]]:
        """The action for one row of the blocks, and why; a score that is not finite never approves."""
        verdicts: list[tuple[Action, str]] = []
        for rule, group, column in self._rules:
            if blocks[group].numbers[row, column] > rule.above:
                verdicts.append((rule.action, rule.reason))
        for task, value in probability.items():
            if not np.isfinite(value):
                verdicts.append(("review", f"the {task} score is not finite"))
                continue
            reached = [a for a in ACTIONS if value >= self._thresholds.get(task, {}).get(a, np.inf)]
            if reached:
                verdicts.append((reached[-1], f"{task} probability {value:.2f}"))
        worst = max((ACTIONS.index(action) for action, _ in verdicts), default=0)
        return ACTIONS[worst], [reason for _, reason in verdicts]
