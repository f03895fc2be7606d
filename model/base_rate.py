"""The tasks of a model that predicts worse than the base rate of their labels, by the evaluation of its fit."""

from collections.abc import Mapping, Sequence
from typing import Final

from contract.errors import BadBundle

WORSE_SHARE: Final = "worse_than_base_rate"  # a metric: the share of draws of users in which the base rate is better
WORSE_SHARE_MAX: Final = 0.8  # a model is refused above it; one as good as the base rate has .5 on average


def explain_if_worse(evaluation: Mapping[str, Mapping[str, float]]) -> list[str]:
    """A sentence for each task whose predictions are worse than the base rate of its labels."""
    return [
        f"`{task}` should be predicted better than by its base rate. Found that the base rate is better in "
        f"{metrics[WORSE_SHARE]:.0%} of the draws of held-out users (gain {metrics.get('gain', float('nan')):.4f})."
        for task, metrics in evaluation.items()
        if metrics.get(WORSE_SHARE, 0.0) > WORSE_SHARE_MAX
    ]


def check_base_rate(evaluation: Mapping[str, Mapping[str, float]]) -> None:
    """Raises `BadBundle` for a model with a task that is worse than its base rate."""
    if reasons := explain_if_worse(evaluation):
        advice = "More rows, fewer features (`training describe --write`) or a smaller network may help"
        raise BadBundle(f"{' '.join(reasons)} {advice}; `--anyway` exports it as it is.")


def warn_without_gain(evaluation: Mapping[str, Mapping[str, float]]) -> Sequence[str]:
    """A sentence for each task without any gain over the base rate that is not refused."""
    return [
        f"`{task}` has no gain over its base rate on held-out examples: {metrics['gain']:.4f}."
        for task, metrics in evaluation.items()
        if metrics.get("gain", 1.0) <= 0 and metrics.get(WORSE_SHARE, 0.0) <= WORSE_SHARE_MAX
    ]
