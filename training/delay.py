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

from contract.settings import Delay
from contract.tasks import Task
from model.answers import probabilities
from model.network import Network
from training.examples import Examples
from training.learner import Batch, as_batch, device_of
from training.news import News

CORRECTION_MAX: Final = 10.0  # exact for all that the network gives at most nine chances in ten
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Late:
    """What an update has to know of labels that may still change. Without `delays` every row counts alike.

    `delays`: of each delayed task. `unlearned`: the (task, example id) whose "not so far" came with this update too: of
    an id only the newest revision is learned, so a correction has nothing to take back. `now_ms`: of the streams.
    """

    delays: Mapping[str, Delay] = field(default_factory=dict)
    unlearned: frozenset[tuple[str, str]] = frozenset()
    now_ms: int = 0

    def weigh(self, network: Network, batch: Batch, examples: Examples, new: int) -> Batch:
        """The batch of these examples with weights, of which the first `new` are learned now and the others again.

        What is learned again counts for a delayed task once its window has passed, and not at all before: of younger
        rows more successes are missing than failures. Raises nothing, and gives finite weights whatever is said.
        """
        tasks = [task for task in network.tasks if task.name in self.delays]
        weights = {task.name: self._weights(network, examples, task, new) for task in tasks}
        return replace(batch, weights={**batch.weights, **weights}) if weights else batch

    def _weights(self, network: Network, examples: Examples, task: Task, new: int) -> Tensor:
        delay, found = self.delays[task.name], np.ones(len(examples), np.float32)
        is_new = np.arange(len(examples)) < new
        found[~is_new & (examples.ts_ms > self.now_ms - delay.window_ms)] = 0
        ids = examples.example_id.tolist()
        taught = np.array([(task.name, ident) not in self.unlearned for ident in ids], np.bool_)
        rows = np.flatnonzero(is_new & taught & corrections(examples, task, delay.wait_ms))
        if len(rows):
            found[rows] = taking_back(said_now(network, examples.take(rows), task))
        return torch.from_numpy(found)


def late_in(parts: Sequence[News], delays: Mapping[str, Delay]) -> Late:
    """What to know of the news that an update learns.

    A success that is told behind other news of its example had its "not so far" among them; one that comes alone
    corrects what an earlier update has learned.
    """
    if not delays:
        return Late()
    found, now_ms = set[tuple[str, str]](), 0
    for part in parts:
        known_ms = part.examples.known_ms
        now_ms = max(now_ms, *(int(of.max(initial=0)) for of in (part.examples.ts_ms, *known_ms.values())))
        for task in delays.keys() & known_ms.keys():
            together = part.told_ms < known_ms[task]
            found |= {(task, ident) for ident in part.examples.example_id[together].tolist()}
    return Late(delays, frozenset(found), now_ms)


def corrections(examples: Examples, task: Task, wait_ms: int) -> Mask:
    """Which rows (N,) say yes after a wait at whose end no was said.

    The wait begins with the label of the task that this one goes through, or where there is none with the example.
    """
    begun = examples.ts_ms
    if task.through is not None:
        through = examples.known_ms[task.through]
        begun = np.where(through > 0, through, begun)
    found: Mask = (examples.known_ms[task.name] > begun + wait_ms) & (examples.labels[task.name] == 1)
    return found


def taking_back(said: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """The weights (N,) of corrections of which the network says these probabilities (N,): 1 / (1 - π), bounded."""
    found = 1 / np.maximum(1 - np.nan_to_num(said.astype(np.float64), nan=0.0), 1 / CORRECTION_MAX)
    return np.asarray(found, np.float32)


@torch.no_grad()
def said_now(network: Network, examples: Examples, task: Task) -> npt.NDArray[np.float32]:
    """What the network says of rows (N,) as its loss sees it: before calibration, which learns nothing."""
    view = next(view for view in network.eval().views if task.name in {one.name for one in view.tasks})
    inputs = as_batch(examples).to(device_of(network)).inputs
    logits = network.logits(view, network.parts(view, {group: inputs[group] for group in view.groups}))
    said: npt.NDArray[np.float32] = probabilities(view.tasks, logits, network.scale)[task.name].cpu().numpy()
    return said
