"""Following: learn once from the feedback that came since, and publish what is not worse.

Every example is predicted before it is learned from, which is the most honest figure there is (progressive validation).
The newest examples are held out for the gate; the next update learns from them first. Positions move on inside the
checkpoint, so a bundle and what it has learned from cannot come apart.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from contract.bundle import current_version
from contract.errors import BadBundle
from contract.hashing import digests
from contract.rows import Example, read_example
from export.interactions import read_interactions
from model.checkpoint import About, Checkpoint, describe, path_of, read_checkpoint
from model.network import Network
from training.evaluation import Evaluation, judge
from training.examples import Examples, from_rows
from training.feed import Fed
from training.gate import refusals, unfinished
from training.interactions import interactions_of, latest_interactions
from training.labels import expected_instead
from training.learner import Learner, as_batch, predict
from training.news import News, in_turn, news_in, read_news
from training.plan import Plan
from training.sample import Sample, meaning, one_after_another, read_sample, sample_of, together
from training.tables import rehoused
from training.teacher import taught

Predictions = dict[str, npt.NDArray[Any]]


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


def update(checkpoint: Checkpoint, fed: Fed, plan: Plan) -> Update:
    """Learn from what was fed, if there is anything to learn from; the checkpoint given stays as it is."""
    new, left_out = usable(fed.values, checkpoint)
    if not len(new):
        return Update(0, left_out)
    present, sample, waiting = checkpoint.network(), kept(checkpoint), waited(checkpoint)
    arrived, held = new.parted(plan.held_out)
    held_out, arriving = held.unlearned(), in_turn([*waiting, arrived])
    before = predict(present, held_out)
    begun = rehoused(checkpoint, present, new.first_met(), plan)
    network = begun.network()
    learner = Learner(network=network.train(), plan=gentler(plan), state=begun.optimizer)
    guesses = learn_progressively(learner, present, arriving, sample, plan)
    after = predict(network.eval(), held_out)
    progressive = judge(network.tasks, arriving, guesses)
    evaluation = judge(network.tasks, held_out, after)
    refused = unfinished(network) + refusals(network.tasks, held_out, before, after, plan.margin)
    if refused:
        return Update(len(new), left_out, progressive, evaluation, refused)
    learned = [*([sample.examples] if sample else []), *(part.examples for part in (*waiting, arrived))]
    better = Checkpoint(
        about=successor(checkpoint, network, evaluation, fed.positions),
        weights=network.state_dict(),
        optimizer=learner.optimizer.state_dict(),
        sample=sample_of(together(learned), plan.keep, plan.seed),
        waiting=held.parquet(),
        met=begun.met,
        interactions=latest_interactions(read_interactions(checkpoint.interactions), interactions_of(new.examples)),
    )
    return Update(len(new), left_out, progressive, evaluation, (), better)


def gentler(plan: Plan) -> Plan:
    """The plan with the learning rate of updates."""
    return msgspec.structs.replace(plan, learning_rate=plan.learning_rate * plan.update_rate)


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
    learner: Learner, teacher: Network, arriving: Examples, sample: Sample | None, plan: Plan
) -> Predictions:
    """One pass in the order of becoming known, kept examples in each batch; returns what was said before learning."""
    guesses, order = Predictions(), drawing(arriving, plan)
    chances = sample.chances() if sample else np.zeros(0)
    for rows in np.array_split(np.arange(len(arriving)), max(-(-len(arriving) // plan.update_batch), 1)):
        new = arriving.take(rows)
        for task, guess in predict(learner.network, new).items():
            whole = np.full((len(arriving), *guess.shape[1:]), np.nan, np.float32)
            guesses.setdefault(task, whole)[rows] = guess
        again = max(round(plan.replay * len(rows)), plan.update_batch - len(rows)) if sample else 0
        if sample and again:
            drawn = order.choice(len(chances), again, p=chances)
            new = one_after_another([new, sample.examples.take(drawn)])
        batch = as_batch(new)
        learner.learn(taught(teacher, batch, len(rows)) if plan.distillation else batch)
    return guesses


def drawing(arriving: Examples, plan: Plan) -> np.random.Generator:
    """What draws the replayed rows: by what arrives, or each update would draw those that the last one drew."""
    return np.random.default_rng([plan.seed, int(digests(arriving.example_id[:1].tolist()).sum())])


def usable(values: Sequence[bytes], checkpoint: Checkpoint) -> tuple[News, dict[str, int]]:
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
    news = news_in(rows, from_rows(rows, features, tasks, classes))
    return news, {why: count for why, count in left_out.items() if count}


def kept(checkpoint: Checkpoint) -> Sample | None:
    """The examples that the checkpoint carries to be learned from again, if any."""
    return read_sample(checkpoint.sample, checkpoint.about) if checkpoint.sample else None


def waited(checkpoint: Checkpoint) -> list[News]:
    """The examples that judged the checkpoint, and are to be learned from now; none or one."""
    return [read_news(checkpoint.waiting, checkpoint.about)] if checkpoint.waiting else []
