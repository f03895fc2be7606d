"""Delayed feedback: weights that make labels which are corrected days later teach what final labels would have taught.

The joiner publishes "not bought" after a short wait, and "bought" as a correction when the purchase comes within the
window. Waiting for the whole window would mean learning from old data; learning both labels at face value would count
each late purchase as a negative first and a positive later, and bias the prediction down. The method needs no model of
the delay.

**A correction reverses the gradient of the first label.** With π the network's present probability of the row, a
correction weighs 1 / (1 - π) and every other row weighs 1. Since ∇log(1 - π) = -π / (1 - π) ∇log π, this is the
gradient of a positive minus that of the negative that was learned: ∇log π - ∇log(1 - π) = ∇log π / (1 - π). If among
rows with equal features a share e is bought before the wait ends and a share l later, p = e + l in all, the expected
gradient is

    e ∇log π + (1 - e) ∇log(1 - π) + l ∇log π / (1 - π)  =  p ∇log π + (1 - p) ∇log(1 - π),

that of the final labels, for every e, l and π, however delays depend on features. Only its second part comes late. It
holds as well for a task through another one, with π the product.

These are the weights of fake negatives of Ktena et al. (2019), 1 + p for positives and (1 + p)(1 - p) for negatives,
divided by those of negatives. They hold with a wait as well as without one, because a purchase before the end of the
wait was never published as a negative.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from contract.arrays import Array, Mask
from contract.settings.worker import LabelDelay
from contract.tasks import Task
from model.heads import compute_probabilities
from model.network import Network
from training.data.examples import Examples
from training.online.new_labels import NewLabels
from training.trainer.batching import Batch, to_batch
from training.trainer.learner import get_device

CORRECTION_MAX: Final = 10.0  # exact up to a probability of 0.9


@dataclass(frozen=True, slots=True)
class DelayedFeedback:
    """What an update knows of labels that may still change; without `delays` every row weighs 1.

    `delays`: by delayed task. `unlearned_negatives`: the (task, example id) whose first label came in the same update;
    only the newest revision of an id is learned, so its correction has nothing to reverse. `now_ms`: event time.
    """

    delays: Mapping[str, LabelDelay] = field(default_factory=dict)
    unlearned_negatives: frozenset[tuple[str, str]] = frozenset()
    now_ms: int = 0

    def weigh(self, network: Network, batch: Batch, examples: Examples, new_rows: int) -> Batch:
        """The batch with weights; its first `new_rows` rows are new, the others are replayed.

        Replayed rows weigh 0 for a delayed task until its window has passed: among younger rows more positives are
        missing than negatives. Weights are finite whatever the network predicts.
        """
        tasks = [task for task in network.tasks if task.name in self.delays]
        weights = {task.name: self._weigh_task(network, examples, task, new_rows) for task in tasks}
        return replace(batch, weights={**batch.weights, **weights}) if weights else batch

    def _weigh_task(self, network: Network, examples: Examples, task: Task, new_rows: int) -> Tensor:
        delay = self.delays[task.name]
        row_weights = np.ones(len(examples), np.float32)
        is_new = np.arange(len(examples)) < new_rows
        row_weights[~is_new & (examples.ts_ms > self.now_ms - delay.window_ms)] = 0
        ids = examples.example_id.tolist()
        was_learned = np.array([(task.name, ident) not in self.unlearned_negatives for ident in ids], np.bool_)
        rows = np.flatnonzero(is_new & was_learned & find_corrections(examples, task, delay.wait_ms))
        if len(rows):
            row_weights[rows] = weigh_corrections(predict_uncalibrated(network, examples.take(rows), task))
        return torch.from_numpy(row_weights)


def collect_delayed_feedback(parts: Sequence[NewLabels], delays: Mapping[str, LabelDelay]) -> DelayedFeedback:
    """The delayed feedback of the labels that an update learns.

    A positive that arrives together with an earlier label of its example had its first label in this update as well.
    One that arrives alone corrects what an earlier update has learned.
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
    """The rows (N,) with a positive label that was known after the end of the wait.

    The wait begins with the label of the task that this one goes through, or with the event if there is none.
    """
    begin_ms = examples.ts_ms
    if task.through is not None:
        through = examples.known_ms[task.through]
        begin_ms = np.where(through > 0, through, begin_ms)
    is_correction: Mask = (examples.known_ms[task.name] > begin_ms + wait_ms) & (examples.labels[task.name] == 1)
    return is_correction


def weigh_corrections(probability: Array) -> npt.NDArray[np.float32]:
    """The weights (N,) of corrections with these probabilities π (N,): 1 / (1 - π), at most `CORRECTION_MAX`."""
    weights = 1 / np.maximum(1 - np.nan_to_num(probability.astype(np.float64), nan=0.0), 1 / CORRECTION_MAX)
    return np.asarray(weights, np.float32)


@torch.no_grad()
def predict_uncalibrated(network: Network, examples: Examples, task: Task) -> npt.NDArray[np.float32]:
    """The network's probabilities (N,) as its loss sees them: before calibration, which updates do not train."""
    view = next(view for view in network.eval().views if task.name in {view_task.name for view_task in view.tasks})
    batch = to_batch(examples).to(get_device(network))
    logits = network.logits(view, network.group_parts(view, {group: batch.inputs[group] for group in view.groups}))
    logits = network.add_position_bias(logits, batch.place) if batch.place is not None else logits
    probabilities = compute_probabilities(view.tasks, logits, network.scale)
    probability: npt.NDArray[np.float32] = probabilities[task.name].cpu().numpy()
    return probability
