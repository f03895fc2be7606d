"""Focus: after each epoch, what held-out examples say is still hard weighs more (after Guo et al. 2018).

Dynamic task prioritization: a task's priority is multiplied by (1 - gain) ** focus, where its gain is the share of the
best constant's loss that it saves on held-out rows. Then all are scaled so that their sum, and with it the length of a
step, stays what the priorities declare. The focus 0 leaves them as they are.
"""

from collections.abc import Sequence

from contract.tasks import Task
from training.trainer.evaluation import Evaluation


def prioritize_tasks(tasks: Sequence[Task], evaluation: Evaluation, focus: float) -> dict[str, float]:
    """The weight of each task's loss in the next epoch; a task whose gain nothing tells keeps its priority."""
    gains = {name: figures["gain"] for name, figures in evaluation.items() if figures.get("gain") is not None}
    factors = {task.name: (1 - min(max(gains[task.name], 0.0), 1.0)) ** focus for task in tasks if task.name in gains}
    declared = {task.name: task.weight for task in tasks}
    before = sum(declared[name] for name in factors)
    after = sum(declared[name] * factor for name, factor in factors.items())
    if not after:
        return declared
    return {
        name: weight * factors[name] * before / after if name in factors else weight
        for name, weight in declared.items()
    }
