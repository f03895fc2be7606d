"""Following: learn once from the feedback that came since, and publish what is not worse.

Every example is predicted before it is learned from, which is the most honest figure there is (progressive validation).
The newest examples are held out for the gate; they are learned from later, since they join the sample that a checkpoint
carries. Positions move on inside the checkpoint, so a bundle and what it has learned from cannot come apart.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from contract.bundle import current_version
from contract.errors import BadBundle
from contract.rows import Example, read_example
from contract.settings import Delay
from export.interactions import read_interactions
from model.checkpoint import About, Checkpoint, describe, path_of, read_checkpoint
from model.network import Network
from training.delay import Late, late_in
from training.evaluation import Evaluation, judge
from training.examples import Examples, from_rows
from training.feed import Fed
from training.gate import refusals, unfinished
from training.interactions import interactions_of, latest_interactions
from training.labels import expected_instead
from training.learner import Learner, as_batch, predict
from training.plan import Plan
from training.sample import meaning, sample_of, together
from training.split import split_by_time
from training.table import read_examples

Predictions = dict[str, npt.NDArray[Any]]
NOTHING_LATE = Late()


@dataclass(frozen=True, slots=True)
class Update:
    """What came of one look at the feedback. `checkpoint`: the better model, or None with `refused` saying why."""

    examples: int
    left_out: dict[str, int]
    progressive: Evaluation = field(default_factory=dict)
    held_out: Evaluation = field(default_factory=dict)
    refused: Sequence[str] = ()
    checkpoint: Checkpoint | None = None


def present_checkpoint(bundles: Path) -> Checkpoint:
    """The checkpoint behind the bundle that serves now; raises `BadBundle` when there is none."""
    version = current_version(bundles)
    if version is None:
        raise BadBundle(f"{bundles} should have a present bundle to go on from. Found none; `export` publishes one.")
    return read_checkpoint(path_of(bundles, version))


def update(checkpoint: Checkpoint, fed: Fed, plan: Plan, delays: Mapping[str, Delay] = MappingProxyType({})) -> Update:
    """Learn from what was fed, if there is anything to learn from; the checkpoint given stays as it is.

    `delays`: the tasks whose first label may be corrected.
    """
    new, left_out = usable(fed.values, checkpoint)
    if not len(new):
        return Update(0, left_out)
    network, sample = checkpoint.network(), kept(checkpoint)
    split = split_by_time(new, plan.held_out)
    held_out, arriving = new.take(split.validation), new.take(split.training)
    before = predict(network, held_out)
    learner = Learner(network=network.train(), plan=plan, state=checkpoint.optimizer)
    guesses = learn_progressively(learner, arriving, sample, plan, late_in(fed.values, new, delays))
    after = predict(network.eval(), held_out)
    progressive = judge(network.tasks, arriving, guesses)
    evaluation = judge(network.tasks, held_out, after)
    refused = unfinished(network) + refusals(network.tasks, held_out, before, after, plan.margin)
    if refused:
        return Update(len(new), left_out, progressive, evaluation, refused)
    everything = new if sample is None else together([sample, new], checkpoint.about)
    better = Checkpoint(
        about=successor(checkpoint, network, evaluation, fed.positions),
        weights=network.state_dict(),
        optimizer=learner.optimizer.state_dict(),
        sample=sample_of(everything, plan.keep, plan.seed),
        interactions=latest_interactions(read_interactions(checkpoint.interactions), interactions_of(new)),
    )
    return Update(len(new), left_out, progressive, evaluation, (), better)


def successor(checkpoint: Checkpoint, network: Network, evaluation: Evaluation, positions: Mapping[str, int]) -> About:
    """What is said of the network that comes after a checkpoint; its version sorts behind, whatever the clock says."""
    return describe(
        network,
        parent=checkpoint.about.version,
        created_ms=max(time.time_ns() // 1_000_000, checkpoint.about.created_ms + 1),
        evaluation=evaluation,
        positions=positions,
    )


def learn_progressively(
    learner: Learner, arriving: Examples, sample: Examples | None, plan: Plan, late: Late = NOTHING_LATE
) -> Predictions:
    """One pass in the order of time, each batch beside as many kept examples; returns what was said before learning."""
    guesses, order = Predictions(), np.random.default_rng(plan.seed)
    for start in range(0, len(arriving), plan.batch):
        rows = np.arange(start, min(start + plan.batch, len(arriving)))
        for task, guess in predict(learner.network, arriving.take(rows)).items():
            whole = np.full((len(arriving), *guess.shape[1:]), np.nan, np.float32)
            guesses.setdefault(task, whole)[rows] = guess
        learner.learn(late.weigh(learner.network, as_batch(arriving, rows), arriving.take(rows), len(rows)))
        if sample is not None:
            again = order.integers(0, len(sample), len(rows))
            learner.learn(late.weigh(learner.network, as_batch(sample, again), sample.take(again), 0))
    return guesses


def usable(values: Sequence[bytes], checkpoint: Checkpoint) -> tuple[Examples, dict[str, int]]:
    """The examples that this model can learn from, and how many were left out for which reason."""
    features, tasks, classes = meaning(checkpoint.about)
    rows, left_out = list[Example](), {"unreadable": 0, "of other features": 0, "without a label": 0}
    for value in values:
        try:
            row = read_example(value)
        except msgspec.MsgspecError:
            left_out["unreadable"] += 1
            continue
        labels = {t.name: row.labels[t.name] for t in tasks if t.name in row.labels}
        labels = {t.name: labels[t.name] for t in tasks if t.name in labels and not expected_instead(t, labels[t.name])}
        if row.features != features.digest:
            left_out["of other features"] += 1
        elif not labels:
            left_out["without a label"] += 1
        else:
            rows.append(msgspec.structs.replace(row, labels=labels))
    return from_rows(rows, features, tasks, classes), {why: count for why, count in left_out.items() if count}


def kept(checkpoint: Checkpoint) -> Examples | None:
    """The examples that the checkpoint carries, if any."""
    return read_examples(checkpoint.sample, *meaning(checkpoint.about)) if checkpoint.sample else None
