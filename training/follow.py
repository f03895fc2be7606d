"""Following: learn once from the feedback that came since, and publish what is not worse.

Every example is predicted before it is learned from, which is the most honest figure there is (progressive validation).
The newest examples are held out for the gate; they are learned from later, since they join the sample that a checkpoint
carries, of which a part only judges. Positions move on inside the checkpoint, so a bundle and what it has learned from
cannot come apart.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from contract.bundle import current_version
from contract.errors import BadBundle, BadData
from contract.rows import Example, read_example
from export.interactions import read_interactions
from model.checkpoint import About, Checkpoint, describe, path_of, read_checkpoint
from model.network import Network
from training.doubts import doubts
from training.evaluation import Evaluation, judge
from training.examples import Examples, from_rows
from training.feed import Fed
from training.gate import judged, unfinished
from training.gentle import beside, gentle_learner
from training.interactions import interactions_of, latest_interactions
from training.judges import Kept, parted
from training.labels import expected_instead
from training.learner import Learner, as_batch, predict
from training.paired import Judged
from training.plan import Plan
from training.sample import meaning, sample_of, together
from training.screen import screened
from training.split import split_by_time
from training.table import read_examples

Predictions = dict[str, npt.NDArray[Any]]
Learn = Callable[[Learner, Examples, Examples | None, Plan], Predictions]


@dataclass(frozen=True, slots=True)
class Update:
    """What came of one look at the feedback. `checkpoint`: the better model, or None with `refused` saying why.

    `figures`: what the gate found, by set and task; `aside`: the network that it refused.
    """

    examples: int
    left_out: dict[str, int]
    progressive: Evaluation = field(default_factory=dict)
    held_out: Evaluation = field(default_factory=dict)
    refused: Sequence[str] = ()
    checkpoint: Checkpoint | None = None
    figures: Mapping[str, dict[str, float]] = field(default_factory=dict)
    aside: Checkpoint | None = None


def present_checkpoint(bundles: Path) -> Checkpoint:
    """The checkpoint behind the bundle that serves now; raises `BadBundle` when there is none."""
    version = current_version(bundles)
    if version is None:
        raise BadBundle(f"{bundles} should have a present bundle to go on from. Found none; `export` publishes one.")
    return read_checkpoint(path_of(bundles, version))


def update(checkpoint: Checkpoint, fed: Fed, plan: Plan, learn: Learn | None = None) -> Update:
    """Learn from what was fed, if there is anything to learn from; the checkpoint given stays as it is."""
    new, left_out = usable(fed.values, checkpoint)
    sample = kept(checkpoint)
    new, unfit = screened(new, sample, fed.newest_ms, plan.user_share)
    left_out |= unfit
    if not len(new):
        return Update(0, left_out)
    network, parts = checkpoint.network(), parted(sample) if sample else None
    said = predict(network, new)
    was_said = (parts.judging, predict(network, parts.judging)) if parts else None
    unlearned = Update(len(new), left_out, judge(network.tasks, new, said))
    if doubted := list(doubts(network.tasks, (new, said), was_said, plan.jump)):
        return replace(unlearned, refused=doubted)
    learner = gentle_learner(network, checkpoint.optimizer, plan)
    try:
        found = replace(tried(learner, new, parts, plan, learn or learn_progressively), left_out=left_out)
    except BadData as error:
        return replace(unlearned, refused=[str(error)])
    about = successor(checkpoint, network, found.held_out, fed.positions)
    if found.refused:
        return replace(found, aside=Checkpoint(about=about, weights=network.state_dict()))
    everything = new if sample is None else together([sample, new], checkpoint.about)
    better = Checkpoint(
        about=about,
        weights=network.state_dict(),
        optimizer=learner.optimizer.state_dict(),
        sample=sample_of(everything, plan.keep, plan.seed),
        interactions=latest_interactions(read_interactions(checkpoint.interactions), interactions_of(new)),
    )
    return replace(found, checkpoint=better)


def tried(learner: Learner, new: Examples, parts: Kept | None, plan: Plan, learn: Learn) -> Update:
    """Learn from all but the newest examples, then let those and the kept judges compare before with after.

    Raises `BadData` where learning comes to no end.
    """
    network, split = learner.network, split_by_time(new, plan.held_out)
    held_out, arriving = new.take(split.validation), new.take(split.training)
    judges = {"recent": held_out} | ({"kept": parts.judging} if parts else {})
    before = {which: predict(network, examples) for which, examples in judges.items()}
    guesses = learn(learner, arriving, parts.learned if parts else None, plan)
    network.eval()
    sets = [Judged(which, examples, before[which], predict(network, examples)) for which, examples in judges.items()]
    verdict = judged(network.tasks, sets, plan.margin)
    return Update(
        len(new),
        {},
        judge(network.tasks, arriving, guesses),
        judge(network.tasks, held_out, sets[0].after),
        [*unfinished(network), *verdict.refused],
        figures=verdict.figures,
    )


def successor(checkpoint: Checkpoint, network: Network, evaluation: Evaluation, positions: Mapping[str, int]) -> About:
    """What is said of the network that comes after a checkpoint; its version sorts behind, whatever the clock says."""
    return describe(
        network,
        parent=checkpoint.about.version,
        created_ms=max(time.time_ns() // 1_000_000, checkpoint.about.created_ms + 1),
        evaluation=evaluation,
        positions=positions,
    )


def learn_progressively(learner: Learner, arriving: Examples, sample: Examples | None, plan: Plan) -> Predictions:
    """One pass in the order of time, each batch beside as many kept examples; returns what was said before learning."""
    guesses, order = Predictions(), np.random.default_rng(plan.seed)
    for start in range(0, len(arriving), plan.batch):
        rows = np.arange(start, min(start + plan.batch, len(arriving)))
        for task, guess in predict(learner.network, arriving.take(rows)).items():
            whole = np.full((len(arriving), *guess.shape[1:]), np.nan, np.float32)
            guesses.setdefault(task, whole)[rows] = guess
        batch = as_batch(arriving, rows)
        if sample is not None and len(sample):
            batch = beside(batch, as_batch(sample, order.integers(0, len(sample), len(rows))))
        learner.learn(batch)
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
