"""Late truth: a label that said "not so far" and was corrected days later teaches what true labels would have taught.

The joiner says "not bought" after a short wait, and "bought" as a correction when it comes within the window. Whoever
waits for the window learns from an old world; whoever takes every row at its face value learns each late purchase as
a failure first and as a success later, and so says too little. Nothing here knows how long purchases take.

**A correction takes back what the first label taught.** With π what the network says of the row now, its positive row
counts 1 / (1 - π), and every other row counts 1. Since ∇log(1 - π) = -π / (1 - π) ∇log π, this is the gradient of a
success less that of the failure that was learned: ∇log π - ∇log(1 - π) = ∇log π / (1 - π). If a share e of the rows
that look alike is bought by the end of the wait, and l later, p = e + l in all, the expected gradient is

    e ∇log π + (1 - e) ∇log(1 - π) + l ∇log π / (1 - π)  =  p ∇log π + (1 - p) ∇log(1 - π),

what true labels give, for every e, l and π, whatever the features have to do with delays. That it comes in two parts,
the second one late, is all that is left of the delay. It holds for a task through others as well, π being the product.

These are the weights of fake negatives of Ktena et al. (2019), 1 + p for successes and (1 + p)(1 - p) for failures,
divided by those of failures, and so with a wait as well as without one: what was bought by its end was never a failure.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from contract.settings import LabelDelay
from contract.tasks import Task
from model.heads import compute_probabilities
from model.network import Network
from training.data.examples import Examples
from training.online.new_labels import NewLabels
from training.trainer.batching import Batch, to_batch
from training.trainer.learner import get_device

CORRECTION_MAX: Final = 10.0  # exact for all that the network gives at most nine chances in ten
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class DelayedFeedback:
    """What an update has to know of labels that may still change. Without `delays` every row counts alike.

    `delays`: of each delayed task. `unlearned`: the (task, example id) whose "not so far" came with this update too: of
    an id only the newest revision is learned, so a correction has nothing to take back. `now_ms`: of the streams.
    """

    delays: Mapping[str, LabelDelay] = field(default_factory=dict)
    unlearned_negatives: frozenset[tuple[str, str]] = frozenset()
    now_ms: int = 0

    def weigh(self, network: Network, batch: Batch, examples: Examples, new_rows: int) -> Batch:
        """The batch of these examples with weights, of which the first `new` are learned now and the others again.

        What is learned again counts for a delayed task once its window has passed, and not at all before: of younger
        rows more successes are missing than failures. Raises nothing, and gives finite weights whatever is said.
        """
        tasks = [task for task in network.tasks if task.name in self.delays]
        weights = {task.name: self._weigh_task(network, examples, task, new_rows) for task in tasks}
        return replace(batch, weights={**batch.weights, **weights}) if weights else batch

    def _weigh_task(self, network: Network, examples: Examples, task: Task, new_rows: int) -> Tensor:
        delay, row_weights = self.delays[task.name], np.ones(len(examples), np.float32)
        is_new = np.arange(len(examples)) < new_rows
        row_weights[~is_new & (examples.ts_ms > self.now_ms - delay.window_ms)] = 0
        ids = examples.example_id.tolist()
        was_learned = np.array([(task.name, ident) not in self.unlearned_negatives for ident in ids], np.bool_)
        rows = np.flatnonzero(is_new & was_learned & find_corrections(examples, task, delay.wait_ms))
        if len(rows):
            row_weights[rows] = weigh_corrections(predict_uncalibrated(network, examples.take(rows), task))
        return torch.from_numpy(row_weights)


def collect_delayed_feedback(parts: Sequence[NewLabels], delays: Mapping[str, LabelDelay]) -> DelayedFeedback:
    """What to know of the news that an update learns.

    A success that is told behind other news of its example had its "not so far" among them; one that comes alone
    corrects what an earlier update has learned.
    """
    if not delays:
        return DelayedFeedback()
    unlearned_negatives, now_ms = set[tuple[str, str]](), 0
    for part in parts:
        known_ms = part.examples.known_ms
        now_ms = max(now_ms, *(int(times_ms.max(initial=0)) for times_ms in (part.examples.ts_ms, *known_ms.values())))
        for task in delays.keys() & known_ms.keys():
            same_update = part.new_since_ms < known_ms[task]
            unlearned_negatives |= {(task, ident) for ident in part.examples.example_id[same_update].tolist()}
    return DelayedFeedback(delays, frozenset(unlearned_negatives), now_ms)


def find_corrections(examples: Examples, task: Task, wait_ms: int) -> Mask:
    """Which rows (N,) say yes after a wait at whose end no was said.

    The wait begins with the label of the task that this one goes through, or where there is none with the example.
    """
    begin_ms = examples.ts_ms
    if task.through is not None:
        through = examples.known_ms[task.through]
        begin_ms = np.where(through > 0, through, begin_ms)
    is_correction: Mask = (examples.known_ms[task.name] > begin_ms + wait_ms) & (examples.labels[task.name] == 1)
    return is_correction


def weigh_corrections(probability: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """The weights (N,) of corrections of which the network says these probabilities (N,): 1 / (1 - π), bounded."""
    weights = 1 / np.maximum(1 - np.nan_to_num(probability.astype(np.float64), nan=0.0), 1 / CORRECTION_MAX)
    return np.asarray(weights, np.float32)


@torch.no_grad()
def predict_uncalibrated(network: Network, examples: Examples, task: Task) -> npt.NDArray[np.float32]:
    """What the network says of rows (N,) as its loss sees it: before calibration, which learns nothing."""
    view = next(view for view in network.eval().views if task.name in {view_task.name for view_task in view.tasks})
    inputs = to_batch(examples).to(get_device(network)).inputs
    logits = network.logits(view, network.group_parts(view, {group: inputs[group] for group in view.groups}))
    probability: npt.NDArray[np.float32] = (
        compute_probabilities(view.tasks, logits, network.scale)[task.name].cpu().numpy()
    )
    return probability
