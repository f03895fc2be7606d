"""Fitting: examples in, a trained network out, judged by the latest examples, which it never saw.

In the order of time, within each family: what is learned from, what calibrates, what judges. The last part chooses the
epoch that stays and gives the figures; neither weights nor calibration have seen it. Each epoch is judged as it would
answer, calibrated: certainty that calibration takes back must not outweigh what the tasks have learned.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from model.declared import Shape
from model.network import Network
from model.statistics import measure
from training.calibrate import calibrate
from training.course import Course, digest_of
from training.evaluation import Evaluation, evaluate, weighted_score
from training.examples import Examples
from training.fleet import ALONE, Fleet
from training.focus import focused
from training.learner import Learner, as_batch, in_turn, mixed
from training.parts import Parts, halves, parted
from training.plan import Plan
from training.split import family_of
from training.stream import Stream
from training.transfer import Transfer

Losses = Mapping[str, float]
Report = Callable[["Epoch"], None]
Progress = Callable[[int, int, Losses], None]  # steps done, of how many, and the losses of the last one


@dataclass(frozen=True, slots=True)
class Epoch:
    """One pass over the training part: mean losses of the tasks while learning, and the held-out score, calibrated.

    `weights`: what the losses are multiplied by in the next one, where the plan lets them change.
    """

    number: int
    losses: Losses
    score: float
    weights: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Fitted:
    """The best network by the weighted score, calibrated; its figures, and why some tasks are not among its own."""

    network: Network
    optimizer: Mapping[str, Any]
    evaluation: Evaluation
    score: float
    left_out: dict[str, str]


def silent(done: int, steps: int, losses: Losses) -> None:
    """Says nothing."""


@dataclass(frozen=True, slots=True)
class Setting:
    """How a fit goes, beside its plan. `kept`: a file that has the course after each epoch, and is gone on with.

    `transfer`: the trained network that the new one begins as. `fleet`: the processes that learn it together, each of
    which finds the same; the one that leads keeps the course. `progress` is told of every step.
    """

    kept: Path | None = None
    transfer: Transfer | None = None
    fleet: Fleet = ALONE
    progress: Progress = silent


SETTING = Setting()


def fit(examples: Examples | Stream, shape: Shape, plan: Plan, report: Report, setting: Setting = SETTING) -> Fitted:
    """Learn until the held-out score gains no more; equal seeds give equal weights. Raises `BadData`, `BadConfig`."""
    kept, transfer, fleet = setting.kept, setting.transfer, setting.fleet
    if transfer:
        transfer.check(examples, shape)
    parts = parted(examples, plan, transfer)
    calibrating, validation = halves(parts.held_out)
    network = first_network(parts.measured, shape, transfer).to(fleet.device)
    if transfer:
        calibrating = transfer.taught(calibrating)
    groups = transfer.groups(network, plan.learning_rate) if transfer else None
    course = Course(learner=Learner(network=network, plan=plan, groups=groups, fleet=fleet), seed=plan.seed)
    digest = digest_of(examples, shape, plan, transfer.name if transfer else "") if kept else ""
    if kept and kept.is_file():
        course.take_up(kept, digest)
    while course.done < plan.epochs and course.best.waited < plan.patience:
        losses = learn_once(course.learner, parts, plan, course.order, setting.progress)
        calibrate(network.eval(), calibrating)  # losses know nothing of it, so learning goes on as if it were not there
        evaluation = evaluate(network, validation)
        score = weighted_score(network.tasks, evaluation)
        course.done += 1
        course.best.offer(score, course.learner)
        course.learner.weights = focused(network.tasks, evaluation, plan.focus)
        if kept and fleet.leads:
            course.keep(kept, digest)
        report(Epoch(course.done, losses, score, course.learner.weights if plan.focus else {}))
    best = course.best
    network.load_state_dict(best.weights)
    evaluation = evaluate(network.eval(), validation)
    optimizer = best.optimizer if groups is None else {}  # of other parameters than those that learn from here on
    return Fitted(network.cpu().requires_grad_(True), optimizer, evaluation, best.score, parts.left_out)


def first_network(training: Examples, shape: Shape, transfer: Transfer | None = None) -> Network:
    """A network that has counted the training part, but not learned from it; maybe it begins as another one."""
    groups = dict.fromkeys(group for task in training.tasks for group in task.groups)
    blocks = {group: training.blocks[group] for group in groups}
    features, tasks = training.features, training.tasks
    statistics = measure(features, blocks, training.labels, tasks, training.classes, shape.rows, shape.bins)
    if transfer:
        statistics = transfer.statistics(statistics)
    network = Network(features=features, tasks=tasks, shape=shape, statistics=statistics)
    network.meet({group: of for group, of in as_batch(training).inputs.items() if group in groups})
    if transfer:
        transfer.carry_over(network)
    return network


def learn_once(
    learner: Learner, parts: Parts, plan: Plan, order: np.random.Generator, progress: Progress = silent
) -> Losses:
    """One pass over the training part in a new order; returns each task's mean loss."""
    seen: dict[str, list[float]] = {}
    batches, done, steps = in_turn if plan.turns else mixed, 0, -(-parts.rows // plan.batch)
    for portion in parts.portions(order):
        for rows in batches(family_of(portion), plan.batch, order):
            losses = learner.learn(as_batch(portion, learner.fleet.share(rows)))
            for task, loss in losses.items():
                seen.setdefault(task, []).append(loss)
            done += 1
            progress(done, max(done, steps), losses)
    learner.balance.epoch_ended()
    return {task: float(np.mean(values)) for task, values in seen.items()}
