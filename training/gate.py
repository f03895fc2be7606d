"""The gate: an update is published if it is finite and, on what it has not seen, not worse than the present model."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from contract.tasks import Task
from model.network import Network
from training.evaluation import figures_of, truth_of
from training.examples import Examples

ROWS_MIN: Final = 50  # with fewer held-out labels of a task chance would decide
Predictions = Mapping[str, npt.NDArray[Any]]


def refusals(
    tasks: Sequence[Task], examples: Examples, before: Predictions, after: Predictions, margin: float
) -> list[str]:
    """Why an update must not serve, as sentences: for each task, what it loses on these held-out examples.

    Measured is the share of the best constant's loss that is saved; where all labels are equal, the loss itself.
    """
    found = list[str]()
    for task in tasks:
        rows = examples.known(task)
        if not rows.any():
            continue
        truth = truth_of(examples, task, rows)
        if not np.isfinite(after[task.name][rows]).all():
            found.append(f"`{task.name}` should answer with finite numbers. Found others.")
        elif len(truth.y) >= ROWS_MIN:
            old = worth(figures_of(task, truth, before[task.name][rows]))
            new = worth(figures_of(task, truth, after[task.name][rows]))
            if not new >= old - margin:
                found.append(
                    f"`{task.name}` should lose at most {margin:g} of its gain on {len(truth.y)} held-out examples. "
                    f"Found {new:.4f} after {old:.4f}."
                )
    return found


def worth(figures: Mapping[str, float]) -> float:
    """The gain, or where it has no meaning the loss, turned so that more is better."""
    gain = figures.get("gain", float("nan"))
    return gain if np.isfinite(gain) else -figures.get("log_loss", figures.get("rmse", 0.0))


def unfinished(network: Network) -> list[str]:
    """The weights that are not finite, as sentences."""
    weights = network.state_dict().items()
    return [f"Weights should be finite. Found others in {name}." for name, w in weights if not w.isfinite().all()]
