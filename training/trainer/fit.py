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

from contract.settings import ModelConfig, TrainingConfig
from model.feature_statistics import measure
from model.network import Network
from training.data.examples import Examples
from training.data.split import assign_families
from training.data.streaming import ExampleStream
from training.trainer.calibration import calibrate
from training.trainer.distributed import SINGLE_PROCESS, ProcessGroup
from training.trainer.evaluation import Evaluation, evaluate, weighted_score
from training.trainer.learner import Learner, alternating_batches, mixed_batches, to_batch
from training.trainer.partition import TrainingData, prepare_data, split_held_out
from training.trainer.task_focus import prioritize_tasks
from training.trainer.training_state import TrainingState, compute_digest
from training.trainer.transfer import Transfer

Losses = Mapping[str, float]
EpochCallback = Callable[["Epoch"], None]
ProgressCallback = Callable[[int, int, Losses], None]  # steps done, of how many, and the losses of the last one


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
class FitResult:
    """The best network by the weighted score, calibrated; its figures, and why some tasks are not among its own."""

    network: Network
    optimizer: Mapping[str, Any]
    evaluation: Evaluation
    score: float
    left_out: dict[str, str]


def ignore_progress(done: int, steps: int, losses: Losses) -> None:
    """Says nothing."""


@dataclass(frozen=True, slots=True)
class FitOptions:
    """How a fit goes, beside its plan. `kept`: a file that has the course after each epoch, and is gone on with.

    `transfer`: the trained network that the new one begins as. `fleet`: the processes that learn it together, each of
    which finds the same; the one that leads keeps the course. `progress` is told of every step.
    """

    state_path: Path | None = None
    transfer: Transfer | None = None
    process_group: ProcessGroup = SINGLE_PROCESS
    progress: ProgressCallback = ignore_progress


DEFAULT_OPTIONS = FitOptions()


def fit(
    examples: Examples | ExampleStream,
    shape: ModelConfig,
    plan: TrainingConfig,
    report: EpochCallback,
    options: FitOptions = DEFAULT_OPTIONS,
) -> FitResult:
    """Learn until the held-out score gains no more; equal seeds give equal weights. Raises `BadData`, `BadConfig`."""
    state_path, transfer, process_group = options.state_path, options.transfer, options.process_group
    if transfer:
        transfer.check(examples, shape)
    data = prepare_data(examples, plan, transfer)
    calibrating, validation = split_held_out(data.held_out)
    network = build_network(data.statistics_sample, shape, transfer).to(process_group.device)
    if transfer:
        calibrating = transfer.drop_frozen_labels(calibrating)
    groups = transfer.parameter_groups(network, plan.learning_rate) if transfer else None
    state = TrainingState(
        learner=Learner(network=network, plan=plan, groups=groups, process_group=process_group), seed=plan.seed
    )
    digest = compute_digest(examples, shape, plan, transfer.name if transfer else "") if state_path else ""
    if state_path and state_path.is_file():
        state.restore(state_path, digest)
    while state.epochs_done < plan.epochs and state.best.waited < plan.patience:
        losses = train_epoch(state.learner, data, plan, state.rng, options.progress)
        calibrate(network.eval(), calibrating)  # losses know nothing of it, so learning goes on as if it were not there
        evaluation = evaluate(network, validation)
        score = weighted_score(network.tasks, evaluation)
        state.epochs_done += 1
        state.best.update(score, state.learner)
        state.learner.weights = prioritize_tasks(network.tasks, evaluation, plan.focus)
        if state_path and process_group.is_main:
            state.save(state_path, digest)
        report(Epoch(state.epochs_done, losses, score, state.learner.weights if plan.focus else {}))
    best = state.best
    network.load_state_dict(best.weights)
    evaluation = evaluate(network.eval(), validation)
    optimizer = best.optimizer if groups is None else {}  # of other parameters than those that learn from here on
    return FitResult(network.cpu().requires_grad_(True), optimizer, evaluation, best.score, data.left_out)


def build_network(training: Examples, shape: ModelConfig, transfer: Transfer | None = None) -> Network:
    """A network that has counted the training part, but not learned from it; maybe it begins as another one."""
    groups = dict.fromkeys(group for task in training.tasks for group in task.groups)
    blocks = {group: training.blocks[group] for group in groups}
    features, tasks = training.features, training.tasks
    statistics = measure(features, blocks, training.labels, tasks, training.classes, shape.rows, shape.bins)
    if transfer:
        statistics = transfer.merge_statistics(statistics)
    network = Network(features=features, tasks=tasks, config=shape, statistics=statistics)
    network.init_embeddings({group: inputs for group, inputs in to_batch(training).inputs.items() if group in groups})
    if transfer:
        transfer.copy_weights(network)
    return network


def train_epoch(
    learner: Learner,
    data: TrainingData,
    plan: TrainingConfig,
    rng: np.random.Generator,
    progress: ProgressCallback = ignore_progress,
) -> Losses:
    """One pass over the training part in a new order; returns each task's mean loss."""
    losses_by_task: dict[str, list[float]] = {}
    batches, done, steps = alternating_batches if plan.turns else mixed_batches, 0, -(-data.rows // plan.batch)
    for chunk in data.chunks(rng):
        for rows in batches(assign_families(chunk), plan.batch, rng):
            losses = learner.train_step(to_batch(chunk, learner.process_group.local_rows(rows)))
            for task, loss in losses.items():
                losses_by_task.setdefault(task, []).append(loss)
            done += 1
            progress(done, max(done, steps), losses)
    learner.balancer.end_epoch()
    return {task: float(np.mean(values)) for task, values in losses_by_task.items()}
